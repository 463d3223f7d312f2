"""Does the embedded model do its job? Samples judged by the referee, against pass marks set before it was trained.

The judge learned from held-out fonts and seeds. Real digits play no part in any mark.
"""

import json
import time
from pathlib import Path

import torch
from torch import Tensor

from synthlib.devices import require_drawn
from synthlib.evaluation.diversity import vendi
from synthlib.generation.checkpoints import Checkpoint, encode_prompts, open_checkpoint
from synthlib.generation.sampler import draw
from synthlib.pocket.glyphs import CLASSES, DOMAINS, HELD_OUT_FONTS, TRAINING_FONTS, Glyphs, draw_glyphs
from synthlib.pocket.referee import FEATURE_SPACE, Referee, judge, load_referee

FOLDER = Path(__file__).parent
CLASS_TEMPLATES = ("{class}", "an image of {class}", "an image of a {class}")
DOMAIN_TEMPLATE = "a {domain} of a {class}"
STEPS, BATCH = 20, 100
HIGH, LOW = 7.5, 1.5  # guidance scales
MARKS = {
    "class_agreement_percent": 90.0,  # at least, at guidance 7.5
    "vendi_share_of_glyphs": 0.5,  # at least, at guidance 1.5; and less at 7.5 than at 1.5
    "domain_agreement_percent": 70.0,  # at least, multi-domain prompts at guidance 7.5
    "near_copies_percent": 5.0,  # at most
}
CHECK_SEED = 5_000  # apart from the seeds of the corpus and of the referee


def open_weights(folder: Path = FOLDER / "weights") -> Checkpoint:
    """Open a checkpoint folder for sampling."""
    return open_checkpoint(str(folder))


def sample(checkpoint: Checkpoint, prompts: list[str], guidance_scale: float, seed: int, steps: int = STEPS) -> Tensor:
    """One image for each prompt, uint8 [N, 3, 32, 32]: DDIM, eta 0; image i's noise comes from seed + i alone."""
    texts = list(dict.fromkeys(["", *prompts]))
    text = encode_prompts(checkpoint, texts)
    place = torch.tensor([texts.index(prompt) for prompt in prompts])
    images = [
        draw(
            checkpoint,
            text[part],
            text[:1],
            torch.full((len(part),), guidance_scale),
            [seed + start * BATCH + i for i in range(len(part))],
            steps,
            checkpoint.height,
            checkpoint.width,
        )
        for start, part in enumerate(place.split(BATCH))
    ]
    return torch.cat(images).permute(0, 3, 1, 2).contiguous()


def vendi_per_class(features: Tensor, labels: Tensor, n: int) -> float:
    """Mean over the classes of the Vendi score of the first n rows of each."""
    return sum(vendi(features[labels == k][:n]) for k in range(len(CLASSES))) / len(CLASSES)


@torch.no_grad()
def nearest_glyph(images: Tensor, glyphs: Tensor) -> Tensor:
    """Root mean square pixel difference (0 to 255), at 16x16, of each image to the nearest of `glyphs`: float32 [N]."""
    small = [torch.nn.functional.avg_pool2d(x.float(), 2).flatten(1) for x in (images, glyphs)]
    nearest = torch.cat([torch.cdist(part, small[1]).amin(1) for part in small[0].split(200)])
    return nearest / small[0].shape[1] ** 0.5


@torch.no_grad()
def reconstruct(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    """Images as the autoencoder gives them back, so that glyphs are compared with samples at equal sharpness."""
    decoded = [checkpoint.vae(part.float() / 127.5 - 1).sample for part in images.split(BATCH)]
    pixels = torch.cat(decoded)
    require_drawn(torch.isfinite(pixels).all(), "pixels", checkpoint.folder, pixels.dtype, pixels.device)
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def check(
    folder: Path = FOLDER, corpus_glyphs: int = 40_000, corpus_seed: int = 0, per_prompt: int = 20, threads: int = 1
) -> dict:
    """Sample, judge, write check.json and contact_sheet.png into `folder`; each mark says whether it is passed."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    checkpoint, referee = open_weights(folder / "weights"), load_referee(folder / "referee.safetensors")
    labels = torch.arange(len(CLASSES)).repeat(per_prompt)
    held_out = draw_glyphs(6 * len(labels), CHECK_SEED, HELD_OUT_FONTS)
    judged = {HIGH: [], LOW: []}
    agreement = {}
    for scale in (HIGH, LOW):
        for number, template in enumerate(CLASS_TEMPLATES):
            prompts = [template.format_map({"class": CLASSES[k]}) for k in labels]
            images = sample(checkpoint, prompts, scale, CHECK_SEED + 10_000 * number)
            found, _, features = judge(images, referee)
            judged[scale].append((images, features))
            if scale == HIGH:
                agreement[template] = _percent(found == labels)
    domains = torch.arange(len(DOMAINS)).repeat_interleave(len(CLASSES)).repeat(max(1, per_prompt // 4))
    classes = torch.arange(len(CLASSES)).repeat(len(domains) // len(CLASSES))
    pairs = list(zip(classes.tolist(), domains.tolist(), strict=True))
    prompts = [DOMAIN_TEMPLATE.format_map({"class": CLASSES[k], "domain": DOMAINS[d]}) for k, d in pairs]
    multi = sample(checkpoint, prompts, HIGH, CHECK_SEED + 50_000)
    found, found_domain, _ = judge(multi, referee)
    agreement[DOMAIN_TEMPLATE] = _percent(found == classes)
    contact_sheet(multi[:100], folder / "contact_sheet.png")

    every = labels.repeat(len(CLASS_TEMPLATES))
    n = min(len(every) // len(CLASSES), *(int((held_out.labels == k).sum()) for k in range(len(CLASSES))))
    vendi = {
        "guidance_7.5": vendi_per_class(torch.cat([f for _, f in judged[HIGH]]), every, n),
        "guidance_1.5": vendi_per_class(torch.cat([f for _, f in judged[LOW]]), every, n),
        "held_out_glyphs": vendi_per_class(judge(held_out.images, referee)[2], held_out.labels, n),
    }
    copies = near_copies(
        checkpoint, torch.cat([multi, *(i for i, _ in judged[HIGH])]), held_out, corpus_glyphs, corpus_seed
    )
    mean = sum(agreement.values()) / len(agreement)
    share, domain_agreement = vendi["guidance_1.5"] / vendi["held_out_glyphs"], _percent(found_domain == domains)
    by_class = {CLASSES[k]: _percent(found[classes == k] == k) for k in range(len(CLASSES))}
    by_domain = {DOMAINS[d]: _percent(found_domain[domains == d] == d) for d in range(len(DOMAINS))}
    result = {
        "passed": {
            "class_agreement": mean >= MARKS["class_agreement_percent"],
            "diversity": share >= MARKS["vendi_share_of_glyphs"] and vendi["guidance_7.5"] < vendi["guidance_1.5"],
            "domain_agreement": domain_agreement >= MARKS["domain_agreement_percent"],
            "not_memorised": copies["near_copies_percent"] <= MARKS["near_copies_percent"],
        },
        "marks": MARKS,
        "class_agreement_percent": {
            "mean": round(mean, 2),
            "by_template": agreement,
            "multi_domain_by_class": by_class,
        },
        "vendi_per_class": {name: round(value, 3) for name, value in vendi.items()} | {"n_per_class": n},
        "vendi_share_of_glyphs": round(share, 3),
        "domain_agreement_percent": {"mean": domain_agreement, "by_domain": by_domain},
        "not_memorised": copies,
        "referee": FEATURE_SPACE,
        "sampler": {"scheduler": "DDIM", "steps": STEPS, "eta": 0, "seed": CHECK_SEED, "batch": BATCH},
        "n": {"class_prompts": len(every), "multi_domain": len(multi), "held_out_glyphs": len(held_out.images)},
        "seconds": round(time.perf_counter() - start, 1),
    }
    (folder / "check.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def near_copies(checkpoint: Checkpoint, images: Tensor, held_out: Glyphs, corpus_glyphs: int, corpus_seed: int) -> dict:
    """Share of images nearer to a training glyph than all but 1 % of held-out glyphs are (`nearest_glyph`)."""
    corpus = draw_glyphs(corpus_glyphs, corpus_seed, TRAINING_FONTS).images
    glyph_distances = nearest_glyph(reconstruct(checkpoint, held_out.images), corpus)
    distances, line = nearest_glyph(images, corpus), glyph_distances.quantile(0.01)
    return {
        "near_copies_percent": _percent(distances < line),
        "distance": "root mean square pixel difference at 16x16; held-out glyphs through the autoencoder",
        "line": round(line.item(), 3),
        "median_held_out": round(glyph_distances.median().item(), 3),
        "median_samples": round(distances.median().item(), 3),
    }


def _percent(hits: Tensor) -> float:
    return round(100 * hits.float().mean().item(), 2)


def contact_sheet(images: Tensor, file: Path, scale: int = 2) -> None:
    """Save 100 images, a row a domain and a column a class, as one labelled PNG."""
    from PIL import Image, ImageDraw

    side, left, top = images.shape[-1] * scale, 120, 16
    sheet = Image.new("RGB", (left + side * len(CLASSES), top + side * len(DOMAINS)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, name in enumerate(CLASSES):
        draw.text((left + side * k + 8, 2), name, fill="black")
    for row, name in enumerate(DOMAINS):
        draw.text((4, top + side * row + side // 2 - 6), name, fill="black")
        for k in range(len(CLASSES)):
            pixels = images[row * len(CLASSES) + k].permute(1, 2, 0).numpy()
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + side * k, top + side * row))
    sheet.save(file)


def agreement_by_real_referee(folder: Path = FOLDER, per_prompt: int = 20, threads: int = 1) -> dict:
    """Agreement of a CNN trained on the real pool with the prompts: reported once, after the weights were frozen.

    It decides nothing; written to check_real.json."""
    from synthlib.data.real import load_real

    torch.set_num_threads(threads)
    judge_of_real = _train_on_pool(load_real("digits", "pool"))
    checkpoint, result = open_weights(folder / "weights"), {}
    labels = torch.arange(len(CLASSES)).repeat(per_prompt)
    for template in (*CLASS_TEMPLATES, DOMAIN_TEMPLATE):
        texts = [
            template.format_map({"class": CLASSES[k], "domain": DOMAINS[(i // len(CLASSES)) % len(DOMAINS)]})
            for i, k in enumerate(labels.tolist())
        ]
        found, _, _ = judge(sample(checkpoint, texts, HIGH, CHECK_SEED + 90_000), judge_of_real)
        result[template] = _percent(found == labels)
    result = {"class_agreement_percent": result, "n_per_template": len(labels), "judge": "CNN trained on the real pool"}
    (folder / "check_real.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _train_on_pool(pool: object, steps: int = 600) -> Referee:
    torch.manual_seed(0)
    model = Referee().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    g = torch.Generator().manual_seed(0)
    from synthlib.pocket.referee import augment

    for _ in range(steps):
        rows = torch.randint(len(pool.images), (64,), generator=g)
        images = pool.images[rows]
        inverted = torch.rand(64, 1, 1, 1, generator=g) < 0.5  # samples come in both polarities
        logits = model(augment(torch.where(inverted, 255 - images, images), g))[0]
        loss = torch.nn.functional.cross_entropy(logits, pool.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
