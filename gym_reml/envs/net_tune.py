"""`NetTune-v0`: set the step size, and other dials, while a network is trained on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.tuning.envs import TuningEnv, TuningVectorEnv
from gym_reml.envs.tuning.setup import make_tuning, select_arguments
from gym_reml.mdp.runs import MakeNetwork
from gym_reml.tasks.data_sets.base import DataSets


class NetTuneEnv(TuningEnv):
    """Set the step size, and other dials, while a network is trained on a data set.

    ## Description

    An episode trains one network from scratch on one data set: any `torch.nn.Module`, your own data, or data sets drawn
    from a distribution. Every action sets the dials for the next `updates` minibatches. The reward is the gain in the
    validation metric, so the return is what the whole run gained. An agent that is trained here sets the dials by what
    it sees of the run, where a schedule knows only the time.

    Without arguments, episodes draw synthetic classification problems (`family="clusters"`) that differ in the number
    of examples, the width of the network, the size of a minibatch, label noise and the scale of the inputs.

    ## Action space

    A number in [-1, 1] for each of `dials`. `action` chooses how they are written:

    | `action` | Space |
    |---|---|
    | `"box"` (`NetTune-v0`) | `Box(-1, 1, (dials,))` |
    | `"multidiscrete"` (`NetTuneMultiDiscrete-v0`) | `MultiDiscrete([step_bins] * dials)` |
    | `"discrete"` (`NetTuneDiscrete-v0`) | `Discrete(step_bins ** dials)` |
    | `"hybrid"` (`NetTuneHybrid-v0`) | `Dict` with a `Box(-1, 1, (1,))` for each dial by name |

    | Dial | From -1 to 1 |
    |---|---|
    | `"step_size"` | from `min_step` to `max_step`, on a logarithmic scale |
    | `"momentum"` | from 0 to 0.99, 1 - momentum being on a logarithmic scale: 0 is 0.9 |
    | `"weight_decay"` | from 1e-6 to 0.1, on a logarithmic scale; decoupled, as in AdamW |

    A dial is a level, not a change: the same action leaves it where it is. Values outside [-1, 1] are clipped; NaN or a
    wrong shape is a `ValueError`.

    With `step_sizes="group"` each of the G groups of parameters has a step size of its own, `step_size_1`,
    `step_size_2` and so on, in place of the one; each encoding then has so many numbers or bins, and `Discrete` offers
    at most 131,072 actions. Each child of the module is a group, as in `torch.optim` with
    `[{"params": child.parameters()} for child in module.children()]`; those without parameters are left out, so that
    the default network has 3, its linear layers. Parameters of the module itself are one more group, the first. A
    module that only wraps another one counts as that one. `env.unwrapped.tuning.children.groups` has their names.

    ## Observation space

    A `Box(-20, 20)` of float32; with `observation="dict"` the same parts by name. G is the number of groups of
    parameters, see above:

    | Part | Size | Meaning |
    |---|---|---|
    | `loss` | 6 | log(1 + loss) in training and validation, each: now; change in the last step, and since the start |
    | `metric` | 6 | the same of the metric; the last number is the distance of validation from its best so far |
    | `gradient_norms` | G | log10 of the gradients' root mean square norm |
    | `update_ratios` | G | log10 of the norm of what the step changed, over the norm of the weights |
    | `alignments` | G | mean cosine of the gradients of successive minibatches |
    | `dials` | dials | the last action: a number for each dial, or G for the step sizes of groups |
    | `progress` | 2 | steps / horizon; whether the run has diverged |

    Training losses and metrics are means over the minibatches of the last step, each before its update; after a reset,
    and gradients likewise, those of one minibatch at the initial weights. `env.unwrapped.tuning.parts` has the slices.

    ## Rewards

    The validation metric after the step minus that before: of the accuracy for labels, and of -log(1 + mean squared
    error) for numbers. The return is the gain over the episode. A run *diverges* when a loss or a weight would not be
    finite: it keeps its last finite weights, is trained no more, and counts as untrained from then on: its metrics are
    those of its initial weights, and the return is 0.

    Validation data are rewarded on and observed, never trained on. Test data are neither: they are for evaluation.

    ## Starting state

    A newly drawn data set, and a network with newly drawn weights.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Further steps are allowed: the network trains on, while the
    clock in the observation stays at the last step.

    ## Information

    The same names after resets and steps; the dials are 0 after a reset. Where targets are numbers, `accuracy` is
    `score`:

    | Name | Value |
    |---|---|
    | `train_loss`, `train_accuracy` | means over the minibatches of the step |
    | `validation_loss`, `validation_accuracy` | of the current network |
    | `test_accuracy` | of the current network, where there is a test part |
    | `step_size`, ... | each dial's value |
    | `diverged` | whether the run has diverged |
    | `task` | a dict: the numbers of the task, such as `width`, for evaluation |

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | trains on this task: numbers by name, as in `info["task"]`; its data are newly drawn |
    | `{"reset_mask": mask}` | vector environments: resets only these rows, (num_envs,) bool |

    ## The network

    `module` is a callable that makes a `torch.nn.Module` for inputs (batch, ...), such as `lambda: nn.Sequential(...)`.
    It is called with the numbers of the task that it has arguments for: `def make(width): ...` takes the task's width.
    Weights are drawn anew in every episode, from the seed of the environment. In a vector environment networks of equal
    shape are computed side by side by `torch.func`, so modules must be functions of weights and inputs: batch
    normalisation with running statistics, dropout, changes in place and branches that depend on data are a `ValueError`
    that names the submodule. Recurrent modules (`nn.GRU`, `nn.LSTM`), for which `torch.vmap` has no rule, are computed
    one network after the other. What requires no gradient is a constant, the same in every episode.

    `env.unwrapped.export(row)` returns a copy of the row's current network.

    ## Data

    - `train`, `validation` and, if wanted, `test`: pairs (inputs, targets) of arrays or tensors, or
      `torch.utils.data.Dataset`s of such pairs, which are read into memory. Integer targets are classes, others are
      numbers to predict.
    - `family`: a distribution of data sets by name: `"clusters"` (synthetic), `"fashion_mnist"`, `"digits"` (needs
      scikit-learn) or `"sign_digits"`. The images are read as `gym_reml.tasks.images.collections` says:
      `family_kwargs={"download": True}` fetches them. Or your own, see below.
    - `family_kwargs`: its fields, such as `split`, `examples`, `widths`, `batch_sizes` and `label_noises`.

    A distribution of your own is a `gym_reml.tasks.data_sets.base.DataSets`: `draw` returns the numbers of a task, and
    `data` the data set of these numbers.

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
    | `optimizer` | `"momentum"` | or `"sgd"`, `"adam"`, `"rmsprop"`, as in `torch.optim` |
    | `dials` | `("step_size",)` | what the agent sets: `"step_size"`, and also `"momentum"` or `"weight_decay"` |
    | `min_step` | `None` | smallest step size; `None`: by optimizer, 1e-4 for momentum, 1e-3 for SGD, else 1e-5 |
    | `max_step` | `None` | largest step size; `None`: by optimizer, 10 for momentum and SGD, else 1 |
    | `step_sizes` | `"single"` | or `"group"`, one for each group of parameters |
    | `horizon` | `40` | steps of an episode |
    | `updates` | `25` | minibatches in a step |
    | `observation` | `"flat"` | or `"dict"` |
    | `device` | `"cpu"` | any torch device: networks and their data are there, observations and rewards are numpy |
    | `action` | `"box"` | see above; set by the id |
    | `step_bins` | `13` | number of values of a dial in finite encodings |
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
        optimizer: str = "momentum",
        dials: Sequence[str] = ("step_size",),
        min_step: float | None = None,
        max_step: float | None = None,
        step_sizes: str = "single",
        horizon: int = 40,
        updates: int = 25,
        observation: str = "flat",
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 13,
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(make_tuning(1, **select_arguments(make_tuning, locals())), render_mode)


class NetTuneVectorEnv(TuningVectorEnv):
    """The native vector environment behind `gym.make_vec("NetTune-v0", num_envs=n)`; see `NetTuneEnv`."""

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
        optimizer: str = "momentum",
        dials: Sequence[str] = ("step_size",),
        min_step: float | None = None,
        max_step: float | None = None,
        step_sizes: str = "single",
        horizon: int = 40,
        updates: int = 25,
        observation: str = "flat",
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 13,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NetTuneEnv`, and those of every vector environment (see `TuningVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        setup = make_tuning(num_envs, **select_arguments(make_tuning, locals()))
        super().__init__(
            setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps, output=output
        )
