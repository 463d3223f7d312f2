"""Where tensors live: a device by name, and the number of CPU threads, both recorded because the last bits depend on them."""

import torch

from synthlib.settings import InputError


def device_named(device: str) -> torch.device:
    """A torch device by name; "auto" takes the GPU where there is one. InputError: unknown, or a GPU that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; expected auto, cpu or cuda.")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' asked for, but torch finds no GPU here; use device 'auto' or 'cpu'.")
    return found


def hardware_name(device: str) -> str:
    """What results depend on of a device: "cpu", or the GPU's model."""
    found = device_named(device)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else found.type
