"""Settings of all tests."""

import torch

# Small matrices: a second thread costs more than it gives, and pytest already runs two workers.
torch.set_num_threads(1)
