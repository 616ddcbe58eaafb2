"""Augmentations of images: sixteen operations on batches, each image with its own parameters, and policies of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.checks import is_number

FORMAT = "gym_reml.AugmentationPolicy/1"

SHEAR, TRANSLATION, ANGLE, BLEND, HOLE = 0.3, 150.0 / 331.0, 30.0, 0.9, 0.5
"""The largest shear; shift, a share of the side; rotation in degrees; change of a blending factor; side of a hole."""

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601, as Pillow has them)."""
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Operation:
    """One way to change images.

    Images are (n, channels, height, width) float32 in [0, 1], of 1 or 3 channels.

    Attributes:
        name: of the operation.
        low, high: the value that magnitudes 0 and 1 stand for; linear in between.
        signed: whether a random sign is given to the value.
        change: new images of images, values (n,), and random places (n, 2) in [0, 1], such as the middles of holes.
    """

    name: str
    low: float
    high: float
    signed: bool
    change: Callable[[Tensor, Tensor, Tensor], Tensor]

    def values(self, magnitudes: Tensor, signs: Tensor) -> Tensor:
        """The values (n,) for magnitudes (n,) in [0, 1], and numbers in [0, 1] of which half stand for a minus."""
        values = self.low + (self.high - self.low) * magnitudes
        return torch.where(signs < 0.5, -values, values) if self.signed else values


@dataclass(frozen=True)
class Affine(Operation):
    """An operation that moves pixels.

    Attributes:
        matrix: (n, 2, 3) of values (n,), height and width: from a place (x, y, 1) in the new image, in pixels from its
            upper left corner, to one in the old image.
    """

    matrix: Callable[[Tensor, int, int], Tensor]


def moved(images: Tensor, matrices: Tensor) -> Tensor:
    """Images whose pixels come from elsewhere, bilinearly interpolated; 0 where that is outside.

    Computes what Pillow's `Image.transform(..., AFFINE, ..., BILINEAR)` does.

    Args:
        images: (n, channels, height, width).
        matrices: (n, 2, 3), see `Affine`.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=torch.float32, device=images.device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=images.device) + 0.5
    # As grid_sample counts, from -1 at the left or upper edge to 1 at the other.
    sizes = torch.tensor([width, height], dtype=torch.float32, device=images.device)
    across, down, shift = (2.0 * matrices / sizes[:, None]).unbind(dim=2)
    rows = down[:, :, None] * y + (shift - 1.0)[:, :, None]
    places = rows[:, :, :, None] + (across[:, :, None] * x)[:, :, None, :]
    outside = (places < -1.0) | (places >= 1.0)
    grid = places.permute(0, 2, 3, 1)
    found = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.masked_fill_((outside[:, 0] | outside[:, 1])[:, None], 0.0)


def _matrices(*entries: Tensor | float, like: Tensor) -> Tensor:
    columns = [entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for entry in entries]
    return torch.stack(columns, dim=1).unflatten(1, (2, 3))


def _shear_x(values: Tensor, height: int, width: int) -> Tensor:
    return _matrices(1.0, values, 0.0, 0.0, 1.0, 0.0, like=values)


def _shear_y(values: Tensor, height: int, width: int) -> Tensor:
    return _matrices(1.0, 0.0, 0.0, values, 1.0, 0.0, like=values)


def _translate_x(values: Tensor, height: int, width: int) -> Tensor:
    return _matrices(1.0, 0.0, values * width, 0.0, 1.0, 0.0, like=values)


def _translate_y(values: Tensor, height: int, width: int) -> Tensor:
    return _matrices(1.0, 0.0, 0.0, 0.0, 1.0, values * height, like=values)


def _rotate(values: Tensor, height: int, width: int) -> Tensor:
    cosine, sine = torch.cos(torch.deg2rad(values)), torch.sin(torch.deg2rad(values))
    x, y = width / 2.0, height / 2.0
    return _matrices(
        *(cosine, -sine, x - cosine * x + sine * y), *(sine, cosine, y - sine * x - cosine * y), like=values
    )


def _levels(images: Tensor) -> Tensor:
    """From 0 to 255, whole numbers."""
    return (images * 255.0).round()


def _grey(images: Tensor) -> Tensor:
    """Images (n, 1, height, width) without colours."""
    if images.shape[1] == 1:
        return images
    shares = torch.tensor(GREY, dtype=images.dtype, device=images.device)
    return (images * shares[:, None, None]).sum(dim=1, keepdim=True)


def _blend(plain: Tensor, images: Tensor, values: Tensor) -> Tensor:
    """From the plain images at -1, through the images at 0, to beyond them."""
    return (plain + (1.0 + values)[:, None, None, None] * (images - plain)).clamp(0.0, 1.0)


def _identity(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return images


def _auto_contrast(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _invert(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return 1.0 - images


def _equalize(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    levels = _levels(images).long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts = counts.scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(dim=2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    table = (step // 2 + counts.cumsum(dim=2) - counts) // step.clamp(min=1)
    equalized = table.clamp(max=255).gather(2, levels).float() / 255.0
    return torch.where(step > 0, equalized, images.flatten(2)).view_as(images)


def _solarize(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return torch.where(_levels(images) >= values[:, None, None, None], 1.0 - images, images)


def _posterize(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    width = 2.0 ** (8.0 - values.round())[:, None, None, None]
    return (_levels(images) / width).floor() * width / 255.0


def _contrast(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return _blend(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, values)


def _color(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return _blend(_grey(images), images, values)


def _brightness(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, values)


def _sharpness(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    smooth = images.clone()
    if min(images.shape[2:]) > 2:  # the border stays as it is
        rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
        sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        smooth[:, :, 1:-1, 1:-1] = (sums + 4.0 * images[:, :, 1:-1, 1:-1]) / 13.0
    return _blend(smooth, images, values)


def _cutout(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
    height, width = images.shape[2:]
    half = (values * min(height, width) / 2.0)[:, None]
    x = torch.arange(width, dtype=torch.float32, device=images.device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=images.device) + 0.5
    across = (x - places[:, :1] * width).abs() < half
    down = (y - places[:, 1:] * height).abs() < half
    return images.masked_fill((down[:, :, None] & across[:, None, :])[:, None], 0.0)


def _affine(name: str, high: float, matrix: Callable[[Tensor, int, int], Tensor]) -> Affine:
    def change(images: Tensor, values: Tensor, places: Tensor) -> Tensor:
        return moved(images, matrix(values, *images.shape[2:]))

    return Affine(name, 0.0, high, True, change, matrix)


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("identity", 0.0, 0.0, False, _identity),
        _affine("shear_x", SHEAR, _shear_x),
        _affine("shear_y", SHEAR, _shear_y),
        _affine("translate_x", TRANSLATION, _translate_x),
        _affine("translate_y", TRANSLATION, _translate_y),
        _affine("rotate", ANGLE, _rotate),
        Operation("auto_contrast", 0.0, 0.0, False, _auto_contrast),
        Operation("invert", 0.0, 0.0, False, _invert),
        Operation("equalize", 0.0, 0.0, False, _equalize),
        Operation("solarize", 256.0, 0.0, False, _solarize),
        Operation("posterize", 8.0, 4.0, False, _posterize),
        Operation("contrast", 0.0, BLEND, True, _contrast),
        Operation("color", 0.0, BLEND, True, _color),
        Operation("brightness", 0.0, BLEND, True, _brightness),
        Operation("sharpness", 0.0, BLEND, True, _sharpness),
        Operation("cutout", 0.0, HOLE, False, _cutout),
    )
}
"""AutoAugment's operations by name, without the pairing of samples, and with "identity", as RandAugment has them."""

NAMES = tuple(OPERATIONS)
MOVING = [place for place, operation in enumerate(OPERATIONS.values()) if isinstance(operation, Affine)]
"""The places of those that move pixels: next to each other, after "identity"."""
RANGES = torch.tensor(
    [[one.low, one.high - one.low, one.signed] for one in OPERATIONS.values()], dtype=torch.float32, device="cpu"
).T
"""Lowest value, range, and whether there is a sign, of each, (3, operations) float32."""


class Step(NamedTuple):
    """One operation of a sub-policy.

    Attributes:
        operation: a name of `OPERATIONS`.
        probability: that it is applied, from 0 to 1.
        magnitude: from 0 to 1; see `Operation`.
    """

    operation: str
    probability: float
    magnitude: float

    def __str__(self) -> str:
        return f"{self.operation} {self.magnitude:.2f} ({self.probability:.0%})"


@dataclass(frozen=True)
class AugmentationPolicy:
    """Sub-policies, one of which is drawn for each image of each minibatch (Cubuk et al. 2019, arXiv:1805.09501).

    Attributes:
        sub_policies: the steps of each, which are applied in turn. Without sub-policies images stay as they are.

    Raises:
        ValueError: an unknown operation, or a probability or magnitude that is not in [0, 1].
    """

    sub_policies: tuple[tuple[Step, ...], ...] = ()

    def __post_init__(self) -> None:
        try:
            read = tuple(tuple(Step(*step) for step in steps) for steps in self.sub_policies)
        except TypeError as error:
            raise ValueError(
                f"sub_policies={self.sub_policies!r}: must be sequences of (operation, probability, magnitude)"
            ) from error
        for step in (step for steps in read for step in steps):
            if not isinstance(step.operation, str) or step.operation not in OPERATIONS:
                raise ValueError(f"operation={step.operation!r}: must be one of {', '.join(map(repr, OPERATIONS))}")
            for name in ("probability", "magnitude"):
                value = getattr(step, name)
                if not is_number(value) or not 0.0 <= value <= 1.0:
                    raise ValueError(f"{name}={value!r}: must be a number from 0 to 1")
        plain = [[Step(step.operation, *map(float, step[1:])) for step in steps] for steps in read]
        object.__setattr__(self, "sub_policies", tuple(map(tuple, plain)))

    @property
    def draws(self) -> int:
        """How many random numbers an image takes: the sub-policy, and four for each step of the longest one."""
        return 1 + 4 * max(map(len, self.sub_policies), default=0)

    @classmethod
    def joined(cls, policies: Iterable[AugmentationPolicy]) -> AugmentationPolicy:
        """The sub-policies of all of them, as AutoAugment joins its five best policies."""
        return cls(tuple(steps for policy in policies for steps in policy.sub_policies))

    def to_json(self) -> str:
        """The policy as text."""
        steps = [[step._asdict() for step in steps] for steps in self.sub_policies]
        return json.dumps({"format": FORMAT, "sub_policies": steps}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> AugmentationPolicy:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: anything else.
        """
        try:
            found = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"no policy: {error}") from error
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            raise ValueError(f"no policy of this version: its format must be {FORMAT!r}")
        try:
            steps = tuple(tuple(Step(**step) for step in steps) for steps in found["sub_policies"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"no policy: {error}") from error
        return cls(steps)

    def __str__(self) -> str:
        return "\n".join(", then ".join(map(str, steps)) for steps in self.sub_policies) or "no augmentation"


@dataclass(frozen=True)
class PolicyTable:
    """n policies as tensors; shorter ones are padded.

    Attributes:
        operations: (n, S, K) int64, places in `NAMES`, for S sub-policies of K steps.
        probabilities, magnitudes: (n, S, K) float32.
        counts: (n,) int64, the number of sub-policies of each.
    """

    operations: Tensor
    probabilities: Tensor
    magnitudes: Tensor
    counts: Tensor

    @classmethod
    def of(cls, policies: Sequence[AugmentationPolicy]) -> PolicyTable:
        """The table of these policies."""
        every = [steps for policy in policies for steps in policy.sub_policies]
        most = max((len(policy.sub_policies) for policy in policies), default=0)
        shape = len(policies), max(most, 1), max(map(len, every), default=0)
        operations = torch.zeros(shape, dtype=torch.int64, device="cpu")
        probabilities, magnitudes = torch.zeros(2, *shape, dtype=torch.float32, device="cpu")
        for row, policy in enumerate(policies):
            for place, steps in enumerate(policy.sub_policies):
                for turn, step in enumerate(steps):
                    operations[row, place, turn] = NAMES.index(step.operation)
                    probabilities[row, place, turn] = step.probability
                    magnitudes[row, place, turn] = step.magnitude
        counts = torch.tensor([max(len(policy.sub_policies), 1) for policy in policies], device="cpu")
        return cls(operations, probabilities, magnitudes, counts)

    @property
    def draws(self) -> int:
        """How many random numbers an image takes, as many as under the policy that takes most."""
        return 1 + 4 * self.operations.shape[2]

    def rows(self, rows: Sequence[int]) -> PolicyTable:
        """The policies of these rows."""
        index = torch.as_tensor(rows, device="cpu")
        parts = (self.operations, self.probabilities, self.magnitudes, self.counts)
        return PolicyTable(*(part[index] for part in parts))

    def apply(self, images: Tensor, noise: Tensor) -> Tensor:
        """Augmented copies.

        Args:
            images: (n, b, channels, height, width) float32 in [0, 1], the images of each policy.
            noise: (n, b, draws) float32, uniform in [0, 1): the sub-policy; for each step whether it is applied, the
                sign, and two places.
        """
        rows, counts = torch.arange(len(images), device=images.device)[:, None], self.counts.to(images.device)[:, None]
        chosen = (noise[..., 0] * counts).long().minimum(counts - 1)
        operations, probabilities, magnitudes = (
            part.to(images.device)[rows, chosen].flatten(0, 1)
            for part in (self.operations, self.probabilities, self.magnitudes)
        )
        flat, each = images.flatten(0, 1), noise[..., 1:].unflatten(2, (-1, 4)).flatten(0, 1)
        for turn in range(operations.shape[1]):
            random = each[:, turn]
            applied = torch.where(random[:, 0] < probabilities[:, turn], operations[:, turn], 0)
            flat = apply_operations(flat, applied, magnitudes[:, turn], random[:, 1:])
        return flat.unflatten(0, images.shape[:2])


def apply_operations(images: Tensor, operations: Tensor, magnitudes: Tensor, noise: Tensor) -> Tensor:
    """Images, to each of which another operation is applied.

    Args:
        images: (n, channels, height, width) float32 in [0, 1].
        operations: (n,) int64, places in `NAMES`.
        magnitudes: (n,) in [0, 1].
        noise: (n, 3) in [0, 1): the sign, and two places.
    """
    counts = torch.bincount(operations, minlength=len(OPERATIONS)).tolist()
    if counts[0] == len(images):
        return images
    values = _values(operations, magnitudes, noise[:, 0])
    # Sorted by operation, images are taken, and put back, all at once.
    order = operations.argsort()
    sides = (images.index_select(0, order), values.index_select(0, order), noise.index_select(0, order)[:, 1:])
    changed: list[Tensor] = []
    moving: list[Tensor] = []
    for operation, old, own, places in zip(OPERATIONS.values(), *(side.split(counts) for side in sides), strict=True):
        if isinstance(operation, Affine):
            moving.append(operation.matrix(own, *images.shape[2:]))
        elif len(old):
            changed.append(operation.change(old, own, places))
    first, still = counts[0], counts[0] + sum(counts[place] for place in MOVING)
    if still > first:  # all at once, which is faster
        changed.insert(first > 0, moved(sides[0][first:still], torch.cat(moving)))
    return torch.empty_like(images).index_copy_(0, order, torch.cat(changed))


def _values(operations: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """What `Operation.values` gives for each image, (n,)."""
    low, width, signed = (column.index_select(0, operations) for column in RANGES.to(operations.device).unbind())
    values = low + width * magnitudes
    return torch.where((signed > 0.0) & (signs < 0.5), -values, values)


def check_images(argument: str, images: Tensor) -> None:
    """Raises a ValueError unless these are images (..., channels, height, width) float32 in [0, 1]."""
    if images.ndim < 3 or images.shape[-3] not in CHANNELS:
        raise ValueError(
            f"{argument}: has shape {tuple(images.shape)}; images must be (channels, height, width), of 1 or 3 channels"
        )
    if images.numel() and not 0.0 <= float(images.min()) <= float(images.max()) <= 1.0:
        raise ValueError(f"{argument}: has values outside [0, 1]; scale images to it")


class Augment:
    """A policy as a transform of images, for data sets and torchvision's pipelines.

    Takes one image (channels, height, width) or several (n, channels, height, width), of 1 or 3 channels: uint8, or
    floats in [0, 1]. Returns the same shape and dtype. Each image draws its own sub-policy. Random numbers come from a
    generator of its own; in a worker of a `DataLoader` from the worker's seed as well, so that workers and epochs
    differ.
    """

    def __init__(self, policy: AugmentationPolicy, seed: int = 0) -> None:
        """Takes the policy and the seed of its random numbers."""
        self.policy, self.seed = policy, seed
        self._table = PolicyTable.of([policy])
        self._generator = torch.Generator().manual_seed(seed)
        self._worker: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented copies.

        Raises:
            ValueError: not such images.
        """
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            raise ValueError(f"images={type(images).__name__}: must be a tensor (channels, height, width) or (n, ...)")
        worker = torch.utils.data.get_worker_info()
        if worker is not None and self._worker != worker.seed:
            self._worker = worker.seed
            self._generator.manual_seed((self.seed + worker.seed) % 2**63)
        whole = images.dtype == torch.uint8
        if not (whole or images.is_floating_point()):
            raise ValueError(f"images: are {images.dtype}; must be uint8, or floats in [0, 1]")
        given = images.float() / 255.0 if whole else images.float()
        check_images("images", given)
        batch = given if images.ndim == 4 else given[None]
        noise = torch.rand(
            *(1, len(batch), self._table.draws), generator=self._generator, dtype=torch.float32, device="cpu"
        )
        changed = self._table.apply(batch[None], noise.to(batch.device))[0].view_as(given)
        changed = (changed * 255.0).round().to(torch.uint8) if whole else changed.to(images.dtype)
        return changed.clone() if changed.data_ptr() == images.data_ptr() else changed

    def __getstate__(self) -> dict[str, Any]:
        return {"policy": self.policy, "seed": self.seed, "state": self._generator.get_state(), "worker": self._worker}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Augment.__init__(self, state["policy"], state["seed"])
        self._generator.set_state(state["state"])
        self._worker = state["worker"]

    def __repr__(self) -> str:
        return f"Augment({len(self.policy.sub_policies)} sub-policies, seed={self.seed})"
