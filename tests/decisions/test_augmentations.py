"""Operations against Pillow on the same images, policies, and their transform."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from gym_reml.decisions.augmentations import (
    BLEND,
    NAMES,
    OPERATIONS,
    Augment,
    AugmentationPolicy,
    PolicyTable,
    Step,
    apply_operations,
)

MAGNITUDES = (0.0, 0.1, 0.45, 0.7, 1.0)


def pictures(channels: int, count: int = 4, height: int = 30, width: int = 26) -> np.ndarray:
    """Smooth images with noise, of different ranges, (n, height, width, channels) uint8."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 5, 5, channels)).astype(np.uint8)
    sizes = [
        np.asarray(Image.fromarray(one.squeeze()).resize((width, height), Image.Resampling.BICUBIC)) for one in coarse
    ]
    images = np.stack(sizes).reshape(count, height, width, channels).astype(int)
    images[1] = images[1] // 3 + 60
    images[2] += generator.integers(-20, 20, images[2].shape)
    images[3] = 255 * (images[3] > 128)
    return np.clip(images, 0, 255).astype(np.uint8)


def by_pillow(name: str, image: Any, magnitude: float, sign: float, place: np.ndarray) -> Any:
    """What AutoAugment's authors do with Pillow, bilinearly."""
    width, height = image.size
    value = sign * magnitude
    affine = {
        "shear_x": (1, 0.3 * value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * value, 1, 0),
        "translate_x": (1, 0, 150 / 331 * value * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 150 / 331 * value * height),
    }
    enhance = {
        "contrast": ImageEnhance.Contrast,
        "color": ImageEnhance.Color,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], Image.Resampling.BILINEAR)
    if name in enhance:
        return enhance[name](image).enhance(1.0 + BLEND * value)
    if name == "rotate":
        return image.rotate(30 * value, Image.Resampling.BILINEAR)
    if name == "solarize":
        return ImageOps.solarize(image, 256 * (1 - magnitude))  # type: ignore[arg-type]
    if name == "posterize":
        return ImageOps.posterize(image, round(8 - 4 * magnitude))
    if name == "cutout":
        # Pixels whose middles are nearer than half a side.
        half = 0.5 * magnitude * min(width, height) / 2
        x, y = place * (width, height)
        first, last = np.ceil((x - half, y - half) - np.float64(0.5)), np.floor((x + half, y + half) - np.float64(0.5))
        drawn = image.copy()
        if half > 0:
            ImageDraw.Draw(drawn).rectangle([*first, *last], fill=0 if image.mode == "L" else (0, 0, 0))
        return drawn
    whole = {"auto_contrast": ImageOps.autocontrast, "invert": ImageOps.invert, "equalize": ImageOps.equalize}
    return whole[name](image) if name in whole else image


def tensors(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.moveaxis(images, -1, 1).copy()).float() / 255.0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_pillows(name: str, channels: int) -> None:
    images = pictures(channels)
    place = np.array([0.3, 0.61])
    for magnitude in MAGNITUDES:
        for sign in (-1.0, 1.0):
            noise = torch.tensor([[0.2 if sign < 0 else 0.8, *place]], dtype=torch.float32)
            operations, magnitudes = torch.full((4,), NAMES.index(name)), torch.full((4,), magnitude)
            ours = apply_operations(tensors(images), operations, magnitudes, noise.expand(4, 3))
            assert -1e-6 <= float(ours.min()) <= float(ours.max()) <= 1.0 + 1e-6
            theirs = [by_pillow(name, Image.fromarray(one.squeeze()), magnitude, sign, place) for one in images]
            expected = np.moveaxis(np.stack([np.asarray(one) for one in theirs]).reshape(images.shape), -1, 1)
            gap = np.abs(255.0 * ours.numpy() - expected)
            # Pillow cuts off fractions. A pixel that comes from the very border may be taken as outside by one of us.
            assert np.quantile(gap, 0.995) <= 1.5, (magnitude, sign)
            if name not in ("shear_x", "shear_y", "rotate"):
                assert gap.max() <= 1.5, (magnitude, sign)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_has_its_own_parameters(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = tensors(pictures(channels))[torch.randint(4, (60,), generator=generator)]
    operations = torch.randint(len(NAMES), (60,), generator=generator)
    magnitudes, noise = torch.rand(60, generator=generator), torch.rand(60, 3, generator=generator)
    together = apply_operations(images, operations, magnitudes, noise)
    for row in range(60):
        operation = OPERATIONS[NAMES[operations[row]]]
        here = slice(row, row + 1)
        values = operation.values(magnitudes[here], noise[here, 0])
        alone = operation.change(images[here], values, noise[here, 1:])
        torch.testing.assert_close(together[here], alone)


def test_magnitude_zero_changes_nothing() -> None:
    images = tensors(pictures(3))
    for number, name in enumerate(NAMES):
        if name not in ("auto_contrast", "invert", "equalize"):
            here = torch.full((4,), number)
            changed = apply_operations(images, here, torch.zeros(4), torch.full((4, 3), 0.4))
            torch.testing.assert_close(changed, images, atol=1e-5, rtol=0)


POLICY = AugmentationPolicy(
    (
        (Step("invert", 1.0, 0.0), Step("identity", 0.5, 0.2)),
        (Step("solarize", 0.25, 1.0), Step("invert", 0.5, 0.3)),
        (Step("identity", 1.0, 1.0),),
    )
)


def test_sub_policies_and_steps_are_drawn_as_often_as_they_should() -> None:
    images = torch.full((1, 20_000, 1, 1, 1), 0.9)
    table = PolicyTable.of([POLICY])
    noise = torch.rand(1, 20_000, table.draws, generator=torch.Generator().manual_seed(0))

    def inverted(*sub_policies: tuple[Step, ...]) -> float:
        table = PolicyTable.of([AugmentationPolicy(sub_policies)])
        return float((table.apply(images, noise[..., : table.draws]) < 0.5).float().mean())

    # Of the second one half, since inverting is its own inverse.
    assert inverted(*POLICY.sub_policies) == pytest.approx(1 / 3 + 1 / 6, abs=0.015)
    assert inverted((Step("solarize", 0.25, 1.0), Step("invert", 1.0, 0.3))) == pytest.approx(0.75, abs=0.01)
    assert inverted((Step("invert", 0.2, 0.0),)) == pytest.approx(0.2, abs=0.01)


def test_rows_have_their_own_policies() -> None:
    policies = [AugmentationPolicy(), AugmentationPolicy(((Step("invert", 1.0, 0.0),),)), POLICY]
    table = PolicyTable.of(policies)
    images = torch.rand(3, 6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(3, 6, table.draws, generator=torch.Generator().manual_seed(1))
    changed = table.apply(images, noise)
    torch.testing.assert_close(changed[0], images[0])
    torch.testing.assert_close(changed[1], 1.0 - images[1])
    torch.testing.assert_close(table.rows([2, 0]).apply(images[[2, 0]], noise[[2, 0]]), changed[[2, 0]])


def test_a_policy_is_read_from_what_was_written() -> None:
    assert AugmentationPolicy.from_json(POLICY.to_json()) == POLICY
    assert AugmentationPolicy.joined([POLICY, AugmentationPolicy(), POLICY]).sub_policies == 2 * POLICY.sub_policies
    assert str(POLICY).splitlines()[0] == "invert 0.00 (100%), then identity 0.20 (50%)"
    assert str(AugmentationPolicy()) == "no augmentation"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((("sharpen", 0.5, 0.5),), "operation='sharpen'.*'sharpness'"),
        ((("invert", 1.5, 0.5),), "probability=1.5"),
        ((("invert", 0.5, float("nan")),), "magnitude=nan"),
        ((("invert", 0.5),), "operation, probability, magnitude"),
    ],
)
def test_a_bad_policy_is_refused(steps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationPolicy((steps,))


@pytest.mark.parametrize("text", ["[]", "{}", json.dumps({"format": "gym_reml.AugmentationPolicy/1"}), "no"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no policy"):
        AugmentationPolicy.from_json(text)


HOLES = AugmentationPolicy(((Step("cutout", 1.0, 0.3), Step("cutout", 1.0, 0.5)),))


class Pairs(torch.utils.data.Dataset):
    def __init__(self, transform: Augment) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(torch.full((1, 32, 32), 255, dtype=torch.uint8))


SHIFTS = AugmentationPolicy(((Step("translate_x", 1.0, 1.0), Step("cutout", 1.0, 1.0)),))


def test_the_transform_of_images() -> None:
    state = torch.get_rng_state()
    images = torch.from_numpy(np.moveaxis(pictures(3), -1, 1).copy())
    first, second = Augment(SHIFTS, seed=1), Augment(SHIFTS, seed=1)
    changed = first(images)
    assert (changed.dtype, changed.shape) == (torch.uint8, images.shape)
    torch.testing.assert_close(second(images), changed)
    copy = pickle.loads(pickle.dumps(first))
    one = first(images[0].double() / 255)
    assert (one.dtype, one.shape) == (torch.float64, images[0].shape)
    torch.testing.assert_close(copy(images[0].double() / 255), one)
    assert not torch.equal(first(images), changed)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_draw_different_numbers() -> None:
    """And so do epochs, each of which has new workers."""
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(Pairs(Augment(HOLES)), batch_size=None, num_workers=2, generator=generator)
    items = [item.numpy().tobytes() for _ in range(2) for item in loader]
    assert len(set(items)) == len(items) == 16


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 4, 4), "1 or 3 channels"),
        (torch.rand(3, 4, 4) * 2, r"outside \[0, 1\]"),
        (torch.rand(4, 4), "must be a tensor"),
        (np.zeros((3, 4, 4)), "images=ndarray"),
    ],
)
def test_other_than_images_are_refused(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(POLICY)(images)


def test_the_transform_gives_copies_whatever_the_default_dtype() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    for policy in (AugmentationPolicy(), AugmentationPolicy(((("color", 0.0, 1.0),),))):  # type: ignore[arg-type]
        assert Augment(policy)(image).data_ptr() != image.data_ptr()
    coloured = AugmentationPolicy(((("color", 1.0, 1.0),),))  # type: ignore[arg-type]
    expected = Augment(coloured, seed=1)(image)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(Augment(coloured, seed=1)(image), expected, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(before)
    with pytest.raises(ValueError, match="must be uint8, or floats"):
        Augment(coloured)(torch.ones(1, 4, 4, dtype=torch.int64))


def test_numbers_of_numpy_are_written_as_json() -> None:
    policy = AugmentationPolicy(((("rotate", np.float32(0.5), np.int64(1)),),))  # type: ignore[arg-type]
    assert AugmentationPolicy.from_json(policy.to_json()) == policy
    with pytest.raises(ValueError, match="no policy"):
        AugmentationPolicy.from_json("[" * 200_000)
