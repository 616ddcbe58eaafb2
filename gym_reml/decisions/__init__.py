"""What an agent may decide about the training of a network, piece by piece."""
