"""`NetBuild-v0`: build and train one small network for one freshly drawn task."""

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
    """Build and train one small network for one freshly drawn few-shot task.

    ## Description

    An episode draws a task from a family (by default MAML's sinusoids: fit y = a sin(x - b) from 5 points). The agent
    starts from a stem and a head and, step by step, appends layers from a shared pool of layers and takes gradient
    steps on the task's *support set*. It is paid by how well the network does on the *query set*: other points of the
    same task, which neither the network nor the agent ever sees. An agent that does well here is a *meta-learner*.

    Where the family is one of reinforcement-learning tasks (`"navigation"`), the network is a policy: it trains and is
    judged on trajectories of its own, fresh in every step.

    ## Action space

    A hybrid action: which pool layer to append (0 for none, 1 to L), and the size of one gradient step, on a
    logarithmic scale from `min_step` to `max_step`. `action` chooses how it is written:

    | action | Space | Meaning |
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
    | `head_gradient` | width + 1 (41) per output | support loss's gradient by the head (classes: norm over outputs) |
    | `activations` | 2 width (80) | mean and standard deviation of the last hidden layer over the support set |
    | `task` | by family (33) | scalar functions: the support set's residual, target, density on 11 grid points |
    | `loss` | 4 | score (log1p) of the support loss; its fall since the start; its last two falls |
    | `gradient_norms` | depth + 2 (4) | log1p of the last gradient's norm: stem, slots, head |
    | `progress` | 2 | layers / depth; steps / horizon |
    | `last_action` | L + 2 (10) | one-hot layer; step in [-1, 1] |

    ## Rewards

    With q the loss on the query set and score = log1p(q) (for policies, where q is minus the return,
    score = q / `return_scale`):

    - `reward="performance"` (default): -score / horizon at every step. The return is minus the mean score along the
      way: fast adaptation counts.
    - `reward="improvement"`: the fall of the score in this step. The return is the gain over the whole episode: only
      where the network ends counts.

    The first `burn_in` steps earn nothing. `feedback="support"` uses the support loss instead. A *refused* step (see
    below) costs 1 / horizon on top. So does one after which q is not finite, or above both the family's cap (1e4 for
    regression) and what it was at the start of the episode: q then counts as much as the larger of these two.
    `info["reward_terms"]` has the terms by name.

    ## Starting state

    A fresh task and a network of stem, head and `initial_layers`, with the pool's weights.

    ## Episode end

    `terminated` after `horizon` steps; never truncated. Stepping on is allowed: the network trains on, the clock in
    the observation stands still. A step after which the support loss would be non-finite, or above both the family's
    cap and what it was before, or a weight non-finite, is refused: the network stays as it was, without the new layer,
    and `info["diverged"]` is True. The query set has no say in this.

    ## Information

    Numbers by name, the same names after resets and steps: `support_loss`, `query_loss` (at most
    as much as counts in rewards), the family's metrics
    (`query_mse`, `query_accuracy`, `query_return`), `depth`; of the step `layer`, `step_size`, `diverged` and
    `reward_terms`, which are 0 after a reset; `task`, a dict of its true parameters, for evaluation; and where choices
    can be masked `action_mask`, int8 as `env.action_space.sample(mask=...)` takes it (`action_masks()` is the same for
    MaskablePPO: bool and flat). Vector environments have arrays of them; masks of several parts are a dict by part.

    Words are elsewhere: `env.unwrapped.describe_task(row)` is the task in words and numbers,
    `env.unwrapped.pool_source` says where the pool comes from. A mixture's task is the number of its `member` and every
    member's parameters, as `0.amplitude`, which are 0 where the task is another member's.

    ## Options of `reset`

    | Option | Meaning |
    |---|---|
    | `{"task": {...}}` | the episode is on this task: parameters by name, as `info["task"]` has them; data are new |
    | `{"pool": "initial"}` | where the pool learns, it starts over: weights, optimizer, waiting episodes, counters |
    | `{"reset_mask": mask}` | vector environments: only these rows are reset, (num_envs,) bool |

    In a vector environment each parameter of a task is one for all rows, or an array with one for each. Tasks of any
    split may be given. Of a mixture, `member` and that member's own parameters will do.

    ## The network

    `env.unwrapped.export(row)` is the row's present network as a `torch.nn.Module` of its own, with `state_dict`. Its
    outputs are the environment's to the last bit.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `family` | `"sinusoid"` | name of a task family, or a `TaskFamily` |
    | `family_kwargs` | `None` | its further arguments, such as `split` |
    | `shots` | the family's, 5 | support points of a task (per class where there are classes), or trajectories |
    | `queries` | the family's, 50 | query points of a task, or trajectories |
    | `depth` | 2 | how many pool layers fit into the network (slots) |
    | `width` | the pool's, 40 | units of a hidden layer |
    | `layers` | the pool's, 8 | size of the pool, L |
    | `layer_kind` | the pool's, `"residual"` | `"relu"`, `"tanh"`, `"residual"`, `"layer_norm"` or `"batch_norm"` |
    | `initial_layers` | `()` | pool layers present at step 0 |
    | `horizon` | 5 | steps of an episode |
    | `burn_in` | 0 | first steps that earn nothing |
    | `reward` | `"performance"` | or `"improvement"` |
    | `feedback` | `"query"` | or `"support"` |
    | `pool` | `None` | see below |
    | `learn` | `None` | how finished episodes change the pool: `"in_place"`, `"reptile"`, `"fomaml"`, `"maml"` |
    | `learn_kwargs` | `None` | see `gym_reml.learning.LearningOptions` |
    | `action` | by id | see above |
    | `step_bins` | 13 | bins of the step in finite encodings |
    | `min_step`, `max_step` | the pool's: 1e-3, 0.3; with rates 1/4, 4 | range of the step size |
    | `observation` | `"flat"` | or `"dict"` |
    | `device` | `"cpu"` | any torch device |
    | `render_mode` | `None` | `"rgb_array"`, `"ansi"` (and `"human"` through Gymnasium's wrapper) |

    `pool=None` takes the packaged specialists where there are any for the family, else random layers; these also, with
    a warning, where `width`, `layers` or `layer_kind` ask for others than the packaged.
    `"packaged"`, a `LayerPool` or a path to one takes that, or is an error where it does not fit; `"random"` starts
    from nothing. The pool in use is `env.unwrapped.pool`: the very object that was given, if one was.

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
