"""Noise: where an image's first latents come from. One generator an image (ours), or the released script's order."""

import torch

from synthlib.generation.prompts import SLOTS


def initial_noise(seeds: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal latents float32 [B, *shape]: each from a CPU generator of its own, so of its seed only.

    torch's CPU generator reads the lower 32 bits of a seed: among the 6,000 images of one prompt, two share their noise with a
    chance of 0.4 %.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class CompvisNoise:
    """The noise of CompVis's txt2img.py as the authors' create_dataset.py calls it: a process of its own for each prompt.

    One generator on the model's device, seeded once a prompt (seed_everything), so that all prompts share their noise. Each
    iteration takes 1 + steps draws of [2, C, h, w]: the first latents, then one a DDIM step, which eta 0 multiplies by zero
    (ddim.py: p_sample_ddim) but which moves the generator on all the same. A row's place is (iteration, slot).

    Proven (tests/test_noise.py): the numbers equal those of a loop written as theirs is, in whatever order rows are asked
    for. Read in their code, not run: that nothing else draws from that generator. Not proven: that the authors' images come
    out, which also needs their GPU (CUDA's generator need not give one model's numbers on another), their torch, autocast's
    rounding and, on a CPU, the draws that building their model takes from the same generator before.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], num_inference_steps: int, device: torch.device) -> None:
        self.seed, self.shape, self.steps = seed, (SLOTS, *shape), num_inference_steps
        self.generator = torch.Generator(device=device)
        self.iteration, self.noise = -1, torch.empty(0)

    def _draw(self) -> torch.Tensor:
        return torch.randn(self.shape, generator=self.generator, device=self.generator.device)

    def _go_to(self, iteration: int) -> None:
        if iteration < self.iteration or self.iteration < 0:
            self.generator.manual_seed(self.seed)
            self.iteration, self.noise = 0, self._draw()
        while self.iteration < iteration:
            for _ in range(self.steps):
                self._draw()
            self.iteration, self.noise = self.iteration + 1, self._draw()

    def at(self, places: list[tuple[int, int]]) -> torch.Tensor:
        """First latents float32 [B, C, h, w] of some (iteration, slot), both counted from 0."""
        found = []
        for iteration, slot in places:
            self._go_to(iteration)
            found.append(self.noise[slot])
        return torch.stack(found)
