"""The exact hybrid policy's distribution against theory: by hand, by samples and by finite differences."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import kl_divergence
from torch import Tensor
from torch.distributions import Categorical, Normal

from gym_reml.sb3.hybrid_policy import CategoricalNormal, HybridDistribution
from gym_reml.spaces import make_encoding

pytestmark = pytest.mark.filterwarnings("error")
CHOICES = 4  # layers 0..3
ROWS = 3
SAMPLES = 100_000
BOX = spaces.Box(-1.0, 1.0, (CHOICES + 1,), np.float32)


def head(seed: int) -> tuple[Tensor, Tensor]:
    """What a policy's head may put out for ROWS observations, in double precision, and its log std."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(ROWS, CHOICES + 1, generator=generator, dtype=torch.float64)
    return outputs, torch.tensor([-0.7 + 0.3 * seed], dtype=torch.float64)


def distribution(seed: int = 0) -> HybridDistribution:
    return HybridDistribution(CHOICES + 1).proba_distribution(*head(seed))


def rows(layers: Any, steps: Any) -> Tensor:
    """The actions of those layers and steps, as the Box encoding writes them, but with steps of any size."""
    actions = torch.full((len(layers), CHOICES + 1), -1.0, dtype=torch.float64)
    actions[torch.arange(len(layers)), torch.as_tensor(layers)] = 1.0
    actions[:, -1] = torch.as_tensor(steps)
    return actions


def sampled(seed: int = 0) -> Tensor:
    """Actions (SAMPLES, ROWS, CHOICES + 1)."""
    torch.manual_seed(0)
    return distribution(seed).distribution.sample(torch.Size([SAMPLES]))


def assert_is_mean_of(expected: Tensor, samples: Tensor) -> None:
    """Within five standard errors of the mean over the first axis."""
    errors = samples.std(dim=0) / len(samples) ** 0.5
    assert ((samples.mean(dim=0) - expected).abs() <= 5.0 * errors).all()


def test_probabilities_sum_to_one() -> None:
    """Over all layers, and over steps by the trapezium rule, which converges exponentially for a Gaussian."""
    steps = torch.linspace(-15.0, 15.0, 3001, dtype=torch.float64)
    total = torch.zeros(ROWS, dtype=torch.float64)
    for layer in range(CHOICES):
        actions = rows([layer] * len(steps), steps)[:, None].expand(-1, ROWS, -1)
        total += torch.trapezoid(distribution().distribution.log_prob(actions).exp(), steps, dim=0)
    torch.testing.assert_close(total, torch.ones(ROWS, dtype=torch.float64), rtol=1e-12, atol=0.0)


def test_log_prob_by_hand() -> None:
    outputs, log_std = head(0)
    layers, steps = torch.tensor([2, 0, 3]), torch.tensor([0.3, -1.7, 4.0], dtype=torch.float64)
    found = distribution().log_prob(rows(layers, steps))
    assert found.shape == (ROWS,)
    parts = Categorical(logits=outputs[:, :-1]).log_prob(layers) + Normal(outputs[:, -1], log_std.exp()).log_prob(steps)
    torch.testing.assert_close(found, parts)
    z, mean, std = outputs[:, :-1].numpy(), outputs[:, -1].numpy(), log_std.exp().item()
    density = np.exp(z)[np.arange(ROWS), layers] / np.exp(z).sum(axis=1)
    density *= np.exp(-((steps.numpy() - mean) ** 2) / (2.0 * std**2)) / (std * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(found.exp(), density)


def test_any_row_is_as_likely_as_what_it_stands_for() -> None:
    drawn = torch.rand(ROWS, CHOICES + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    canonical = rows(drawn[:, :-1].argmax(dim=1), drawn[:, -1])
    assert torch.equal(distribution().log_prob(drawn), distribution().log_prob(canonical))


def test_entropy_is_the_mean_surprise() -> None:
    expected = distribution().entropy()
    assert expected.shape == (ROWS,)
    assert_is_mean_of(expected, -distribution().distribution.log_prob(sampled()))


def test_divergence_by_samples_and_by_hand() -> None:
    one, other = distribution(0), distribution(1)
    found = kl_divergence(one, other)
    actions = sampled()
    assert_is_mean_of(found, one.distribution.log_prob(actions) - other.distribution.log_prob(actions))

    (outputs, log_std), (others, other_log_std) = head(0), head(1)
    p, q = outputs[:, :-1].softmax(dim=1), others[:, :-1].softmax(dim=1)
    std, other_std = log_std.exp(), other_log_std.exp()
    gap = outputs[:, -1] - others[:, -1]
    by_hand = (p * (p / q).log()).sum(dim=1) + (other_std / std).log()
    torch.testing.assert_close(found, by_hand + (std**2 + gap**2) / (2.0 * other_std**2) - 0.5)
    assert (found > 0.0).all()
    assert (kl_divergence(one, distribution(0)) == 0.0).all()


def test_second_derivative_of_the_divergence_is_the_fisher_information() -> None:
    """What TRPO's conjugate gradients need; at the old policy it is the covariance of the scores."""
    outputs, log_std = head(0)
    flat = torch.cat((outputs[0], log_std))

    def at(parameters: Tensor) -> CategoricalNormal:
        return CategoricalNormal(parameters[:CHOICES], parameters[CHOICES], parameters[CHOICES + 1].exp())

    hessian = torch.autograd.functional.hessian(lambda x: torch.distributions.kl_divergence(at(x), at(flat)), flat)
    p, variance = outputs[0, :-1].softmax(dim=0), log_std.exp() ** 2
    expected = torch.zeros(CHOICES + 2, CHOICES + 2, dtype=torch.float64)
    expected[:CHOICES, :CHOICES] = p.diag() - p[:, None] * p
    expected[CHOICES, CHOICES] = 1.0 / variance.item()
    expected[CHOICES + 1, CHOICES + 1] = 2.0
    assert isinstance(hessian, Tensor)
    torch.testing.assert_close(hessian, expected)


def test_gradients_by_finite_differences() -> None:
    actions = rows([1, 3, 0], [0.3, -1.7, 4.0])
    parameters = tuple(tensor.requires_grad_() for tensor in head(0))

    def values(outputs: Tensor, log_std: Tensor) -> Tensor:
        made = HybridDistribution(CHOICES + 1).proba_distribution(outputs, log_std)
        return torch.stack((made.log_prob(actions), made.entropy()))

    assert torch.autograd.gradcheck(values, parameters)


def test_samples_have_the_right_frequencies_and_form() -> None:
    outputs, log_std = head(0)
    actions = sampled()
    assert actions.shape == (SAMPLES, ROWS, CHOICES + 1)
    chosen = actions[..., :-1] == 1.0
    assert (chosen.sum(dim=-1) == 1).all()
    assert (actions[..., :-1][~chosen] == -1.0).all()
    assert_is_mean_of(outputs[:, :-1].softmax(dim=1), chosen.double())
    steps = actions[..., -1]
    assert_is_mean_of(outputs[:, -1], steps)
    assert_is_mean_of((log_std.exp() ** 2).expand(ROWS), (steps - outputs[:, -1]) ** 2)
    independent = chosen.double() * (steps - outputs[:, -1])[..., None]
    assert_is_mean_of(torch.zeros(ROWS, CHOICES, dtype=torch.float64), independent)


def test_mode_and_the_shared_interface() -> None:
    outputs, log_std = head(0)
    made = HybridDistribution(CHOICES + 1)
    expected = rows(outputs[:, :-1].argmax(dim=1), outputs[:, -1])
    assert torch.equal(made.actions_from_params(outputs, log_std, deterministic=True), expected)
    assert torch.equal(made.get_actions(deterministic=True), expected)
    assert (made.log_prob(expected) >= made.log_prob(made.sample())).all()
    actions, log_prob = made.log_prob_from_params(outputs, log_std)
    assert torch.equal(made.log_prob(actions), log_prob)
    assert "CategoricalNormal" in repr(made.distribution)


def test_a_shallow_copy_keeps_the_old_distribution() -> None:
    made = distribution(0)
    old = copy.copy(made)
    made.proba_distribution(*head(1))
    torch.testing.assert_close(kl_divergence(made, old), kl_divergence(distribution(1), distribution(0)))


def test_samples_decode_to_their_layer_and_step() -> None:
    """Through the same clipping as SB3's, also with float32 rows; a full network reads any layer as 0."""
    outputs, log_std = head(0)
    torch.manual_seed(0)
    made = HybridDistribution(CHOICES + 1).proba_distribution(outputs.float(), log_std.float() + 1.0)
    encoding = make_encoding("box", CHOICES - 1, 13)
    generators = [np.random.default_rng(row) for row in range(ROWS)]
    outside = False
    for _ in range(50):
        actions = made.sample()
        assert actions.dtype == torch.float32
        clipped = np.clip(actions.numpy(), BOX.low, BOX.high)
        layers, steps = encoding.decode(clipped, np.ones((ROWS, CHOICES), dtype=bool), generators)
        np.testing.assert_array_equal(layers, actions[:, :-1].argmax(dim=1))
        np.testing.assert_array_equal(steps, actions[:, -1].clip(-1.0, 1.0))
        np.testing.assert_array_equal(encoding.encode(layers, steps), clipped)
        full = np.zeros((ROWS, CHOICES), dtype=bool)
        full[:, 0] = True
        assert (encoding.decode(clipped, full, generators)[0] == 0).all()
        outside |= bool((actions[:, -1].abs() > 1.0).any())
    assert outside, "clipping was tried"
    fresh = [np.random.default_rng(row).bit_generator.state for row in range(ROWS)]
    assert [generator.bit_generator.state for generator in generators] == fresh, "there are no ties to break"
