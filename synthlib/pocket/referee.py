"""The pocket referee: a small CNN that says which digit and which style a 32x32 image shows.

It learns from glyphs of held-out fonts and seeds, which the generator never saw, and its penultimate features are the
named feature space "pocket-referee-v1" of the diversity measures.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthlib import digests, paths
from synthlib.devices import require_finite
from synthlib.pocket.glyphs import CLASSES, DOMAINS, HELD_OUT_FONTS, draw_glyphs

FEATURE_SPACE = "pocket-referee-v1"
FEATURES = 64


class Referee(nn.Module):
    """uint8 images [N, 3, 32, 32] -> class logits [N, 10], domain logits [N, 10], features [N, 64]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.class_neck = nn.Linear(64 * 4, FEATURES)
        self.class_head = nn.Linear(FEATURES, len(CLASSES))
        self.domain_head = nn.Linear(2 * sum(widths[1:]), len(DOMAINS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = images.float() / 127.5 - 1
        textures = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
            textures += [x.mean((2, 3)), x.amax((2, 3))]  # a style shows at every scale, a digit only at the coarsest
            x = F.max_pool2d(x, 2)
        features = F.relu(self.class_neck(x.flatten(1)))
        return self.class_head(features), self.domain_head(torch.cat(textures, 1)), features


@dataclass(frozen=True)
class RefereeSettings:
    """What decides the referee. Its seeds lie apart from the generator's corpus."""

    seed: int = 1_000
    glyphs: int = 20_000
    validation_glyphs: int = 2_000
    epochs: int = 6
    batch: int = 64
    rate: float = 3e-3
    threads: int = 1


def load_referee(file: Path | None = None) -> Referee:
    """A trained referee, ready to judge; None is the one that comes with the package. InputError: that was changed."""
    from safetensors.torch import load_file

    model = Referee()
    model.load_state_dict(load_file(file or digests.check_shipped(paths.referee_weights())))
    return model.eval()


@torch.no_grad()
def judge_logits(images: Tensor, referee: Referee | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What the referee says of uint8 images [N, 3, 32, 32], as `Referee`. NotFinite: some of it is nan or infinite."""
    referee = referee or load_referee()
    parts = [referee(part) for part in images.split(500)]
    said = [torch.cat(column) for column in zip(*parts, strict=True)]
    finite = all(torch.isfinite(column).all() for column in said)
    require_finite(finite, "the pocket referee's logits or features", "its weights are damaged: install synthlib again")
    return tuple(said)


def judge(images: Tensor, referee: Referee | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Class int64 [N], domain int64 [N] and features float32 [N, 64] of uint8 images [N, 3, 32, 32]."""
    classes, domains, features = judge_logits(images, referee)
    return classes.argmax(1), domains.argmax(1), features


def features(images: Tensor, referee: Referee | None = None) -> Tensor:
    """Features "pocket-referee-v1" float32 [N, 64] of uint8 images [N, 3, 32, 32]."""
    return judge(images, referee)[2]


def augment(images: Tensor, g: torch.Generator) -> Tensor:
    """Blur, noise, light, small shifts and cut-outs on uint8 images, so that the referee leans on no single trace."""
    n = len(images)
    x = images.float()

    def chance(share: float) -> Tensor:
        return torch.rand(n, 1, 1, 1, generator=g) < share

    soft = F.avg_pool2d(F.pad(x, [1] * 4, mode="replicate"), 3, 1)
    x = torch.where(chance(0.35), x + (soft - x) * torch.rand(n, 1, 1, 1, generator=g), x)
    x = x * (0.85 + 0.3 * torch.rand(n, 3, 1, 1, generator=g)) + 15 * torch.randn(n, 1, 1, 1, generator=g)
    x = x + chance(0.35) * 12 * torch.randn(x.shape, generator=g)
    padded = F.pad(x, [2] * 4, mode="replicate")
    place = torch.randint(5, (n, 2), generator=g)
    rows, columns = place[:, :1] + torch.arange(32), place[:, 1:] + torch.arange(32)
    x = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    hole = torch.randint(26, (n, 2), generator=g)
    axis = torch.arange(32)
    inside = [(axis >= hole[:, i : i + 1]) & (axis < hole[:, i : i + 1] + 6) for i in (0, 1)]
    cut = (inside[0][:, None, :, None] & inside[1][:, None, None, :]) & chance(0.25)
    return torch.where(cut, x.mean((2, 3), keepdim=True), x).clamp(0, 255)


def train_referee(outdir: Path, settings: RefereeSettings = RefereeSettings()) -> dict:
    """Train on held-out fonts, validate on fresh seeds of them, write `referee.safetensors`; returns the record."""
    from safetensors.torch import save_file

    torch.set_num_threads(settings.threads)
    start = time.perf_counter()
    train = draw_glyphs(settings.glyphs, settings.seed, HELD_OUT_FONTS)
    fresh = draw_glyphs(settings.validation_glyphs, settings.seed + 1, HELD_OUT_FONTS)
    torch.manual_seed(settings.seed)
    g = torch.Generator().manual_seed(settings.seed)
    model = Referee().train()
    steps = settings.epochs * (len(train.images) // settings.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, max(steps, 2))
    for _ in range(settings.epochs):
        order = torch.randperm(len(train.images), generator=g)
        for rows in order.split(settings.batch)[: len(train.images) // settings.batch]:
            classes, domains, _ = model(augment(train.images[rows], g))
            loss = F.cross_entropy(classes, train.labels[rows], label_smoothing=0.05)
            loss = loss + F.cross_entropy(domains, train.domains[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    classes, domains, _ = judge(fresh.images, model)
    outdir.mkdir(parents=True, exist_ok=True)
    temporary = outdir / "referee.safetensors.new"
    save_file(model.state_dict(), temporary, metadata={"feature_space": FEATURE_SPACE})
    temporary.replace(outdir / "referee.safetensors")
    (outdir / "referee.safetensors").chmod(0o644)
    record = {
        "feature_space": FEATURE_SPACE,
        "settings": asdict(settings),
        "fonts": HELD_OUT_FONTS,
        "parameters": sum(p.numel() for p in model.parameters()),
        "class_accuracy": round((classes == fresh.labels).float().mean().item(), 4),
        "domain_accuracy": round((domains == fresh.domains).float().mean().item(), 4),
        "validation_glyphs": len(fresh.images),
        "seconds": round(time.perf_counter() - start, 1),
    }
    (outdir / "referee_record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
