"""What moves the weights: AdamW, the learning rate at each step, the loss scale of float16, an average of the weights."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.adamw import adamw


def learning_rate_at(
    step: int, steps_per_epoch: int, epochs: int, learning_rate: float, warmup: float, schedule: str
) -> float:
    """The learning rate at a step, counted from 0.

    cosine_by_epoch: constant within an epoch, as torch's CosineAnnealingLR(T_max=epochs) stepped once an epoch (authors'
    code); cosine_by_step: smooth; constant. The first `warmup` share of all steps is scaled up linearly.
    """
    total = steps_per_epoch * epochs
    done = {"cosine_by_epoch": step // steps_per_epoch / epochs, "cosine_by_step": step / total, "constant": 0.0}[
        schedule
    ]
    warm = min(1.0, (step + 1) / (warmup * total)) if warmup * total >= 1 else 1.0
    return warm * learning_rate * (1 + math.cos(math.pi * done)) / 2


class AdamW:
    """AdamW's state and fused step; torch.optim.AdamW is the same kernel, but importing torch._dynamo for it takes 2 s.

    In float16 the loss is scaled, and a step whose gradients are not finite is left out: torch's GradScaler, whose scale and
    verdict stay on the device (`grad_scale`, `found_inf` are what it sets on an optimiser before its step, and takes away).
    """

    _step_supports_amp_scaling = True  # what GradScaler looks for

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        names, self.parameters = zip(*model.named_parameters(), strict=True)
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]
        state = {"exp_avg": self.first, "exp_avg_sq": self.second, "step": self.steps}
        self.tensors = {
            f"{kind}/{name}": t for kind, list_ in state.items() for name, t in zip(names, list_, strict=True)
        }
        self.param_groups = [{"params": list(self.parameters)}]  # for GradScaler
        self.scaler = None
        if dtype == torch.float16:
            self.scaler = torch.amp.GradScaler(self.parameters[0].device.type)
            self.scaler.scale(torch.ones((), device=self.parameters[0].device))  # makes its tensors now
            self.tensors |= {"scaler/scale": self.scaler._scale, "scaler/growth": self.scaler._growth_tracker}

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def update(self, learning_rate: float, weight_decay: float) -> None:
        """One step with the gradients at hand; afterwards there are none."""
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        if self.scaler:
            self.scaler.step(self)
            self.scaler.update()
        else:
            self.step()
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """What GradScaler calls. A parameter without a gradient (frozen, or of no use) stays as it is, as in torch's."""
        lists = (self.parameters, self.first, self.second, self.steps)
        parameters, first, second, steps = zip(
            *(of for of in zip(*lists, strict=True) if of[0].grad is not None), strict=True
        )
        adamw(
            list(parameters), [parameter.grad for parameter in parameters], list(first), list(second), [], list(steps),
            fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=self.learning_rate, weight_decay=self.weight_decay,
            eps=1e-8, maximize=False, grad_scale=getattr(self, "grad_scale", None), found_inf=getattr(self, "found_inf", None),
        )  # fmt: skip


class Average:
    """An exponential moving average of a network's parameters (Polyak & Juditsky 1992); decay 0 keeps none.

    Batch norm's running averages are not averaged: they stay those of the network's own weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.mean = {f"average/{name}": p.detach().clone() for name, p in model.named_parameters()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights after a step."""
        if self.decay:
            torch._foreach_lerp_(list(self.mean.values()), list(self.model.parameters()), 1 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; afterwards its own again."""
        if not self.decay:
            yield
            return
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        self._set(list(self.mean.values()))
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), values, strict=True):
            parameter.copy_(value)
