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
    steps on the task's *support set*. Its reward is how well the network does on the *query set*: other points of the
    same task, which neither the network nor the agent observes. An agent that does well here is a *meta-learner*, and
    to train one in this environment is Reinforcement Meta-Learning (REML).

    Where the family is one of reinforcement-learning tasks (`"navigation"`), the network is a policy: support and query
    set are trajectories of its own, new ones in every step.

    ## Action space

    A hybrid action: which pool layer to append (0 for none, 1 to L), and the size of one gradient step, on a
    logarithmic scale from `min_step` to `max_step`. `action` chooses how it is written:

    | `action` | Space | Meaning |
    |---|---|---|
    | `"box"` (`NetBuild-v0`) | `Box(-1, 1, (L + 2,))` | L + 1 layer logits, the largest is picked; then the step |
    | `"multidiscrete"` (`NetBuildMultiDiscrete-v0`) | `MultiDiscrete([L + 1, step_bins])` | layer; bin of the step |
    | `"discrete"` (`NetBuildDiscrete-v0`) | `Discrete((L + 1) * step_bins)` | layer * step_bins + bin |
    | `"hybrid"` (`NetBuildHybrid-v0`) | `Dict(layer=Discrete(L + 1), step_size=Box(-1, 1, (1,)))` | side by side |

    The layer goes between the last layer and the head; in a full network it is ignored (and masked, see
    `action_masks`). Then one gradient step of the support loss is taken, its norm clipped at 10. Box values outside
    [-1, 1] are clipped and ties between logits are broken by the environment's own generator; NaN, a wrong shape or a
    choice out of range is a `ValueError`.

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
    | `last_action` | L + 2 (10) | one-hot layer; step in [-1, 1] |

    ## Rewards

    With q the loss on the query set and score = log1p(q) (for policies, where q is minus the return,
    score = q / `return_scale`):

    - `reward="performance"` (default): -score / horizon at every step. The return is minus the mean score along the
      way: fast adaptation counts.
    - `reward="improvement"`: the decrease of the score in this step. The return is the gain over the whole episode:
      only the final network counts.

    The first `burn_in` steps have reward 0. `feedback="support"` uses the support loss instead. A *refused* step (see
    below) has a penalty of 1 / horizon. So does one after which q is not finite, or above both the family's cap (1e4
    for regression) and what it was at the start of the episode: q then counts as the larger of these two.
    `info["reward_terms"]` has the terms by name.

    ## Starting state

    A newly drawn task and a network of stem, head and `initial_layers`, with the pool's weights.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Stepping on is allowed: the network trains on, the clock in
    the observation stands still. A step after which the support loss would be non-finite, or above both the family's
    cap and what it was before, or a weight non-finite, is refused: the network stays as it was, without the new layer,
    and `info["diverged"]` is True. Whether a step is refused does not depend on the query set.

    ## Information

    The same names after resets and steps; what describes a step is 0 after a reset:

    | Name | Value |
    |---|---|
    | `support_loss`, `query_loss` | of the present network; the latter as it counts in rewards |
    | `query_mse`, `query_accuracy`, `query_return` | the family's metrics on the query set, those that it has |
    | `depth` | pool layers in the network |
    | `layer`, `step_size` | what the step appended, and the size of its gradient step |
    | `diverged` | whether the step was refused |
    | `reward_terms` | a dict: the terms of the reward |
    | `task` | a dict: the task's true parameters, for evaluation |
    | `action_mask` | int8 as `env.action_space.sample(mask=...)` takes it, where choices can be masked |

    Vector environments have arrays of them; masks of several parts are a dict by part. `action_masks()` is the same
    mask for MaskablePPO: bool and flat.

    `env.unwrapped.describe_task(row)` describes the task in words and numbers, `env.unwrapped.pool_source` names where
    the pool comes from. A mixture's task is the number of its `member` and every member's parameters, as
    `0.amplitude`, which are 0 where the task is another member's.

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | the episode is on this task: parameters by name, as `info["task"]` has them; data are new |
    | `{"pool": "initial"}` | where the pool learns, it starts over: weights, optimizer, waiting episodes, counters |
    | `{"reset_mask": mask}` | vector environments: only these rows are reset, (num_envs,) bool |

    In a vector environment each parameter of a task is one for all rows, or an array with one for each. Tasks of any
    split may be given. Of a mixture, `member` and that member's own parameters suffice.

    ## The network

    `env.unwrapped.export(row)` is the row's present network as a `torch.nn.Module` of its own, with `state_dict`. Its
    outputs are the environment's to the last bit.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `family` | `"sinusoid"` | name of a task family, or a `TaskFamily` |
    | `family_kwargs` | `None` | its further arguments, such as `split`, as a dict |
    | `shots` | `None` | support points (of each class, if any), or trajectories; `None`: the family's, 5 by default |
    | `queries` | `None` | query points of a task, or trajectories; `None`: the family's, 50 by default |
    | `depth` | `2` | how many pool layers fit into the network (slots) |
    | `width` | `None` | units of a hidden layer; `None`: the pool's, 40 in the packaged one |
    | `layers` | `None` | size of the pool, L; `None`: the pool's, 8 in the packaged one |
    | `layer_kind` | `None` | `"relu"`, `"tanh"`, `"residual"`, `"layer_norm"` or `"batch_norm"`; `None`: the pool's |
    | `initial_layers` | `()` | pool layers present at step 0 |
    | `horizon` | `5` | steps of an episode |
    | `burn_in` | `0` | first steps that do not count |
    | `reward` | `"performance"` | or `"improvement"` |
    | `feedback` | `"query"` | or `"support"` |
    | `pool` | `None` | see below |
    | `learn` | `None` | how finished episodes change the pool: `"in_place"`, `"reptile"`, `"fomaml"`, `"maml"` |
    | `learn_kwargs` | `None` | see `gym_reml.learning.LearningOptions`, as a dict |
    | `action` | `"box"` | see above; every id has its own |
    | `step_bins` | `13` | bins of the step in finite encodings |
    | `min_step` | `None` | smallest step size; `None`: the pool's, 1e-3, or 1/4 where it has learned rates |
    | `max_step` | `None` | largest step size; `None`: the pool's, 0.3, or 4 where it has learned rates |
    | `observation` | `"flat"` | or `"dict"` |
    | `device` | `"cpu"` | any torch device |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    `pool=None` takes the packaged specialists where there are any for the family, else random layers; these also, with
    a warning, where `width`, `layers` or `layer_kind` ask for others than the packaged.
    `"packaged"`, a `LayerPool` or a path to one takes that, or is an error where it does not fit; `"random"` starts
    from randomly initialised layers. The pool in use is `env.unwrapped.pool`: the very object that was given, if one
    was.

    With `learn`, the pool changes between episodes: the environment is then not stationary, a seed restarts tasks
    only, and the transitions in an off-policy agent's replay buffer go stale.

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
        observation: str = "flat",
        device: str | torch.device = "cpu",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: a value that makes no sense; the message names the argument and the choices.
            TypeError: an argument that does not exist; the message lists those that do.
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
        observation: str = "flat",
        device: str | torch.device = "cpu",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Takes the arguments of `NetBuildEnv`, and those of every vector environment (see `TrainingVectorEnv`).

        Raises:
            ValueError: a value that makes no sense; the message names the argument and the choices.
            TypeError: an argument that does not exist; the message lists those that do.
        """
        setup = make_setup(num_envs, **select_arguments(locals()))
        super().__init__(setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps)
