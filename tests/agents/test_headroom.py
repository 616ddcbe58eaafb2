"""What random, fixed, trained and all-knowing policies reach, of every environment, in the quick form."""

import json
from pathlib import Path

import numpy as np
import pytest

from agents import headroom
from agents.headroom import BUILD, HEADROOM, ROLES, TOLD, TRIALS, Config, main
from agents.trials.classical.oracles import BestArm, StraightToTheGoal
from gym_reml import REGISTRATIONS
from gym_reml.evaluation import evaluate_trials

pytestmark = pytest.mark.usefixtures("few_tries")


def test_every_environment_has_a_row() -> None:
    """The first id of each, whatever its encodings."""
    classes = {row.entry_point: name for name, row in reversed(REGISTRATIONS.items())}
    assert set(HEADROOM) == set(classes.values())


@pytest.mark.parametrize("env", HEADROOM)
def test_the_quick_form_has_all_roles(env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "QUICK_TASKS", 4)
    # NetBuild's fixed choices and oracle try every composition; test_slow has them.
    who = ("random", "trained") if env == BUILD else ROLES
    out = tmp_path / "figures.json"
    main(Config(env, who=who, quick=True, run=tmp_path / "run", out=out, agents=("ppo-box",)))
    rows = json.loads(out.read_text(encoding="utf-8")).values()
    assert {row["role"] for row in rows} == set(who) - (set() if env in {*TOLD, *TRIALS} else {"oracle"})
    assert all(np.isfinite(row["mean"]) and row["ci95"] >= 0.0 for row in rows)


def test_oracles_of_trials_reach_what_can_be_reached() -> None:
    """The best of five arms that are uniform in [0, 1] is 5 / 6 on average."""
    assert evaluate_trials(BestArm(), "BanditTrial-v0", 2000, arms=5, episodes=10).total.mean() == pytest.approx(
        10 * 5 / 6, abs=0.1
    )
    # Goals are .38 away on average, and each step of up to .1 on either axis takes from that.
    returns = evaluate_trials(StraightToTheGoal(), "NavigationTrial-v0", 200, episodes=2).episodes
    assert (returns > -3.0).all()
    assert returns.mean() == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config("BanditTrial-v0", family="clusters"), "--family clusters: only for"),
        (Config("NetTune-v0", family="nothing"), "--family nothing: not for NetTune-v0"),
        (Config(tasks=1), "--tasks 1: must be at least 2"),
    ],
)
def test_bad_options(config: Config, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(config)
