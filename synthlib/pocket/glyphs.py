"""Drawn glyphs with captions: the corpus that the embedded text-to-image model learns from.

A glyph is a digit of one of matplotlib's fonts, warped, inked and coloured in one of ten captioned styles, 32x32 RGB.
The fonts (DejaVu, STIX, Computer Modern: free licences, in matplotlib's mpl-data/fonts/ttf) are read, never copied.
No photograph, handwriting or data set is used.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The ten CIFAR domains of the paper's code, in its order: "a {domain} of a {class}".
DOMAINS = (
    "photo",
    "drawing",
    "painting",
    "sketch",
    "collage",
    "poster",
    "digital art image",
    "rock drawing",
    "stick figure",
    "3D rendering",
)
# Photos are twice as common as any other style, as in captioned collections; otherwise nothing is preferred.
DOMAIN_WEIGHTS = (2.0,) + (1.0,) * 9
# A caption is drawn independently of the style, except that the last two templates name it.
TEMPLATES = (
    "{class}",
    "an image of {class}",
    "an image of a {class}",
    "a {domain} of {class}",
    "a {domain} of a {class}",
)
TEMPLATE_WEIGHTS = (0.2, 0.15, 0.15, 0.1, 0.4)

TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmmi10",
    "cmtt10",
)
# Never drawn for the generator; the referee learns from these only. Serif, sans, mono and italic are all among them.
HELD_OUT_FONTS = ("DejaVuSans-BoldOblique", "DejaVuSerif-BoldItalic", "STIXGeneralBol", "cmss10", "cmti10")

SIZE = 32  # pixels of an image's side
FINE = 64  # glyphs are inked at twice the size and averaged down
FIELD, GLYPH = 96, 64  # side of a distance field, and the height of the glyph in it
BLOCK = 500  # glyphs drawn together; a block's random numbers depend on the seed and its index only
# Glyphs fill 60 to 95 % of the frame's height, so that a tightly framed digit (28 of 32 pixels) is in range.
HEIGHT_LOW, HEIGHT_HIGH = 0.60, 0.95


@dataclass(frozen=True)
class Glyphs:
    """Images uint8 [N, 3, 32, 32], labels and domains int64 [N] (indices into CLASSES and DOMAINS), N captions."""

    images: Tensor
    labels: Tensor
    domains: Tensor
    captions: list[str]


def draw_glyphs(count: int, seed: int, fonts: tuple[str, ...] = TRAINING_FONTS) -> Glyphs:
    """`count` captioned glyphs; the same seed, count and fonts give the same glyphs, and a longer corpus begins with
    a shorter one's whole blocks."""
    parts = [_draw_block(seed, block, fonts) for block in range(-(-count // BLOCK))]
    images, labels, domains = (torch.cat(column)[:count] for column in zip(*(part[:3] for part in parts), strict=True))
    captions = [caption for part in parts for caption in part[3]]
    return Glyphs(images, labels, domains, captions[:count])


def _draw_block(seed: int, block: int, fonts: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    g = torch.Generator().manual_seed(seed * 1_000_003 + block)
    labels = torch.randint(len(CLASSES), (BLOCK,), generator=g)
    domains = torch.multinomial(torch.tensor(DOMAIN_WEIGHTS), BLOCK, replacement=True, generator=g)
    templates = torch.multinomial(torch.tensor(TEMPLATE_WEIGHTS), BLOCK, replacement=True, generator=g)
    font = torch.randint(len(fonts), (BLOCK,), generator=g)
    fields = distance_fields(fonts)[font, labels]
    images = torch.empty(BLOCK, 3, SIZE, SIZE, dtype=torch.uint8)
    for index, name in enumerate(DOMAINS):
        rows = (domains == index).nonzero().flatten()
        if len(rows):
            fine = STYLES[name](fields[rows], g).clamp(0, 1)
            images[rows] = (F.avg_pool2d(fine, FINE // SIZE) * 255).round().to(torch.uint8)
    captions = [
        TEMPLATES[template].format_map({"class": CLASSES[label], "domain": DOMAINS[domain]})
        for template, label, domain in zip(templates.tolist(), labels.tolist(), domains.tolist(), strict=True)
    ]
    return images, labels, domains, captions


# --- shapes ----------------------------------------------------------------------------------------------------------


@cache
def distance_fields(fonts: tuple[str, ...]) -> Tensor:
    """Float32 [fonts, 10, 2, FIELD, FIELD]: distance to the outline (negative inside) and to the skeleton, both in
    glyph heights. Thresholding the first gives the font's shape at any weight, the second a pen line of any width."""
    return torch.stack([torch.stack([_digit_fields(font, digit) for digit in "0123456789"]) for font in fonts])


def _digit_fields(font: str, digit: str) -> Tensor:
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont
    from scipy.ndimage import distance_transform_edt

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    canvas = Image.new("L", (400, 400))
    ImageDraw.Draw(canvas).text((100, 60), digit, font=ImageFont.truetype(str(path), 200), fill=255)
    tight = canvas.crop(canvas.getbbox())
    width = min(round(tight.width * GLYPH / tight.height), FIELD - 8)
    ink = np.zeros((FIELD, FIELD), bool)
    top, left = (FIELD - GLYPH) // 2, (FIELD - width) // 2
    ink[top : top + GLYPH, left : left + width] = np.asarray(tight.resize((width, GLYPH), Image.BILINEAR)) > 127
    outline = distance_transform_edt(~ink) - distance_transform_edt(ink)
    skeleton = distance_transform_edt(~thin(ink))
    return torch.from_numpy(np.stack([outline, skeleton]) / GLYPH).float()


def thin(ink: np.ndarray) -> np.ndarray:
    """The one-pixel skeleton of a boolean image (Zhang and Suen 1984)."""
    ink = ink.copy()
    while True:
        removed = 0
        for first in (True, False):
            p = np.pad(ink, 1).astype(np.int8)
            # the eight neighbours, clockwise from north
            n = [p[:-2, 1:-1], p[:-2, 2:], p[1:-1, 2:], p[2:, 2:], p[2:, 1:-1], p[2:, :-2], p[1:-1, :-2], p[:-2, :-2]]
            count = sum(n)
            turns = sum((n[i] == 0) & (n[(i + 1) % 8] == 1) for i in range(8))
            if first:
                ends = (n[0] * n[2] * n[4] == 0) & (n[2] * n[4] * n[6] == 0)
            else:
                ends = (n[0] * n[2] * n[6] == 0) & (n[0] * n[4] * n[6] == 0)
            drop = ink & (count >= 2) & (count <= 6) & (turns == 1) & ends
            ink &= ~drop
            removed += int(drop.sum())
        if not removed:
            return ink


def uniform(g: torch.Generator, n: int, low: float, high: float) -> Tensor:
    """Float32 [n, 1, 1, 1], uniform in [low, high)."""
    return torch.rand(n, 1, 1, 1, generator=g) * (high - low) + low


def smooth_noise(g: torch.Generator, n: int, rows: int, columns: int, channels: int = 1) -> Tensor:
    """Normal noise on a rows x columns grid, blown up to FINE x FINE: [n, channels, FINE, FINE]."""
    coarse = torch.randn(n, channels, rows, columns, generator=g)
    return F.interpolate(coarse, size=(FINE, FINE), mode="bicubic", align_corners=True)


def warp(fields: Tensor, g: torch.Generator) -> Tensor:
    """Fields [n, 2, FIELD, FIELD] seen through a random pose: size, place, slant, turn, stretch, perspective and an
    elastic bend; distances [n, 2, FINE, FINE] in fine pixels."""
    n = len(fields)
    height, stretch = uniform(g, n, HEIGHT_LOW, HEIGHT_HIGH), uniform(g, n, 0.8, 1.3)
    slant, turn = uniform(g, n, -0.35, 0.35), torch.randn(n, 1, 1, 1, generator=g) * 0.12
    axis = (torch.arange(FINE) + 0.5) / FINE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x = x[None, None] - uniform(g, n, -1, 1) * (1 - 0.7 * height) * 0.8
    y = y[None, None] - uniform(g, n, -1, 1) * (1 - height)
    bend = smooth_noise(g, n, 4, 4, 2) * uniform(g, n, 0.0, 0.07)
    x, y = x + bend[:, :1], y + bend[:, 1:]
    depth = 1 + uniform(g, n, -0.15, 0.15) * x + uniform(g, n, -0.15, 0.15) * y
    x, y = x / depth, y / depth
    x, y = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    x = (x + slant * y) / stretch
    grid = torch.cat([x, y], 1) * (GLYPH / FIELD) / height
    seen = F.grid_sample(fields, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    return seen * height * FINE


def ink_mask(distances: Tensor, g: torch.Generator, low: float, high: float, line: float = 0.5) -> Tensor:
    """Coverage [n, 1, FINE, FINE] in 0..1. A share `line` is a pen line `low` to `high` fine pixels wide, the rest
    the font's own outline, a little lighter or bolder."""
    n = len(distances)
    pen = distances[:, 1:] - uniform(g, n, low, high) / 2
    font = distances[:, :1] - uniform(g, n, -1.0, 2.0)
    return torch.sigmoid(-1.5 * torch.where(uniform(g, n, 0, 1) < line, pen, font))


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [n, 3, 1, 1] of hue (turns), saturation and value, each [n, 1, 1, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + hue * 6) % 6
    return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)


def colour_pair(
    g: torch.Generator, n: int, saturation: tuple[float, float], light_ink: float, hue: tuple[float, float] = (0, 1)
) -> tuple[Tensor, Tensor]:
    """Ink and ground colours [n, 3, 1, 1], one light and one dark; the ink is the light one with chance `light_ink`."""
    light = hsv(uniform(g, n, *hue), uniform(g, n, *saturation) * 0.6, uniform(g, n, 0.75, 1.0))
    dark = hsv(uniform(g, n, *hue), uniform(g, n, *saturation), uniform(g, n, 0.05, 0.4))
    swap = uniform(g, n, 0, 1) < light_ink
    return torch.where(swap, light, dark), torch.where(swap, dark, light)


def blend(mask: Tensor, over: Tensor, under: Tensor) -> Tensor:
    """`over` where the mask is 1, `under` where it is 0."""
    return under + mask * (over - under)


def blur(image: Tensor, radius: int) -> Tensor:
    """Two box blurs of side 2 * radius + 1."""
    for _ in range(2):
        image = F.avg_pool2d(F.pad(image, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)
    return image


def shift(mask: Tensor, x: int, y: int) -> Tensor:
    """The mask moved right by x and down by y fine pixels."""
    return F.pad(mask, [x, 0, y, 0])[:, :, :FINE, :FINE]


# --- styles: distance fields [n, 2, FIELD, FIELD] -> RGB [n, 3, FINE, FINE] -------------------------------------------


def photo(fields: Tensor, g: torch.Generator) -> Tensor:
    """Muted colours under uneven light, a soft shadow, out of focus, a little sensor noise."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 4, 11)
    ink, ground = colour_pair(g, n, (0.05, 0.45), 0.5)
    ground = ground * (1 - 0.5 * blur(shift(mask, 3, 3), 2))
    light = 1 + 0.22 * smooth_noise(g, n, 2, 2)
    return blur(blend(mask, ink, ground) * light, 1) + 0.03 * torch.randn(n, 3, FINE, FINE, generator=g)


def drawing(fields: Tensor, g: torch.Generator) -> Tensor:
    """One coloured felt pen on paper, or chalk on a board; flat and clean."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 4, 9, line=0.9)
    ink, ground = colour_pair(g, n, (0.6, 1.0), 0.4)
    return blend(mask, ink, blend(torch.full((n, 1, 1, 1), 0.75), ground.mean(1, keepdim=True), ground))


def painting(fields: Tensor, g: torch.Generator) -> Tensor:
    """Broad brush in strong colours, with streaks of the brush on ink and ground."""
    n = len(fields)
    distances = warp(fields, g)
    mask = ink_mask(distances + smooth_noise(g, n, 16, 16), g, 7, 14)
    ink, ground = colour_pair(g, n, (0.6, 1.0), 0.5)
    streaks = smooth_noise(g, n, 20, 5) * 0.12 + smooth_noise(g, n, 20, 5, 3) * 0.05
    streaks = torch.where(uniform(g, n, 0, 1) < 0.5, streaks, streaks.transpose(2, 3))
    return blend(mask, ink * 1.1, 0.2 + ground * 0.9) + streaks


def sketch(fields: Tensor, g: torch.Generator) -> Tensor:
    """Grey pencil: two loose passes over the shape, hatched; now and then white pencil on dark paper."""
    n = len(fields)
    distances = warp(fields, g)
    passes = [ink_mask(distances + 1.2 * smooth_noise(g, n, 6, 6), g, 2, 4.5, line=1.0) for _ in range(2)]
    axis = torch.arange(FINE)
    hatch = 0.5 + 0.5 * torch.sin((axis[None, :] + axis[:, None])[None, None] * 1.05 + uniform(g, n, 0, 6))
    fill = torch.sigmoid(-1.5 * distances[:, :1]) * hatch * 0.6
    mask = torch.maximum(torch.maximum(*passes), fill)
    level, paper = uniform(g, n, 0.15, 0.4), uniform(g, n, 0.85, 0.98)
    image = blend(mask, level, paper) + 0.03 * torch.randn(n, 1, FINE, FINE, generator=g)
    return torch.where(uniform(g, n, 0, 1) < 0.35, 1 - image, image).expand(-1, 3, -1, -1)


def collage(fields: Tensor, g: torch.Generator) -> Tensor:
    """A cut-out with a pale edge on a ground of four pasted patches."""
    n = len(fields)
    distances = warp(fields, g)
    mask, edge = ink_mask(distances, g, 6, 11, line=0.3), torch.sigmoid(-1.5 * (distances[:, :1] - 4.5))
    axis = (torch.arange(FINE) + 0.5) / FINE
    right = (axis[None, None, None, :] > uniform(g, n, 0.3, 0.7) + 0.2 * (axis[None, None, :, None] - 0.5)).float()
    below = (axis[None, None, :, None] > uniform(g, n, 0.3, 0.7)).float()
    light_ink = uniform(g, n, 0, 1) < 0.5
    value = torch.where(light_ink, 0.42, 0.85)
    patches = [hsv(uniform(g, n, 0, 1), uniform(g, n, 0.4, 0.9), value) for _ in range(4)]
    ground = blend(below, blend(right, patches[0], patches[1]), blend(right, patches[2], patches[3]))
    tint = hsv(uniform(g, n, 0, 1), uniform(g, n, 0.1, 0.8), torch.ones(n, 1, 1, 1))
    ink = tint * torch.where(light_ink, uniform(g, n, 0.9, 1.0), uniform(g, n, 0.1, 0.3))
    border = torch.where(light_ink, 0.08, 0.97)
    return blend(mask, ink, blend(edge, border, ground))


def poster(fields: Tensor, g: torch.Generator) -> Tensor:
    """Flat saturated ground and ink, inside a frame of the ink's colour."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 7, 12, line=0.3)
    hue = uniform(g, n, 0, 1)
    strong = hsv(hue, uniform(g, n, 0.8, 1.0), uniform(g, n, 0.55, 0.95))
    plain = torch.where(uniform(g, n, 0, 1) < 0.5, uniform(g, n, 0.9, 1.0), uniform(g, n, 0.0, 0.08)).expand(n, 3, 1, 1)
    swap = uniform(g, n, 0, 1) < 0.5
    ink, ground = torch.where(swap, strong, plain), torch.where(swap, plain, strong)
    axis = torch.arange(FINE)
    inset = torch.minimum(axis, FINE - 1 - axis)
    frame = (torch.minimum(inset[:, None], inset[None, :])[None, None] < 4).float()
    return blend(torch.maximum(mask, frame.expand(n, -1, -1, -1)), ink, ground)


def digital_art_image(fields: Tensor, g: torch.Generator) -> Tensor:
    """A neon tube that glows on near-black, its hue drifting across; one in four is inverted."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 4, 8, line=0.8)
    drift = uniform(g, n, 0, 1) + uniform(g, n, -0.3, 0.3) * torch.linspace(0, 1, FINE)[None, None, :, None]
    tube = hsv(drift, uniform(g, n, 0.5, 1.0), torch.ones(n, 1, 1, 1))
    ground = hsv(uniform(g, n, 0.55, 0.85), uniform(g, n, 0.6, 1.0), uniform(g, n, 0.05, 0.2))
    image = ground + blur(mask, 5) * tube * 0.9
    image = blend(mask, 0.35 + 0.65 * tube, image)
    return torch.where(uniform(g, n, 0, 1) < 0.25, 1 - image, image)


def rock_drawing(fields: Tensor, g: torch.Generator) -> Tensor:
    """Chalk, ochre or soot rubbed on grained brown stone, with pits where the ink misses."""
    n = len(fields)
    distances = warp(fields, g)
    mask = ink_mask(distances + 1.2 * smooth_noise(g, n, 20, 20), g, 5, 11, line=0.8)
    mask = mask * torch.sigmoid(3 * (smooth_noise(g, n, 24, 24) + 1.3))
    grain = 0.07 * smooth_noise(g, n, 24, 24) + 0.06 * smooth_noise(g, n, 5, 5)
    ground = hsv(uniform(g, n, 0.05, 0.11), uniform(g, n, 0.35, 0.6), uniform(g, n, 0.45, 0.65)) + grain
    pale = hsv(uniform(g, n, 0.08, 0.15), uniform(g, n, 0.05, 0.3), uniform(g, n, 0.85, 1.0))
    dark = hsv(uniform(g, n, 0.0, 0.04), uniform(g, n, 0.4, 0.9), uniform(g, n, 0.08, 0.3))
    return blend(mask * 0.9, torch.where(uniform(g, n, 0, 1) < 0.5, pale, dark), ground)


def stick_figure(fields: Tensor, g: torch.Generator) -> Tensor:
    """The thinnest black line on white, or white on black."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 1.8, 3.2, line=1.0)
    image = 1 - mask
    return torch.where(uniform(g, n, 0, 1) < 0.5, 1 - image, image).expand(-1, 3, -1, -1)


def rendering(fields: Tensor, g: torch.Generator) -> Tensor:
    """A solid letter: bright face, darker sides pushed down and right, on a studio gradient."""
    n = len(fields)
    mask = ink_mask(warp(fields, g), g, 6, 11, line=0.4)
    sides = torch.stack([shift(mask, step, step) for step in range(1, 7)]).amax(0)
    hue, light_ink = uniform(g, n, 0, 1), uniform(g, n, 0, 1) < 0.6
    face = hsv(hue, uniform(g, n, 0.3, 0.8), torch.where(light_ink, 0.98, 0.4))
    side = hsv(hue, uniform(g, n, 0.6, 0.9), torch.where(light_ink, 0.55, 0.12))
    ramp = torch.linspace(-0.12, 0.12, FINE)[None, None, :, None] * torch.sign(uniform(g, n, -1, 1))
    ground = torch.where(light_ink, uniform(g, n, 0.12, 0.3), uniform(g, n, 0.7, 0.85)) + ramp
    image = blend(sides, side, ground * torch.tensor([0.94, 0.98, 1.06]).view(1, 3, 1, 1))
    return blend(mask, face - 0.3 * ramp, image)


STYLES = {
    "photo": photo,
    "drawing": drawing,
    "painting": painting,
    "sketch": sketch,
    "collage": collage,
    "poster": poster,
    "digital art image": digital_art_image,
    "rock drawing": rock_drawing,
    "stick figure": stick_figure,
    "3D rendering": rendering,
}
