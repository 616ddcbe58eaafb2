"""`NetLoss-v0`: change the parameters of the loss while a network is trained on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gym_reml.decisions.losses import Loss
from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.tuning.envs import TuningEnv, TuningVectorEnv
from gym_reml.envs.tuning.setup import make_loss_alignment, select_arguments
from gym_reml.mdp.runs import MakeNetwork
from gym_reml.tasks.data_sets.base import DataSets


class NetLossEnv(TuningEnv):
    """Change the parameters of the loss while a network is trained on a data set.

    ## Description

    The metric that matters, such as balanced accuracy, is often no function that gradients can follow, and the loss
    that stands for it has parameters that somebody must choose. An episode trains one classifier from scratch on one
    data set. Every action moves the parameters of its loss, by which the next `updates` minibatches are trained. The
    reward is the gain in the metric on validation data, so the return is what the whole run gained. This is the setting
    of Adaptive Loss Alignment (Huang et al. 2019, arXiv:1905.05895).

    Without arguments, episodes draw synthetic classification problems (`family="clusters"`) whose training parts differ
    in imbalance, the most frequent class being 1, 10 or 50 times as frequent as the rarest, and in label noise, 0, 20
    or 40 % of random labels. Validation and test parts are clean, and balanced but for chance. Which loss is best
    differs between them, and an agent finds out by what it sees of the run.

    ## Action space

    A number in [-1, 1] for each parameter: the share of its largest move, down or up. `action` chooses how they are
    written; finite encodings have `step_bins` values for each number, by default three as in the paper: down, keep, up.

    | `action` | Space |
    |---|---|
    | `"box"` (`NetLoss-v0`) | `Box(-1, 1, (parameters,))` |
    | `"multidiscrete"` (`NetLossMultiDiscrete-v0`) | `MultiDiscrete([step_bins] * parameters)` |
    | `"discrete"` (`NetLossDiscrete-v0`) | `Discrete(step_bins ** parameters)` |
    | `"hybrid"` (`NetLossHybrid-v0`) | `Dict` with a `Box(-1, 1, (1,))` for each parameter by name |

    `losses` are those whose parameters are decided. All of them act together; where an episode begins, the loss is
    cross-entropy (with `"class_correlation"`: log(1 + exp(cross-entropy))).

    | Loss | From | To | Move | Meaning |
    |---|---|---|---|---|
    | `"logit_adjustment"` | 0 | 2 | 0.25 | logits plus so many times the log shares of the classes in training |
    | `"focal"` | 0 | 3 | 0.5 | an example weighs (1 - confidence in its label) to this power |
    | `"smoothing"` | 0 | 0.6 | 0.1 | share of the label that is spread evenly over all classes |
    | `"trust"` | 0 | 1 | 0.25 | an example weighs confidence to this power, as in generalised cross-entropy |
    | `"class_weights"` | 0 | 1 | 0.25 | an example weighs (1 / share of its class) to this power |
    | `"classification"` | 0 | 1 | 0.25 | a weight of cross-entropy beside the two losses that follow; begins at 1 |
    | `"triplet"` | 0 | 2 | 0.25 | a weight of the triplet loss of an example, by Euclidean distances of outputs |
    | `"cosine_triplet"` | 0 | 2 | 0.25 | the same by cosine distances |
    | `"class_correlation"` | -1 | 2 | 0.1 | the C x C entries of Phi in -log sigmoid(y^T Phi log f) |

    Values outside [-1, 1] are clipped, and so are parameters that would leave their range; NaN or a wrong shape is a
    `ValueError`. Phi begins as the identity. Its classes are counted by rank: `class_correlation_0_1` is for the most
    frequent class and the second. A loss of your own is a `gym_reml.decisions.losses.Loss`, in place of a name.

    ## Observation space

    A `Box(-20, 20)` of float32, for C classes and P parameters; with `observation="dict"` the same parts by name:

    | Part | Size | Meaning |
    |---|---|---|
    | `loss` | 6 | log(1 + cross-entropy) in training, validation: now; change in the last step, and since the start |
    | `metric` | 6 | the same of the metric; the last number is the distance of validation from its best so far |
    | `statistics` | 4 + C | in validation, see below |
    | `relative` | 4 + C | the difference of these from their moving averages |
    | `imbalance` | 1 | log10 of the ratio of the most frequent to the rarest training label |
    | `parameters` | P | from -1 to 1 over the range of each |
    | `confusions` | C * C | with `"class_correlation"` only: shares of each class that were taken for each class |
    | `progress` | 2 | steps / horizon; whether the run has diverged |

    The statistics are the least recall of a class, and the standard deviation of all recalls; the mean probability of
    the predicted class; the entropy of the predicted classes, 1 where all are as frequent; and for each class the mean
    log-probability of the label.

    Classes are in the order of their frequency in training, the most frequent first. Training losses and metrics are
    means over the minibatches of the last step, each before its update; after a reset those of one minibatch at the
    initial weights. Moving averages keep 0.8 of themselves at each step. `env.unwrapped.tuning.parts` has the slices.

    ## Rewards

    The validation metric after the step minus that before, or with `reward="sign"` the sign of this difference, as in
    Adaptive Loss Alignment. A run *diverges* when a loss or a weight would not be finite: it keeps its last finite
    weights, is trained no more, and its metrics are those of its initial weights from then on.

    Validation data are rewarded on and observed, never trained on. Test data are neither: they are for evaluation.

    With `metric="recall_at_k"`, where k is 1, 2, 4 or 8, the outputs of the network are an embedding, and the metric is
    the share of examples that have one with the same label among their k nearest neighbours of the part, by Euclidean
    distance: metric learning, the second case of Adaptive Loss Alignment. In training it is measured within
    minibatches. It is the one kind of metric for families with `unseen` classes, see below.

    ## Starting state

    A newly drawn data set, a network with newly drawn weights, and cross-entropy.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Further steps are allowed: the network trains on, while the
    clock in the observation stays at the last step.

    ## Information

    The same names after resets and steps; for other metrics than the default, their name replaces `balanced_accuracy`:

    | Name | Value |
    |---|---|
    | `train_loss`, `train_balanced_accuracy` | means over the minibatches of the step; the loss is cross-entropy |
    | `validation_loss`, `validation_balanced_accuracy` | of the current network |
    | `test_balanced_accuracy` | of the current network, where there is a test part |
    | `logit_adjustment`, ... | each parameter's value |
    | `diverged` | whether the run has diverged |
    | `task` | a dict: the numbers of the task, such as `imbalance` and `label_noise`, for evaluation |

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | trains on this task: numbers by name, as in `info["task"]`; its data are newly drawn |
    | `{"reset_mask": mask}` | vector environments: resets only these rows, (num_envs,) bool |

    ## The network and the data

    `module`, `train`, `validation`, `test`, `batch_size`, `family` and `family_kwargs` are those of
    [NetTune-v0](net_tune.md), which says what modules may be. Targets must be labels. Families by name
    (`"clusters"`, `"fashion_mnist"`, `"digits"`, `"sign_digits"`) vary here in `imbalances` (1, 10, 50) and
    `label_noises` (0, 0.2, 0.4), and have 400 `examples` (50 or 150 in the two small collections), `widths` of 64 and
    `batch_sizes` of 32; `family_kwargs` changes each of these. `env.unwrapped.export(row)` returns a copy of the row's
    current network.

    With `family_kwargs={"unseen": 5}` five classes, drawn anew for each task, are kept out of the training part, and
    validation and test are of these alone, as in metric learning (Song et al. 2016, arXiv:1511.06452). The metric must
    be a `recall_at_k` then. Classes that are not trained on come last in the observations; what these hold by class,
    the cross-entropy and the confusions in validation are finite, and say little.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `losses` | `("logit_adjustment", "focal", "smoothing", "trust")` | whose parameters are decided; or a `Loss` |
    | `metric` | `"balanced_accuracy"` | or `"accuracy"`, `"macro_f1"`, as in scikit-learn; `"recall_at_1"`, 2, 4, 8 |
    | `reward` | `"gain"` | of the metric; `"sign"` for its sign |
    | `module` | `None` | makes the network; `None`: two hidden layers of ReLUs, of the task's width, or of 64 units |
    | `train` | `None` | training data; `None`: those that `family` draws |
    | `validation` | `None` | validation data; required with `train` |
    | `test` | `None` | test data, for `info` only |
    | `batch_size` | `None` | examples of a minibatch; `None`: 32 with `train`; a family draws its own |
    | `family` | `None` | distribution of data sets; `None`: `"clusters"`, unless `train` is given |
    | `family_kwargs` | `None` | fields of the family, as a dict |
    | `optimizer` | `"momentum"` | or `"sgd"`, `"adam"`, `"rmsprop"`, as in `torch.optim` |
    | `step_size` | `0.05` | of every update; `"sign_digits"`, whose images are bright, learns with 0.01 only |
    | `horizon` | `20` | steps of an episode |
    | `updates` | `15` | minibatches in a step |
    | `observation` | `"flat"` | or `"dict"` |
    | `device` | `"cpu"` | any torch device: networks and their data are there, observations and rewards are numpy |
    | `action` | `"box"` | see above; set by the id |
    | `step_bins` | `3` | number of values of a number in finite encodings |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    ## Version history

    * v0: first release.
    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        losses: Sequence[str | Loss] = ("logit_adjustment", "focal", "smoothing", "trust"),
        metric: str = "balanced_accuracy",
        reward: str = "gain",
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        optimizer: str = "momentum",
        step_size: float = 0.05,
        horizon: int = 20,
        updates: int = 15,
        observation: str = "flat",
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 3,
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(make_loss_alignment(1, **select_arguments(make_loss_alignment, locals())), render_mode)


class NetLossVectorEnv(TuningVectorEnv):
    """The native vector environment behind `gym.make_vec("NetLoss-v0", num_envs=n)`; see `NetLossEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        losses: Sequence[str | Loss] = ("logit_adjustment", "focal", "smoothing", "trust"),
        metric: str = "balanced_accuracy",
        reward: str = "gain",
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        optimizer: str = "momentum",
        step_size: float = 0.05,
        horizon: int = 20,
        updates: int = 15,
        observation: str = "flat",
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 3,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NetLossEnv`, and those of every vector environment (see `TuningVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        setup = make_loss_alignment(num_envs, **select_arguments(make_loss_alignment, locals()))
        super().__init__(
            setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps, output=output
        )
