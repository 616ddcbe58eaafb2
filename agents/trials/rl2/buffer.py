"""sb3-contrib's recurrent rollout buffer, which pads all sequences of a minibatch at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.type_aliases import RecurrentRolloutBufferSamples, RNNStates
from torch import Tensor


class TrialRolloutBuffer(RecurrentRolloutBuffer):
    """The same minibatches as those of the base class, bit for bit.

    The base class makes a tensor of each sequence in each of nine arrays: a quarter of the time of training RL² on
    bandits, whose sequences are short. Here each array is indexed once.
    """

    @classmethod
    def like(cls, buffer: RecurrentRolloutBuffer) -> TrialRolloutBuffer:
        """An empty buffer of the same sizes and settings."""
        return cls(
            buffer.buffer_size,
            buffer.observation_space,
            buffer.action_space,
            buffer.hidden_state_shape,
            device=buffer.device,
            gae_lambda=buffer.gae_lambda,
            gamma=buffer.gamma,
            n_envs=buffer.n_envs,
        )

    def _get_samples(  # type: ignore[override]  # as the base class has it
        self, batch_inds: NDArray[Any], env_change: NDArray[Any], env: Any = None
    ) -> RecurrentRolloutBufferSamples:
        starts = ((self.episode_starts[batch_inds] != 0) | (env_change[batch_inds] != 0)).reshape(-1)
        starts[0] = True
        first = np.flatnonzero(starts)
        lengths = np.diff(first, append=len(starts))
        steps = np.arange(lengths.max())
        there = (steps < lengths[:, None]).reshape(-1)
        # Sequence by sequence; places behind the end of one hold its first step until they are set to 0.
        places = batch_inds[np.where(there.reshape(len(first), -1), first[:, None] + steps, first[:, None]).reshape(-1)]

        def padded(values: NDArray[Any]) -> Tensor:
            taken = values[places]
            taken[~there] = 0
            return self.to_torch(taken, copy=False)

        def states(values: NDArray[Any]) -> Tensor:
            return self.to_torch(values[batch_inds[first]].swapaxes(0, 1)).contiguous()

        return RecurrentRolloutBufferSamples(
            observations=padded(self.observations),
            actions=padded(self.actions),
            old_values=padded(self.values).flatten(),
            old_log_prob=padded(self.log_probs).flatten(),
            advantages=padded(self.advantages).flatten(),
            returns=padded(self.returns).flatten(),
            lstm_states=RNNStates(
                (states(self.hidden_states_pi), states(self.cell_states_pi)),
                (states(self.hidden_states_vf), states(self.cell_states_vf)),
            ),
            episode_starts=padded(self.episode_starts).flatten(),
            mask=padded(np.ones_like(self.returns)).flatten(),
        )
