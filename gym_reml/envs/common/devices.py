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
        raise ValueError(f"device={device!r}: not available here ({str(error).splitlines()[0]})") from error
