"""`NetAugment-v0`: build an augmentation policy, by which a network is then trained on images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.tuning.envs import TuningEnv, TuningVectorEnv
from gym_reml.envs.tuning.setup import make_augmentation, select_arguments
from gym_reml.mdp.runs import MakeNetwork
from gym_reml.tasks.data_sets.base import DataSets


class NetAugmentEnv(TuningEnv):
    """Build an augmentation policy, by which a network is then trained on images.

    ## Description

    Which changes of an image keep its label is knowledge that no gradient gives. An episode builds an augmentation
    policy: sub-policies of two operations, each with a probability and a magnitude, one operation a step. With the last
    step a new classifier is trained from scratch on a few images by it, and the reward is its accuracy on validation
    images. This is the setting of AutoAugment (Cubuk et al. 2019, arXiv:1805.09501), whose 30 categorical decisions are
    an episode of `NetAugmentMultiDiscrete-v0`.

    Without arguments, episodes draw classes of synthetic glyphs (`family="glyphs"`) at random places and angles, five
    drawings of each for training. A network that sees them shifted and turned recognises them where they are next.

    ## Action space

    An operation, and its probability and magnitude as numbers in [-1, 1], which stand for 0 to 1. `action` chooses how
    they are written; finite encodings have `step_bins` values for each number.

    | `action` | Space |
    |---|---|
    | `"box"` (`NetAugment-v0`) | `Box(-1, 1, (18,))`: a logit for each operation, the largest counts; two numbers |
    | `"multidiscrete"` (`NetAugmentMultiDiscrete-v0`) | `MultiDiscrete([16, step_bins, step_bins])` |
    | `"discrete"` (`NetAugmentDiscrete-v0`) | `Discrete(16 * step_bins ** 2)` |
    | `"hybrid"` (`NetAugmentHybrid-v0`) | `Dict`: `operation`, `Discrete(16)`; two boxes, `Box(-1, 1, (1,))` |

    | Operation | From | To | Meaning |
    |---|---|---|---|
    | `identity` | | | nothing |
    | `shear_x`, `shear_y` | 0 | ± 0.3 | pixels of shift for each pixel from the upper left corner |
    | `translate_x`, `translate_y` | 0 | ± 150/331 | shift, as a share of the side |
    | `rotate` | 0 | ± 30 | degrees |
    | `auto_contrast` | | | each channel from 0 to 1 |
    | `invert` | | | 1 - image |
    | `equalize` | | | all values of a channel equally frequent; nothing in images of fewer than 256 pixels |
    | `solarize` | 256 | 0 | inverts values from this, of 256 |
    | `posterize` | 8 | 4 | bits that are kept |
    | `contrast`, `color`, `brightness`, `sharpness` | 1 | 1 ± 0.9 | factor, as of Pillow's `ImageEnhance` |
    | `cutout` | 0 | 0.5 | side of a black square at a random place, as a share of the shorter side |

    Signs are random for each image. Empty pixels are 0. Every image of every minibatch draws one of the sub-policies,
    and its operations are applied in turn, each with its probability. The operations are AutoAugment's, except that
    `identity`, which RandAugment has, is in place of the pairing of samples; they compute what Pillow does.

    Values outside [-1, 1] are clipped; NaN, a wrong shape or an operation out of range is a `ValueError`.

    ## Observation space

    A `Box(-20, 20)` of float32:

    | Part | Size | Meaning |
    |---|---|---|
    | `loss` | 6 | log(1 + loss) in training, validation: now; change in the training, and since the start |
    | `metric` | 6 | the same of the metric; the last number is the distance of validation from its best so far |
    | `policy` | 18 * `horizon` | each operation so far, one-hot, with its two numbers; 0 for those to come |
    | `place` | `horizon` | which operation is next, one-hot; 0 at the end |
    | `progress` | 2 | steps / horizon; whether the training has diverged |

    Until the end, losses and metrics are those of the network with its initial weights.
    `env.unwrapped.tuning.parts` has the slices.

    ## Rewards

    0, and with the last step the metric on validation images after all training, or with `reward="area"` its mean over
    ten points of the training. The metric is accuracy for labels, and -log(1 + mean squared error) for numbers. A run
    *diverges* when a loss or a weight would not be finite: its metrics are those of its initial weights from then on.

    Validation data are rewarded on, never trained on. Test data are not even that: they are for evaluation.

    ## Starting state

    A newly drawn data set, a network with newly drawn weights, and an empty policy.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Further steps are allowed: they change nothing.

    ## Information

    The same names after resets and steps; for numbers `score` replaces `accuracy`:

    | Name | Value |
    |---|---|
    | `train_loss`, `train_accuracy` | means over all minibatches, as augmented; before the training of one, as it is |
    | `validation_loss`, `validation_accuracy` | of the current network |
    | `test_accuracy` | of the current network, where there is a test part |
    | `operation`, `probability`, `magnitude` | the last decision: number of the operation, two shares |
    | `diverged` | whether the run has diverged |
    | `task` | a dict: the numbers of the task, such as `shift` and `turn`, for evaluation |

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | trains on this task: numbers by name, as in `info["task"]`; its data are newly drawn |
    | `{"reset_mask": mask}` | vector environments: resets only these rows, (num_envs,) bool |

    ## The policy

    `env.unwrapped.tuning.policy(row)` is the policy so far, an
    `gym_reml.decisions.augmentations.AugmentationPolicy`, which is written as JSON and used in pipelines.
    `env.unwrapped.tuning.train_with(policies)`, after a reset, trains the networks of all rows by given ones instead.
    `env.unwrapped.export(row)` returns a copy of the row's current network.

    ## The network and the data

    `module`, `train`, `validation`, `test`, `batch_size`, `family` and `family_kwargs` are those of
    [NetTune-v0](net_tune.md), which says what modules may be. Inputs must be images (channels, height, width) of 1 or 3
    channels, with values in [0, 1]. Families by name are `"glyphs"`; `"omniglot"`, five drawings each of five
    characters, which differ between splits; `"fashion_mnist"` with 100 `examples`; and `"sign_digits"` and `"digits"`.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `reward` | `"final"` | metric after the training; `"area"` for its mean over ten points of it |
    | `module` | `None` | makes the network; `None`: two hidden layers of ReLUs, of the task's width, or of 64 units |
    | `train` | `None` | training data; `None`: those that `family` draws |
    | `validation` | `None` | validation data; required with `train` |
    | `test` | `None` | test data, for `info` only |
    | `batch_size` | `None` | examples of a minibatch; `None`: 32 with `train`; a family draws its own |
    | `family` | `None` | distribution of data sets; `None`: `"glyphs"`, unless `train` is given |
    | `family_kwargs` | `None` | fields of the family, as a dict |
    | `optimizer` | `"momentum"` | or `"sgd"`, `"adam"`, `"rmsprop"`, as in `torch.optim` |
    | `step_size` | `0.05` | of every update; `"sign_digits"`, whose images are bright, learns with 0.01 only |
    | `horizon` | `10` | steps of an episode: operations, of which two in a row are a sub-policy |
    | `updates` | `120` | minibatches of the training |
    | `device` | `"cpu"` | any torch device: networks and their data are there, observations and rewards are numpy |
    | `action` | `"box"` | see above; set by the id |
    | `step_bins` | `11` | number of values of a number in finite encodings |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    ## Version history

    * v0: first release.
    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        reward: str = "final",
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        optimizer: str = "momentum",
        step_size: float = 0.05,
        horizon: int = 10,
        updates: int = 120,
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 11,
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(make_augmentation(1, **select_arguments(make_augmentation, locals())), render_mode)


class NetAugmentVectorEnv(TuningVectorEnv):
    """The native vector environment behind `gym.make_vec("NetAugment-v0", num_envs=n)`; see `NetAugmentEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        reward: str = "final",
        module: MakeNetwork | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        family: str | DataSets | None = None,
        family_kwargs: Mapping[str, Any] | None = None,
        optimizer: str = "momentum",
        step_size: float = 0.05,
        horizon: int = 10,
        updates: int = 120,
        device: str | torch.device = "cpu",
        action: str = "box",
        step_bins: int = 11,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NetAugmentEnv`, and those of every vector environment (see `TuningVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        setup = make_augmentation(num_envs, **select_arguments(make_augmentation, locals()))
        super().__init__(
            setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps, output=output
        )
