"""Figures that come from elsewhere: what authors published, and what was recomputed. No command here made them.

They are shown beside the tables of docs/results, with their source.
"""

from __future__ import annotations

from dataclasses import dataclass

RECOMPUTED = "recomputed"
READ = "read in its authors' result files"


@dataclass(frozen=True)
class Figures:
    """Means of somebody.

    Attributes:
        who: as tables call them.
        origin: where the means come from.
        means: by the column of the results page; that of None is for networks that are adapted as published.
    """

    who: str
    origin: str
    means: dict[int | None, float]


@dataclass(frozen=True)
class References:
    """Published figures shown beside the tables of a family.

    Attributes:
        note: how these figures differ from those of the table.
        figures: one row each.
    """

    note: str
    figures: tuple[Figures, ...]


def _by_step(*means: float) -> dict[int | None, float]:
    """After 0, 1, 2, ... updates."""
    return dict(enumerate(means))


def _by_length(lengths: tuple[int, ...], *means: float) -> dict[int | None, float]:
    return dict(zip(lengths, means, strict=True))


NAVIGATION = References(
    "The authors' are for 40 goals and 40 trajectories per update, at the rates .5 and then .25; the recomputed ones "
    "for 200 goals and 20 trajectories per update.",
    (
        Figures("MAML", READ, _by_step(-40.4, -11.7, -3.33, -3.23, -3.35)),
        Figures("pretrained", READ, _by_step(-40.8, -19.7, -11.7, -8.5, -7.5)),
        Figures("random weights", READ, _by_step(-82.7, -58.0, -53.8, -46.8, -42.9)),
        Figures("oracle, which knows the goal", READ, _by_step(-2.29)),
        Figures("MAML, LVC, TRPO", RECOMPUTED, _by_step(-38.1, -11.1, -5.1, -4.8, -4.4)),
        Figures("MAML, LVC, Adam", RECOMPUTED, _by_step(-38.2, -11.2, -5.2, -5.1, -5.1)),
        Figures("MAML, first order, TRPO", RECOMPUTED, _by_step(-38.1, -16.3, -7.6)),
        Figures("pretrained, rate tuned", RECOMPUTED, _by_step(-38.1, -13.5, -8.7)),
        Figures("random weights", RECOMPUTED, _by_step(-81.9, -68.5, -63.9)),
    ),
)

_PULLS = (10, 100)


def _bandit(
    lengths: tuple[int, ...],
    *,
    random: tuple[float, ...],
    thompson: tuple[float, ...],
    ucb1: tuple[float, ...],
    gittins: tuple[float, ...],
) -> References:
    recomputed = {"random": random, "Thompson": thompson, "UCB1, factor .1": ucb1, "Gittins": gittins}
    return References(
        "UCB1's index is the posterior mean plus .1 times the bound, Thompson and Gittins have the prior Beta(1, 1).",
        tuple(Figures(who, RECOMPUTED, _by_length(lengths, *means)) for who, means in recomputed.items()),
    )


_EPISODES = (10, 25, 50)

TABULAR = References(
    "The same processes: 10 states, 5 actions, 10 steps per episode. The oracle knows the process.",
    (
        Figures("random", RECOMPUTED, _by_length(_EPISODES, 100.3, 250.0, 502.8)),
        Figures("PSRL", RECOMPUTED, _by_length(_EPISODES, 133.0, 404.3, 902.9)),
        Figures("greedy", RECOMPUTED, _by_length(_EPISODES, 149.9, 425.5, 900.4)),
        Figures("BEB", RECOMPUTED, _by_length(_EPISODES, 152.0, 441.9, 962.6)),
        Figures("oracle", RECOMPUTED, _by_length(_EPISODES, 218.4, 546.3, 1092.9)),
    ),
)


def _omniglot(*figures: tuple[str, str, float]) -> References:
    """From the method, the key of its paper and the accuracy."""
    return References(
        "MAML's networks without convolutions are 784-256-128-64-64, its convolutional ones four layers of 64 filters. "
        "Finn et al. draw 1,200 characters to train on at random, and 1.9 million tasks; they take 1 to 5 steps at one "
        "fixed rate.",
        tuple(Figures(who, f"published {{cite:p}}`{paper}`", {None: accuracy}) for who, paper, accuracy in figures),
    )


MANN, DENSE, CONV = "MANN, no convolutions", "MAML, no convolutions", "MAML, convolutional"
PLUS_PLUS = "MAML++, convolutional"

REFERENCES: dict[str | tuple[str, int | None], References] = {
    ("omniglot_full-characters", 1): _omniglot(
        (MANN, "finn2017maml", 0.828),
        (DENSE, "finn2017maml", 0.897),
        (CONV, "finn2017maml", 0.987),
        (PLUS_PLUS, "antoniou2019maml++", 0.9947),
    ),
    ("omniglot_full-characters", 5): _omniglot(
        (MANN, "finn2017maml", 0.949), (DENSE, "finn2017maml", 0.975), (CONV, "finn2017maml", 0.999)
    ),
    ("omniglot_full-20way", 1): _omniglot((CONV, "finn2017maml", 0.958), (PLUS_PLUS, "antoniou2019maml++", 0.9765)),
    "navigation": NAVIGATION,
    "bandit-5": _bandit(
        (10, 100, 500),
        random=(5.0, 49.9, 248.8),
        thompson=(5.7, 74.6, 401.3),
        ucb1=(6.7, 78.1, 406.6),
        gittins=(6.6, 78.7, 406.8),
    ),
    "bandit-10": _bandit(_PULLS, random=(5.1, 50.3), thompson=(5.5, 77.1), ucb1=(6.7, 83.4), gittins=(6.7, 84.0)),
    "bandit-50": _bandit(_PULLS, random=(5.0, 50.3), thompson=(5.1, 64.7), ucb1=(6.7, 84.9), gittins=(6.6, 85.4)),
    "tabular": TABULAR,
}
"""By the family of the rows, with their number of shots where figures depend on it."""
