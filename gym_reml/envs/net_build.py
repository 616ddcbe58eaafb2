"""`NetBuild-v0`: build and train one small network for one newly drawn task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.training.envs import TrainingEnv, TrainingVectorEnv
from gym_reml.envs.training.setup import make_setup, select_arguments
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import TaskFamily


class NetBuildEnv(TrainingEnv):
    """Build and train one small network for one newly drawn few-shot task.

    ## Description

    An episode draws a task from a family (by default MAML's sinusoids: fit y = a sin(x - b) from 5 points). The agent
    starts from a stem and a head and, step by step, appends layers from a shared pool of layers and takes gradient
    steps on the task's *support set*. Its reward is the network's performance on the *query set*: other points of the
    same task, which neither the network nor the agent observes. The agent is a *meta-learner*; training it in this
    environment is Reinforcement Meta-Learning (REML).

    In families of reinforcement-learning tasks (such as `"navigation"`) the network is a policy, and the support and
    query sets are new trajectories of it in every step.

    ## Action space

    A hybrid action: which pool layer to append (0 for none, 1 to L), and the size of one gradient step, on a
    logarithmic scale from `min_step` to `max_step`. `action` chooses how it is written:

    | `action` | Space | Meaning |
    |---|---|---|
    | `"box"` (`NetBuild-v0`) | `Box(-1, 1, (L + 2,))` | L + 1 layer logits, the largest is picked; then the step |
    | `"multidiscrete"` (`NetBuildMultiDiscrete-v0`) | `MultiDiscrete([L + 1, step_bins])` | layer; bin of the step |
    | `"discrete"` (`NetBuildDiscrete-v0`) | `Discrete((L + 1) * step_bins)` | layer * step_bins + bin |
    | `"hybrid"` (`NetBuildHybrid-v0`) | `Dict(layer=Discrete(L + 1), step_size=Box(-1, 1, (1,)))` | side by side |

    With `step_sizes="layer"` there is a step size for each position, depth + 2 of them: `step_size_stem`, `step_size_1`
    to the last slot's, `step_size_head`. Each encoding then has so many numbers or bins; `Discrete` offers
    (L + 1) * step_bins^(depth + 2) actions, at most 131,072. So an agent can favour layers, or all but freeze them: the
    lowest step size moves weights max_step / min_step times less than the highest, 300 times by default and a million
    times with `min_step=3e-7`; none is exactly 0. A layer that is appended takes its first step with the size of its
    slot; sizes of empty slots have no effect.

    The layer is inserted before the head; in a full network it is ignored (and masked, see `action_masks`). Then one
    gradient step of the support loss is taken; gradients longer than `clip` are scaled down to that norm. With another
    `optimizer` than gradient descent the step size scales the direction that it makes of the clipped gradient; it
    starts anew in every episode, and for a new layer when that is appended. With a `batch_size` each step is taken on
    other points of the support set: every pass over it shuffles them, and leaves out a rest that fills no minibatch.
    Only the gradient, and its observed norms, is that of the minibatch; all else is of the whole support set.

    Box values outside [-1, 1] are clipped and ties between logits are broken by the environment's own generator; NaN, a
    wrong shape or a choice out of range is a `ValueError`.

    ## Observation space

    A `Box(-20, 20)` of float32, all from the support set; with `observation="dict"` the same parts by name:

    | Part | Size (default) | Meaning |
    |---|---|---|
    | `head_gradient` | width + 1 (41) per output | gradient of the support loss w.r.t. the head (classes: norms) |
    | `activations` | 2 width (80) | mean and standard deviation of the last hidden layer over the support set |
    | `task` | by family (33) | scalar functions: the support set's residual, target, density on 11 grid points |
    | `loss` | 4 | score (log1p) of the support loss; its decrease since the start; its last two decreases |
    | `gradient_norms` | depth + 2 (4) | log1p of the last gradient's norm: stem, slots, head |
    | `progress` | 2 | layers / depth; steps / horizon |
    | `last_action` | L + 2 (10) | one-hot layer; step in [-1, 1], or one for each position |

    ## Rewards

    With q the loss on the query set and score = log1p(q) (for policies, where q is minus the return,
    score = q / `return_scale`):

    - `reward="performance"` (default): -score / horizon at every step. The return is minus the mean score over the
      episode, which rewards fast adaptation.
    - `reward="improvement"`: the decrease of the score in this step. The return is the decrease over the episode, which
      depends on the final network only.

    The first `burn_in` steps have reward 0. `feedback="support"` uses the support loss instead. A *refused* step (see
    below) has a penalty of 1 / horizon. So has a step after which q is not finite, or exceeds both the family's cap
    (1e4 for regression) and its initial value in the episode; q is then clipped to the larger of the two.
    `info["reward_terms"]` has the terms by name.

    ## Starting state

    A newly drawn task and a network of stem, head and `initial_layers`, with the pool's weights.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Further steps are allowed: the network trains on, while the
    clock in the observation stays at 1. A step after which the support loss would be non-finite, or above both the
    family's cap and its previous value, or a weight non-finite, is refused: the network is left unchanged, without the
    new layer, and `info["diverged"]` is True. Whether a step is refused does not depend on the query set.

    ## Information

    The same names after resets and steps; values that describe a step are 0 after a reset:

    | Name | Value |
    |---|---|
    | `support_loss`, `query_loss` | of the current network; the latter clipped as in rewards |
    | `query_mse`, `query_accuracy`, `query_return` | metrics on the query set, as far as the family has them |
    | `depth` | pool layers in the network |
    | `layer`, `step_size` | what the step appended, and the size of its gradient step, or (depth + 2,) of them |
    | `diverged` | whether the step was refused |
    | `reward_terms` | a dict: the terms of the reward |
    | `task` | a dict: the task's true parameters, for evaluation |
    | `action_mask` | int8 as `env.action_space.sample(mask=...)` takes it, where choices can be masked |

    Vector environments have arrays of these; masks of several parts are a dict by part. `action_masks()` is the same
    mask in the format of MaskablePPO: bool and flat.

    `env.unwrapped.describe_task(row)` describes the task in words and numbers, `env.unwrapped.pool_source` is the
    source of the pool. The task of a mixture is the index of its `member` and the parameters of all members, such as
    `0.amplitude`; those of the other members are 0.

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | starts on this task: parameters by name, as in `info["task"]`; its data are newly drawn |
    | `{"pool": "initial"}` | with `learn`, resets the pool: weights, optimizer, collected episodes, counters |
    | `{"reset_mask": mask}` | vector environments: resets only these rows, (num_envs,) bool |

    In a vector environment each parameter is a value for all rows, or an array with one for each row. The task may be
    of any split. For a mixture, `member` and that member's parameters suffice.

    ## The network

    `env.unwrapped.export(row)` returns a copy of the row's current network as a `torch.nn.Module`, with a `state_dict`.
    Its outputs equal the environment's bit for bit.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `family` | `"sinusoid"` | name of a task family, or a `TaskFamily` |
    | `family_kwargs` | `None` | further arguments of the family, such as `split`, as a dict |
    | `shots` | `None` | support points (per class, if any), or trajectories; `None`: the family's, 5 by default |
    | `queries` | `None` | query points of a task, or trajectories; `None`: the family's, 50 by default |
    | `depth` | `2` | number of pool layers that fit into the network (slots) |
    | `width` | `None` | units of a hidden layer; `None`: the pool's, 40 in the packaged one |
    | `layers` | `None` | size of the pool, L; `None`: the pool's, 8 in the packaged one |
    | `layer_kind` | `None` | a dense or convolutional kind, see below; `None`: the pool's |
    | `initial_layers` | `()` | pool layers present at step 0 |
    | `horizon` | `5` | steps of an episode |
    | `burn_in` | `0` | number of first steps without reward |
    | `reward` | `"performance"` | or `"improvement"` |
    | `feedback` | `"query"` | or `"support"` |
    | `pool` | `None` | see below |
    | `learn` | `None` | how finished episodes change the pool: `"in_place"`, `"reptile"`, `"fomaml"`, `"maml"` |
    | `learn_kwargs` | `None` | see `gym_reml.learning.LearningOptions`, as a dict |
    | `action` | `"box"` | see above; set by the id |
    | `step_bins` | `13` | number of step sizes in finite encodings |
    | `min_step` | `None` | smallest step size; `None`: the pool's, 1e-3, or 1/4 where it has learned rates |
    | `max_step` | `None` | largest step size; `None`: the pool's, 0.3, or 4 where it has learned rates |
    | `clip` | `10.0` | norm at which gradients are clipped; `None`: they are not |
    | `optimizer` | `"sgd"` | takes the gradient steps: `"sgd"`, `"momentum"`, `"adam"` or `"rmsprop"` |
    | `batch_size` | `None` | points of a gradient step, a fresh minibatch of the support set; `None`: all of them |
    | `step_sizes` | `"single"` | or `"layer"`, one for each position: stem, slots, head |
    | `observation` | `"flat"` | or `"dict"` |
    | `device` | `"cpu"` | any torch device |
    | `core` | `"torch"` | what computes networks: `"torch"`, `"numba"`, or `"auto"` for the faster that is installed |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    `pool=None` uses the packaged specialists if the family has any, and random layers otherwise; also, with a warning,
    where `width`, `layers` or `layer_kind` differ from the packaged pool. `"packaged"`, a `LayerPool` or a path to one
    uses that pool, and raises an error where it does not fit; `"random"` uses randomly initialised layers. Layers are
    dense, of kind `"relu"`, `"tanh"`, `"residual"`, `"layer_norm"` or `"batch_norm"`, or convolutions for families of
    images, of kind `"conv"`, `"conv_group_norm"` or `"conv_residual"`; pools of any other `torch.nn.Module` are made by
    `LayerPool.from_modules`, and read from files by `LayerPool.load(path, modules)`. The pool in use is
    `env.unwrapped.pool`: the same object, if one was given.

    With `learn`, the pool changes between episodes: the environment is then non-stationary, a seed resets the tasks
    only, and transitions in the replay buffer of an off-policy agent become outdated.

    ## Version history

    * v0: first release.
    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        family: str | TaskFamily = "sinusoid",
        family_kwargs: Mapping[str, Any] | None = None,
        shots: int | tuple[int, int] | None = None,
        queries: int | None = None,
        depth: int = 2,
        width: int | None = None,
        layers: int | None = None,
        layer_kind: str | None = None,
        initial_layers: Sequence[int] = (),
        horizon: int = 5,
        burn_in: int = 0,
        reward: str = "performance",
        feedback: str = "query",
        pool: LayerPool | str | os.PathLike[str] | None = None,
        learn: str | None = None,
        learn_kwargs: Mapping[str, Any] | None = None,
        action: str = "box",
        step_bins: int = 13,
        min_step: float | None = None,
        max_step: float | None = None,
        clip: float | None = 10.0,
        optimizer: str = "sgd",
        batch_size: int | None = None,
        step_sizes: str = "single",
        observation: str = "flat",
        device: str | torch.device = "cpu",
        core: str = "torch",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(make_setup(1, **select_arguments(locals())), render_mode)


class NetBuildVectorEnv(TrainingVectorEnv):
    """The native vector environment behind `gym.make_vec("NetBuild-v0", num_envs=n)`; see `NetBuildEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        family: str | TaskFamily = "sinusoid",
        family_kwargs: Mapping[str, Any] | None = None,
        shots: int | tuple[int, int] | None = None,
        queries: int | None = None,
        depth: int = 2,
        width: int | None = None,
        layers: int | None = None,
        layer_kind: str | None = None,
        initial_layers: Sequence[int] = (),
        horizon: int = 5,
        burn_in: int = 0,
        reward: str = "performance",
        feedback: str = "query",
        pool: LayerPool | str | os.PathLike[str] | None = None,
        learn: str | None = None,
        learn_kwargs: Mapping[str, Any] | None = None,
        action: str = "box",
        step_bins: int = 13,
        min_step: float | None = None,
        max_step: float | None = None,
        clip: float | None = 10.0,
        optimizer: str = "sgd",
        batch_size: int | None = None,
        step_sizes: str = "single",
        observation: str = "flat",
        device: str | torch.device = "cpu",
        core: str = "torch",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NetBuildEnv`, and those of every vector environment (see `TrainingVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        setup = make_setup(num_envs, **select_arguments(locals()))
        super().__init__(
            setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps, output=output
        )
