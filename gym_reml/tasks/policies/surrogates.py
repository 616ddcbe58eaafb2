"""Policy-gradient losses whose derivatives are right: the first ones all agree, the second ones are what matters.

A meta-gradient differentiates through an inner policy-gradient step, so it needs derivatives of a gradient estimate.
With L the log-probabilities, the second derivative of an expectation E[A] is E[A (dL dL^T + ddL)]; losses differ in
which of the terms they keep.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def lvc(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """The ratio form -A pi / stop_grad(pi) ("low variance curvature", ProMP, Rothfuss et al. 2019, eq. 12).

    Keeps dL dL^T within a step, and drops products with earlier steps' derivatives, whose expectation is small beside
    their variance.

    Args:
        log_probability: of the actions taken, (n, trajectories, steps).
        weighted_advantage: advantage times the step's weight, (n, trajectories, steps).

    Returns:
        (n,) the loss of each row.
    """
    ratio = (log_probability - log_probability.detach()).exp()
    return -(ratio * weighted_advantage).sum(dim=(1, 2))


def dice(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """The magic box exp(x - stop_grad(x)) over all log-probabilities so far, for every order as good as advantages are.

    In the form for any estimate of advantages (Loaded DiCE, Farquhar et al. 2019, eq. 9); for returns to go it is DiCE
    (Foerster et al. 2018). Arguments and result as for `lvc`.
    """
    surplus = log_probability - log_probability.detach()
    so_far = surplus.cumsum(dim=2)
    return -((so_far.exp() - (so_far - surplus).exp()) * weighted_advantage).sum(dim=(1, 2))


def first_order(log_probability: Tensor, weighted_advantage: Tensor) -> Tensor:
    """Plain -A log pi, whose derivatives beyond the first lack dL dL^T.

    With a mean baseline the meta-gradient through such a step is that of first-order MAML. Arguments and result as for
    `lvc`.
    """
    return -(log_probability * weighted_advantage).sum(dim=(1, 2))


SURROGATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lvc": lvc, "dice": dice, "first_order": first_order}
"""The losses by the name that families of policies take."""
