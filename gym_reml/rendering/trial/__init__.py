"""Images and texts of trials. A new kind of trial is a `TrialView` and an entry of `TRIAL_VIEWS`."""

from gym_reml.rendering.trial.bandit import BanditView
from gym_reml.rendering.trial.navigation import NavigationView
from gym_reml.rendering.trial.tabular import TabularView
from gym_reml.rendering.trial.view import TrialView

TRIAL_VIEWS: dict[str, TrialView] = {
    "bandit": BanditView(),
    "tabular": TabularView(),
    "navigation": NavigationView(),
}
"""The view of each kind of trial, by the name of its inner process."""


def find_view(name: str) -> TrialView:
    """The view of a kind of trial, by the name of its inner process; a ValueError lists the choices."""
    if name not in TRIAL_VIEWS:
        raise ValueError(
            f"render_mode: there is no view of trials of {name!r}; gym_reml.rendering.trial.TRIAL_VIEWS has views of "
            f"{', '.join(map(repr, TRIAL_VIEWS))}"
        )
    return TRIAL_VIEWS[name]


__all__ = ["TRIAL_VIEWS", "TrialView", "find_view"]
