"""A program as those of `agents.libraries`, of a library that is always there."""

from agents.libraries.reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("numpy",)
ENV_ID = "NetBuildDiscrete-v0"


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Takes the first action always."""
    print("a library that talks")
    random, first = (
        held_out_return(ENV_ID, act, episodes=4, horizon=2)
        for act in (None, lambda observation: [seed] * len(observation))
    )
    row = Reached("numpy", version_of("numpy"), "none", ENV_ID, "single", int(100 * budget), 1.0, random, first)
    return [row]


if __name__ == "__main__":
    run(main)
