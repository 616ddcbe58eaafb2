"""Devices that networks are computed on."""

from __future__ import annotations

import torch


def find_device(device: str | torch.device) -> torch.device:
    """The device of this name, with its index.

    Raises:
        ValueError: no device, or none that is available.
    """
    if not isinstance(device, str | torch.device):
        raise ValueError(f"device={device!r}: must be the name of a torch device, or one")
    try:
        # A round trip over the CPU, because that fails for "meta", a device without memory.
        return torch.zeros(1, device="cpu").to(device).cpu().to(device).device
    except (RuntimeError, AssertionError) as error:
        reason, choices = str(error).splitlines()[0], ", ".join(map(repr, _available()))
        raise ValueError(f"device={device!r}: not available here ({reason}); choices: {choices}") from error


def _available() -> list[str]:
    """The names of the devices of this machine."""
    cuda = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [
        "cpu",
        *(cuda if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
