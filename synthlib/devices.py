"""Where tensors live and in what precision: a device by name, and static tables of what each GPU is good at."""

import torch

from synthlib.inputs import InputError, parameter

# From this CUDA compute capability on: (precision of Stable Diffusion v1, precision of newer families, compile pays).
# Tensor cores do float16 from 7.0 (V100, T4) and bfloat16 from 8.0 (A100) on. Newer families (SD3, Flux) overflow in
# float16. Before 8.0 torch.compile has little to fuse for; below 7.0 float16 is slower than float32 on most cards.
BY_CAPABILITY = {
    (8, 0): ("float16", "bfloat16", True),
    (7, 0): ("float16", "float16", False),
    (0, 0): ("float32", "float32", False),
}
TORCH_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class NotFinite(InputError):
    """A network gave nan or infinity: as pixels they would be black or white, as logits class 0."""


def require_finite(finite: torch.Tensor | bool, whose: str, advice: str) -> None:
    """NotFinite, one line, unless `finite`. whose: what is not, such as "the logits of a network"."""
    if not finite:
        raise NotFinite(f"{whose} are not finite (nan or infinity), so nothing is made of them; {advice}.")


def require_drawn(
    finite: torch.Tensor | bool, what: str, model: object, dtype: torch.dtype, device: torch.device
) -> None:
    """`require_finite` of what a text-to-image model gave (pixels, latents, embeddings) in a precision on a device."""
    precision = str(dtype).removeprefix("torch.")
    wider = {"float16": "precision float32 or bfloat16, ", "bfloat16": "precision float32, "}.get(precision, "")
    advice = f"try {wider}a lower guidance scale, or the model fetched anew: its weights may be damaged"
    require_finite(finite, f"the {what} of {model} in {precision} on {device}", advice)


def device_named(device: str) -> torch.device:
    """A torch device by name; "auto" takes the GPU where there is one. InputError: unknown, or a GPU that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown {parameter('device')} {device!r}; expected auto, cpu or cuda.")
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"{parameter('device')} is {device!r}; expected auto, cpu or cuda.")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{parameter('device')} is {device!r}, but torch finds no GPU here; expected auto or cpu.")
    return found


def hardware_name(device: str) -> str:
    """What results depend on of a device: "cpu", or the GPU's model."""
    found = device_named(device)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else found.type


def capability_row(device: str) -> tuple[str, str, bool]:
    """The row of BY_CAPABILITY for a device; all that is no CUDA device is taken for the oldest."""
    found = device_named(device)
    capability = torch.cuda.get_device_capability(found) if found.type == "cuda" else (0, 0)
    return next(row for least, row in BY_CAPABILITY.items() if capability >= least)


def precision_for(device: str, precision: str, stable_diffusion_v1: bool) -> str:
    """The precision asked for, or for "auto" the one that BY_CAPABILITY names."""
    return capability_row(device)[0 if stable_diffusion_v1 else 1] if precision == "auto" else precision


def compile_for(device: str, compile: str) -> bool:
    """Whether to compile the UNet: "on", "off", or for "auto" what BY_CAPABILITY says of the device."""
    return capability_row(device)[2] if compile == "auto" else compile == "on"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's, or the machine's, memory does not suffice."""
    said = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)
