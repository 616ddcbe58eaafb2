"""sb3-contrib's recurrent policy, made for trials: the critic teaches the memory too, and sequences go in one piece."""

from __future__ import annotations

from typing import Any

import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from torch import Tensor, nn


class TrialLstmPolicy(RecurrentActorCriticPolicy):
    """The same function of the same weights as `RecurrentActorCriticPolicy`, but for how they are learned and computed.

    Where actor and critic share an LSTM, the base class learns it from the actor's loss alone. Here both losses reach
    it: to predict the rest of a trial's return one has to remember earlier rewards, which is what the actor needs.

    The base class steps through a sequence one by one as soon as an episode starts anywhere in it. Sequences of
    sb3-contrib's rollout buffer are cut where episodes start, so that a start is always the first step: then one call
    of the LSTM does, which is about twice as fast.
    """

    def __init__(self, *arguments: Any, forget_bias: float = 0.0, **keywords: Any) -> None:
        """The base class's policy, whose LSTMs' forget gates have that much bias to remember.

        A bias b keeps a share sigmoid(b) of the memory at every step (Jozefowicz, Zaremba & Sutskever 2015).
        """
        super().__init__(*arguments, **keywords)
        for lstm in (self.lstm_actor, self.lstm_critic):
            if lstm is None:
                continue
            hidden = lstm.hidden_size
            for layer in range(lstm.num_layers):
                # PyTorch's order of gates is input, forget, cell, output; its two biases add up.
                with torch.no_grad():
                    getattr(lstm, f"bias_hh_l{layer}")[hidden : 2 * hidden] = forget_bias

    def evaluate_actions(  # type: ignore[override]  # as the base class has it
        self, obs: Tensor, actions: Tensor, lstm_states: Any, episode_starts: Tensor
    ) -> Any:
        """Values, log-probabilities and entropies, each (n,) but the values (n, 1), of n observations and actions."""
        if not self.shared_lstm:
            return super().evaluate_actions(obs, actions, lstm_states, episode_starts)
        features: Any = self.extract_features(obs)
        latent, _ = self._process_sequence(features, lstm_states.pi, episode_starts, self.lstm_actor)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent))
        values = self.value_net(self.mlp_extractor.forward_critic(latent))
        return values, distribution.log_prob(actions), distribution.entropy()

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, Any]:
        """LSTM outputs and states after sequences.

        Args:
            features: (sequences * steps, size), sequence by sequence.
            lstm_states: hidden and cell states (layers, sequences, hidden) before them.
            episode_starts: (sequences * steps,) float, 1 where the state is reset.
            lstm: what computes.

        Returns:
            (sequences * steps, hidden), and the states.
        """
        sequences = lstm_states[0].shape[1]
        starts = episode_starts.reshape(sequences, -1)
        if bool((starts[:, 1:] != 0.0).any()):
            return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)
        kept = (1.0 - starts[:, 0]).view(1, sequences, 1)
        by_step = features.reshape(sequences, -1, lstm.input_size).swapaxes(0, 1)
        hidden, states = lstm(by_step, (lstm_states[0] * kept, lstm_states[1] * kept))
        return hidden.transpose(0, 1).flatten(0, 1), states
