"""`NetRule-v0`: write the update rule by which networks are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gym_reml.decisions.update_rules import Rule
from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.common.view import for_rows
from gym_reml.envs.tuning.envs import TuningEnv, TuningVectorEnv, TuningView
from gym_reml.envs.tuning.recorder import RuleRecorder
from gym_reml.envs.tuning.setup import make_rule_search, select_arguments
from gym_reml.mdp.rule_search import RuleProcess
from gym_reml.mdp.runs import MakeNetwork
from gym_reml.tasks.data_sets.base import DataSets


class RuleView(TuningView):
    """Base of both environments."""

    process: RuleProcess

    @for_rows(takes_row=True)
    def rule(self, row: int = 0) -> Rule:
        """The row's rule: of the groups decided so far.

        Raises:
            ValueError: `row` is out of range, or nothing has been decided yet.
        """
        self._check_row("rule", row)
        return self.process.rule(int(row))

    def _make_recorder(self, row: int) -> RuleRecorder:
        return RuleRecorder(row)


class NetRuleEnv(RuleView, TuningEnv):
    """Write the update rule by which networks are trained.

    ## Description

    An episode writes one update rule, a group of operands and functions at a time, and at its end trains networks from
    scratch by that rule. The reward is what they gain in the metric on validation data. This is the search of Neural
    Optimizer Search (Bello et al. 2017, arXiv:1709.07417), which found PowerSign and AddSign.

    A rule is a direction d: weights move by w - step_size * d. A group is binary(unary_1(operand_1),
    unary_2(operand_2)); its result is an operand of later groups, `r1`, `r2`, ..., and that of the last one is d. Every
    rule is trained with each of the `rates` as the step size, and the best one counts, as in the paper.

    Without arguments, episodes draw synthetic classification problems (`family="clusters"`).

    ## Action space

    Five choices, by the names in the two tables below.

    | `action` | Space |
    |---|---|
    | `"multidiscrete"` (`NetRule-v0`) | `MultiDiscrete([operands, operands, 15, 15, 6])` |
    | `"box"` (`NetRuleBox-v0`) | `Box(-1, 1, (2 * operands + 36,))`: a logit for each option, the largest is taken |
    | `"hybrid"` (`NetRuleHybrid-v0`) | `Dict` with a `Discrete` for each of the five by name |

    There are 17 operands, then the results of all groups but the last. A result that does not exist yet stands for g,
    but in `"box"`, where its logit is not looked at.

    | Operand | Meaning |
    |---|---|
    | `g`, `g^2`, `g^3` | the gradient of the minibatch and its powers |
    | `m`, `v`, `gamma` | their moving averages from 0, which keep 0.9, 0.999 and 0.999 of themselves |
    | `sign g`, `sign m` | signs: -1, 0 or 1 |
    | `1`, `2` | constants |
    | `noise` | normal random numbers with standard deviation 0.01 |
    | `1e-4 w`, `1e-3 w`, `1e-2 w`, `1e-1 w` | the weights times a constant: weight decay |
    | `adam`, `rmsprop` | the directions of `torch.optim.Adam` and `torch.optim.RMSprop` with their defaults |

    | Function | Meaning |
    |---|---|
    | `x`, `-x`, `exp`, `sign` | of the argument x |
    | `log`, `sqrt` | log(abs(x) + 1e-8) and sqrt(abs(x)) |
    | `clip 1e-5`, `clip 1e-4`, `clip 1e-3` | between minus and plus this |
    | `drop 0.1`, `drop 0.3`, `drop 0.5` | with this probability 0, else divided by the probability of the contrary |
    | `linear`, `cosine`, `restarts` | x times a factor that falls from 1 to 0 in the run, `restarts` five times |
    | `+`, `-`, `*` | binary functions |
    | `/`, `^` | x / (y + 1e-8) and abs(x) ^ y, which are numbers more often than those of the paper |
    | `left` | the first argument; the second has no effect |

    ## Observation space

    A `Box(-20, 20)` of float32:

    | Part | Size | Meaning |
    |---|---|---|
    | `groups` | `horizon` * (2 * operands + 36) | the five choices of each group, one-hot; 0 before it is decided |
    | `progress` | 2 | steps / horizon; whether every run has diverged |

    `env.unwrapped.tuning.parts` has the slices.

    ## Rewards

    0 until the rule is complete. Then for each of the row's `tasks` data sets and each of the `rates`, a network is
    trained by `updates` minibatches. The reward is the validation metric of these networks minus that at their initial
    weights, a mean over the data sets, at the rate that makes it largest. A run *diverges* when a loss or a weight
    would not be finite: it keeps its last finite weights, is trained no more, and its metrics are those of its initial
    weights. So a rule that comes to nothing returns 0.

    Validation data are rewarded on, never trained on. Test data are neither: they are for evaluation.

    ## Starting state

    Newly drawn data sets, networks with newly drawn weights (the same for all rates), and no rule.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Further steps are allowed and change nothing.

    ## Information

    The same names after resets and steps. Values are means over the data sets, at the best of the `rates`; before the
    rule is complete, those of the initial weights:

    | Name | Value |
    |---|---|
    | `train_loss`, `train_accuracy` | means over the last minibatches of training |
    | `validation_loss`, `validation_accuracy` | of the trained networks |
    | `test_accuracy` | of the trained networks, where there is a test part |
    | `operand_1`, `operand_2`, `unary_1`, `unary_2`, `binary` | the last group, as indices |
    | `rate` | the best step size; 0 before there is one |
    | `exploded` | the share of the runs that diverged |
    | `diverged` | whether every run diverged |
    | `task` | a dict: the numbers of the tasks; with several `tasks`, arrays with one for each |

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | trains on these tasks: numbers by name, as in `info["task"]`; their data are newly drawn |
    | `{"reset_mask": mask}` | vector environments: resets only these rows, (num_envs,) bool |

    ## The network and the data

    `module`, `train`, `validation`, `test`, `batch_size`, `family` and `family_kwargs` are those of
    [NetTune-v0](net_tune.md), which says what modules may be. Families by name (`"clusters"`, `"fashion_mnist"`,
    `"digits"`, `"sign_digits"`) have 400 `examples` here (50 or 150 in the two small collections), without label noise,
    `widths` of 16 and `batch_sizes` of 32; `family_kwargs` changes each of these.

    `env.unwrapped.rule(row)` is the row's `gym_reml.decisions.update_rules.Rule`, which prints as a formula, is written
    to and read from JSON, and becomes a `torch.optim.Optimizer`: see [Update rules](../rules.md).
    `env.unwrapped.export(row)` returns a copy of the row's network on its first data set.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `module` | `None` | makes the network; `None`: two hidden layers of ReLUs, of the task's width, or of 64 units |
    | `train` | `None` | training data; `None`: those that `family` draws |
    | `validation` | `None` | validation data; required with `train` |
    | `test` | `None` | test data, for `info` only |
    | `batch_size` | `None` | examples of a minibatch; `None`: 32 with `train`; a family draws its own |
    | `family` | `None` | distribution of data sets; `None`: `"clusters"`, unless `train` is given |
    | `family_kwargs` | `None` | fields of the family, as a dict |
    | `tasks` | `1` | data sets of an episode |
    | `rates` | `(0.01, 0.1, 1.0)` | step sizes that every rule is trained with; one for a fixed rate |
    | `horizon` | `3` | groups of a rule: steps of an episode |
    | `updates` | `100` | minibatches that a network is trained by |
    | `device` | `"cpu"` | any torch device: networks and their data are there, observations and rewards are numpy |
    | `action` | `"multidiscrete"` | see above; set by the id |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    ## Version history

    * v0: first release.

    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        tasks: int = 1,
        rates: Sequence[float] = (0.01, 0.1, 1.0),
        horizon: int = 3,
        updates: int = 100,
        device: str | torch.device = "cpu",
        action: str = "multidiscrete",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(make_rule_search(1, **select_arguments(make_rule_search, locals())), render_mode)


class NetRuleVectorEnv(RuleView, TuningVectorEnv):
    """The native vector environment behind `gym.make_vec("NetRule-v0", num_envs=n)`; see `NetRuleEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        tasks: int = 1,
        rates: Sequence[float] = (0.01, 0.1, 1.0),
        horizon: int = 3,
        updates: int = 100,
        device: str | torch.device = "cpu",
        action: str = "multidiscrete",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NetRuleEnv`, and those of every vector environment (see `TuningVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        setup = make_rule_search(num_envs, **select_arguments(make_rule_search, locals()))
        super().__init__(
            setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps, output=output
        )
