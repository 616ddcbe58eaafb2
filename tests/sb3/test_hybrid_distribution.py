"""The exact hybrid distribution compared with theory: by hand, by samples and by finite differences."""

from __future__ import annotations

import copy
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import kl_divergence
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from gym_reml.sb3.hybrid_policy import CategoricalNormal, HybridDistribution
from gym_reml.spaces import Decision, layer_and_step, make_encoding

pytestmark = pytest.mark.filterwarnings("error")
CHOICES = 4  # layers 0..3
DECISION = layer_and_step(CHOICES - 1)
ROWS = 3
SAMPLES = 100_000
BOX = spaces.Box(-1.0, 1.0, (CHOICES + 1,), np.float32)


def head(seed: int) -> tuple[Tensor, Tensor]:
    """Random outputs of a policy's head for ROWS observations, float64, and log std."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(ROWS, CHOICES + 1, generator=generator, dtype=torch.float64)
    return outputs, torch.tensor([-0.7 + 0.3 * seed], dtype=torch.float64)


def distribution(seed: int = 0) -> HybridDistribution:
    return HybridDistribution(DECISION).proba_distribution(*head(seed))


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
    """The sum over layers, and the integral over steps by the trapezoidal rule."""
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


def test_any_action_has_the_density_of_its_options_and_numbers() -> None:
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
    """TRPO's conjugate gradients need it; at the old policy it is the covariance of the scores."""
    outputs, log_std = head(0)
    flat = torch.cat((outputs[0], log_std))

    def at(parameters: Tensor) -> CategoricalNormal:
        return CategoricalNormal([parameters[:CHOICES]], parameters[CHOICES:-1], std=parameters[-1:].exp())

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
        made = HybridDistribution(DECISION).proba_distribution(outputs, log_std)
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
    made = HybridDistribution(DECISION)
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
    made = HybridDistribution(DECISION).proba_distribution(outputs.float(), log_std.float() + 1.0)
    encoding = make_encoding("box", DECISION)
    generators = [np.random.default_rng(row) for row in range(ROWS)]
    outside = False
    for _ in range(50):
        actions = made.sample()
        assert actions.dtype == torch.float32
        clipped = np.clip(actions.numpy(), BOX.low, BOX.high)
        decided = encoding.decode(clipped, DECISION.all_allowed(ROWS), generators=generators)
        np.testing.assert_array_equal(decided.choices[:, 0], actions[:, :-1].argmax(dim=1))
        np.testing.assert_array_equal(decided.numbers[:, 0], actions[:, -1].clip(-1.0, 1.0))
        np.testing.assert_array_equal(encoding.encode(decided), clipped)
        full = np.zeros((ROWS, CHOICES), dtype=bool)
        full[:, 0] = True
        assert (encoding.decode(clipped, (full,), generators=generators).choices == 0).all()
        outside |= bool((actions[:, -1].abs() > 1.0).any())
    assert outside, "clipping was tried"
    fresh = [np.random.default_rng(row).bit_generator.state for row in range(ROWS)]
    assert [generator.bit_generator.state for generator in generators] == fresh, "there are no ties to break"


# -- any decision ----------------------------------------------------------------------------------------------------

DECISIONS = {
    "a layer and a step": DECISION,
    "two choices, two numbers": Decision((2, 3), 2),
    "numbers alone": Decision(numbers=2),
    "a choice alone": Decision((5,)),
    "choices alone": Decision((2, 1, 3)),
}
every_decision = pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)


def any_head(decision: Decision, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random outputs of a policy's head for ROWS observations, and log standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(ROWS, decision.size, generator=generator, dtype=torch.float64)
    return outputs, 0.5 * torch.randn(decision.numbers, generator=generator, dtype=torch.float64) - 0.3


def any_distribution(decision: Decision, seed: int = 0) -> HybridDistribution:
    return HybridDistribution(decision).proba_distribution(*any_head(decision, seed))


def in_closed_form(decision: Decision, seed: int = 0) -> list[Distribution]:
    """The independent parts of the distribution, each of batch shape (ROWS,)."""
    outputs, log_std = any_head(decision, seed)
    parts: list[Distribution] = [Categorical(logits=outputs[:, part]) for part in decision.parts]
    if decision.numbers:
        normal = Normal(outputs[:, sum(decision.choices) :], log_std.exp().expand(ROWS, -1))
        parts.append(Independent(normal, 1))
    return parts


def flat_rows(decision: Decision, options: Tensor, numbers: Tensor) -> Tensor:
    """Rows (..., size) of options (..., C) and numbers (..., M)."""
    actions = torch.full((*options.shape[:-1], decision.size), -1.0, dtype=torch.float64)
    for index, part in enumerate(decision.parts):
        actions.scatter_(-1, options[..., index : index + 1] + part.start, 1.0)
    actions[..., decision.size - decision.numbers :] = numbers
    return actions


def some_rows(decision: Decision) -> tuple[Tensor, list[Tensor]]:
    """Actions (ROWS, size), and their options and numbers as `in_closed_form` takes them."""
    rng = np.random.default_rng(0)
    options = torch.from_numpy(rng.integers(decision.choices, size=(ROWS, len(decision.choices))))
    numbers = torch.from_numpy(rng.normal(size=(ROWS, decision.numbers)))
    return flat_rows(decision, options, numbers), [*options.T, *([numbers] if decision.numbers else [])]


@every_decision
def test_closed_forms(decision: Decision) -> None:
    actions, values = some_rows(decision)
    one, other = any_distribution(decision, 0), any_distribution(decision, 1)
    parts, others = in_closed_form(decision, 0), in_closed_form(decision, 1)
    expected = sum(part.log_prob(value) for part, value in zip(parts, values, strict=True))
    torch.testing.assert_close(one.log_prob(actions), expected)
    torch.testing.assert_close(one.entropy(), sum(part.entropy() for part in parts))
    divergence = sum(torch.distributions.kl_divergence(*pair) for pair in zip(parts, others, strict=True))
    torch.testing.assert_close(kl_divergence(one, other), divergence)
    assert (kl_divergence(one, any_distribution(decision, 0)) == 0.0).all()
    assert one.log_prob(actions).shape == one.entropy().shape == kl_divergence(one, other).shape == (ROWS,)


@every_decision
def test_probabilities_of_any_decision_sum_to_one(decision: Decision) -> None:
    """The sum over options, and the integral over numbers by the trapezoidal rule."""
    line = np.linspace(-12.0, 12.0, 97)
    numbers = torch.tensor(list(product(line, repeat=decision.numbers)), dtype=torch.float64)
    total = torch.zeros(ROWS, dtype=torch.float64)
    for options in product(*map(range, decision.choices)):
        chosen = torch.tensor(options, dtype=torch.int64).expand(len(numbers), -1)
        actions = flat_rows(decision, chosen, numbers)[:, None].expand(-1, ROWS, -1)
        density = any_distribution(decision).distribution.log_prob(actions).exp()
        total += density.sum(dim=0) * 0.25**decision.numbers
    torch.testing.assert_close(total, torch.ones(ROWS, dtype=torch.float64), rtol=1e-9, atol=0.0)


@every_decision
def test_samples_of_any_decision(decision: Decision) -> None:
    torch.manual_seed(0)
    made = any_distribution(decision)
    actions = made.distribution.sample(torch.Size([20_000]))
    assert actions.shape == (20_000, ROWS, decision.size)
    outputs, log_std = any_head(decision)
    centred = []
    for part in decision.parts:
        chosen = actions[..., part] == 1.0
        assert (chosen.sum(dim=-1) == 1).all()
        assert (actions[..., part][~chosen] == -1.0).all()
        probabilities = outputs[:, part].softmax(dim=1)
        if probabilities.shape[1] > 1:
            assert_is_mean_of(probabilities, chosen.double())
            centred.append(chosen[..., 0].double() - probabilities[:, 0])
    for index in range(decision.numbers):
        place = sum(decision.choices) + index
        centred.append(actions[..., place] - outputs[:, place])
        assert_is_mean_of(torch.zeros(ROWS, dtype=torch.float64), centred[-1])
        assert_is_mean_of((2.0 * log_std[index]).exp().expand(ROWS), centred[-1].square())
    for one, other in combinations(centred, 2):
        assert_is_mean_of(torch.zeros(ROWS, dtype=torch.float64), one * other)
    assert_is_mean_of(made.entropy(), -made.distribution.log_prob(actions))
    assert (made.log_prob(made.mode()) >= made.distribution.log_prob(actions[:100])).all()


@every_decision
def test_gradients_of_any_decision(decision: Decision) -> None:
    actions, _ = some_rows(decision)
    reference = any_distribution(decision, 1)
    outputs, log_std = any_head(decision)

    def values(*parameters: Tensor) -> Tensor:
        made = HybridDistribution(decision).proba_distribution(*parameters)
        return torch.stack((made.log_prob(actions), made.entropy(), kl_divergence(made, reference)))

    if decision.numbers:
        assert torch.autograd.gradcheck(values, (outputs.requires_grad_(), log_std.requires_grad_()))
    else:
        assert torch.autograd.gradcheck(lambda given: values(given, log_std), (outputs.requires_grad_(),))


@every_decision
def test_samples_of_any_decision_are_decoded_exactly(decision: Decision) -> None:
    torch.manual_seed(0)
    actions = any_distribution(decision).sample().float().numpy()
    encoding = make_encoding("box", decision)
    generators = [np.random.default_rng(row) for row in range(ROWS)]
    decided = encoding.decode(actions, decision.all_allowed(ROWS), generators=generators)
    np.testing.assert_array_equal(encoding.encode(decided), actions.clip(-1.0, 1.0))
