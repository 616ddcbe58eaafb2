"""Surrogate losses for policy gradients, which have the same first derivatives but different second ones.

A meta-gradient differentiates through an inner policy-gradient step, so it needs derivatives of a gradient estimate.
With L the log probability of a trajectory, the Hessian of an expectation E[A] is E[A (dL dL^T + ddL)]; the losses
differ in which of these terms they keep.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def lvc(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """Low variance curvature, -A pi / stop_grad(pi) (ProMP, Rothfuss et al. 2019, arXiv:1810.06784, eq. 12).

    It keeps dL dL^T within a step and drops products with derivatives of earlier steps, whose expectation is small
    compared with their variance.

    Args:
        log_probability: log probabilities of the actions taken, (n, trajectories, steps).
        weighted_advantage: advantage times the step's weight, (n, trajectories, steps).

    Returns:
        The loss of each row, (n,).
    """
    ratio = (log_probability - log_probability.detach()).exp()
    return -(ratio * weighted_advantage).sum(dim=(1, 2))


def dice(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """Magic box operator exp(x - stop_grad(x)) on the log probabilities so far: unbiased derivatives of any order.

    This is the form for arbitrary advantage estimates (Loaded DiCE, Farquhar et al. 2019, arXiv:1909.10549, eq. 9); for
    returns to go it equals DiCE (Foerster et al. 2018, arXiv:1802.05098). Arguments and result as for `lvc`.
    """
    surplus = log_probability - log_probability.detach()
    so_far = surplus.cumsum(dim=2)
    return -((so_far.exp() - (so_far - surplus).exp()) * weighted_advantage).sum(dim=(1, 2))


def first_order(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """Score-function loss -A log pi, whose higher derivatives lack dL dL^T.

    With a mean baseline the meta-gradient through such a step is that of first-order MAML. Arguments and result as for
    `lvc`.
    """
    return -(log_probability * weighted_advantage).sum(dim=(1, 2))


SURROGATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lvc": lvc, "dice": dice, "first_order": first_order}
"""Surrogate losses by name."""
