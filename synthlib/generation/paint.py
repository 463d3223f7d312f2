"""Paint: rows of a plan -> encoded images, in whole blocks; resizing and encoding happen while the next block is drawn."""

import contextlib
import hashlib
import math
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import pyarrow as pa
import torch

from synthlib.data.datasets import DatasetSpec
from synthlib.data.shards import encode_png
from synthlib.devices import NotFinite, device_named, hardware_name, out_of_memory, require_drawn, require_finite
from synthlib.generation import checkpoints, sampler
from synthlib.generation.conditioning import PoolEmbeddings
from synthlib.generation.noise import CompvisNoise, initial_noise
from synthlib.generation.pipelines import OtherModel, draw_with_pipeline
from synthlib.generation.plan import Group, group_rows, groups
from synthlib.generation.prompts import check_words, prompts_of
from synthlib.generation.resize import check_resize, final_size, resize_images
from synthlib.generation.safety import SafetyChecker, flag, open_safety_checker
from synthlib.inputs import InputError, parameter
from synthlib.names import IMAGE_TRICKS
from synthlib.settings import GenerateSettings

T = TypeVar("T")
ENCODERS = 4  # threads that resize and encode; on a CPU, where drawing needs the cores itself, one
PROBE_FROM = 64  # images; the largest batch that probe_batch tries
SHARD_BYTES = 2**31 - 1  # of pixels; more than Arrow's binary column can hold


class OutOfMemory(InputError):
    """A block does not fit in memory."""


class Encoded(NamedTuple):
    """An image as a shard keeps it: PNG bytes, sha256 of its pixels, whether flagged (None: not asked), fp16 latents if kept."""

    png: bytes
    pixels_sha256: str
    flagged: bool | None
    latents: bytes | None


class Pending(NamedTuple):
    """An image that is drawn and being encoded, one of a block."""

    block: Future
    place: int

    def result(self) -> Encoded:
        """The encoded image; waits for it."""
        return self.block.result()[self.place]

    def came(self) -> bool:
        """Whether its block was encoded without an error; waits for it."""
        return not self.block.cancelled() and self.block.exception() is None


class Painter:
    """Draws rows in whole blocks, and opens the checkpoint only when there is something to draw.

    settings: a plan's own, in which nothing is left to be chosen by the device (see generate.open_plan).
    """

    def __init__(self, settings: GenerateSettings, spec: DatasetSpec) -> None:
        self.settings, self.spec = settings, spec
        self.model: checkpoints.Checkpoint | OtherModel | None = None
        self.text: dict[str, torch.Tensor] = {}
        self.embeddings: PoolEmbeddings | None = None
        self.safety: SafetyChecker | None = None
        self.last: tuple[tuple[Group, int], Future] | None = None
        self.pool = ThreadPoolExecutor(ENCODERS if device_named(settings.device).type == "cuda" else 1)
        self.drawn = 0

    def open(self) -> None:
        """Open the model. InputError for a size that it cannot draw or resize, and for words that it does not know."""
        self._in_memory(self._open)

    def close(self) -> None:
        """Give the model's memory back, also where an error's traceback keeps this painter alive."""
        self.pool.shutdown(cancel_futures=True)
        self.model, self.safety, self.last, self.text, self.noise = None, None, None, {}, {}
        self.embeddings = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _open(self) -> None:
        settings = self.settings
        torch.set_num_threads(settings.threads)
        self.model = model = checkpoints.open_checkpoint(
            settings.model,
            settings.revision,
            settings.device,
            settings.precision,
            settings.compile == "on",
            settings.lossy_vae,
        )
        self.size = (settings.height or model.height, settings.width or model.width)
        if settings.safety == "flag":
            self.safety = open_safety_checker(model.folder, model.device)
        check_resize(*self.size, settings.resize)
        pixels = 3 * math.prod(final_size(*self.size, settings.resize))
        if settings.shard_rows * pixels > SHARD_BYTES:
            raise InputError(
                f"{parameter('shard_rows')} is {settings.shard_rows}; expected at most {SHARD_BYTES // pixels} for images of "
                "this size, which one Parquet file can hold."
            )
        if isinstance(model, OtherModel):
            _refuse_what_pipelines_cannot(settings)
            return
        if settings.trick in IMAGE_TRICKS:
            checkpoints.check_size(model, *self.size)
            self.embeddings = PoolEmbeddings(model, self.spec.pool)
            return
        prompts = prompts_of(self.spec, settings.trick, settings.images_per_class)
        check_words(model.folder, prompts)
        checkpoints.check_length(model, prompts)
        checkpoints.check_size(model, *self.size)
        embeddings = checkpoints.encode_prompts(model, ["", *prompts])
        finite = torch.isfinite(embeddings).all()
        require_drawn(finite, "text embeddings", model.folder, embeddings.dtype, model.device)
        self.text = dict(zip(["", *prompts], embeddings.split(1), strict=True))
        if settings.noise == "compvis":
            shape = sampler.latent_shape(model, *self.size)
            given = (shape, settings.num_inference_steps, model.device)
            self.noise = {
                settings.seed + r: CompvisNoise(settings.seed + r, *given) for r in range(settings.replicates)
            }

    def fill(
        self,
        images: list[Encoded | Pending | None],
        rows: pa.Table,
        after_step: Callable[[float], None] = lambda images: None,
    ) -> Iterator[int]:
        """Put the images of some rows where `images` has None; after each block, how many came.

        after_step is called after each step of a block, with the number of images that it comes to.
        """
        missing = [i for i, image in enumerate(images) if image is None]
        if missing and self.model is None:
            self.open()
        for group, block, members in _blocks(missing, rows, self.settings.batch_size):
            n = len(members)
            drawn = self._block(group, block, lambda share, n=n: after_step(share * n))
            for i, index in members:
                images[i] = Pending(drawn, index - block * self.settings.batch_size)
            self.drawn += n
            yield n

    def _block(self, group: Group, block: int, after_step: Callable[[float], None]) -> Future:
        """One block: `batch_size` consecutive rows of a group, always the same computation, whoever asks for a part of it."""
        if self.last is None or self.last[0] != (group, block):
            first = block * self.settings.batch_size
            rows = group_rows(group, self.settings, self.spec, first, first + self.settings.batch_size)
            pixels, latents = self._in_memory(self._draw, rows, after_step)
            keep = latents if self.settings.keep_latents else None
            job = self.pool.submit(self._in_memory, _encode, pixels, keep, self.settings.resize, self.safety)
            self.last = ((group, block), job)
        return self.last[1]

    def _draw(
        self, rows: pa.Table, after_step: Callable[[float], None] = lambda share: None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pixels uint8 [B, H, W, 3] and, of our sampler, latents [B, C, h, w]. NotFinite: some are nan or infinite."""
        settings, model = self.settings, self.model
        guidance = torch.from_numpy(rows["guidance_scale"].to_numpy().copy())
        prompts, seeds = rows["prompt"].to_pylist(), rows["seed"].to_pylist()
        if isinstance(model, OtherModel):
            given = (prompts, guidance, seeds, settings.num_inference_steps, *self.size)
            return draw_with_pipeline(model, *given, after_step), None
        if settings.noise == "compvis":
            places = list(zip(rows["iteration"].to_pylist(), rows["slot"].to_pylist(), strict=True))
            noise = self.noise[seeds[0]].at(places)
        else:
            noise = initial_noise(seeds, sampler.latent_shape(model, *self.size))
        if self.embeddings:
            given, nothing = self.embeddings.at(rows), self.embeddings.nothing()
        else:
            given, nothing = torch.cat([self.text[prompt] for prompt in prompts]), self.text[""]
        steps, until = settings.num_inference_steps, settings.lossy_guidance_until
        latents = sampler.denoise(model, given, nothing, guidance, noise, steps, until, after_step)
        return sampler.decode(model.vae, latents, settings.noise == "compvis", model.folder), latents

    def _in_memory(self, work: Callable[..., T], *given: object) -> T:
        """What `work` gives; OutOfMemory, in one line, where memory does not suffice for it."""
        try:
            return work(*given)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold activations, which would stay on the device
        less = self.settings.batch_size // 2
        advice = f"set {parameter('batch_size')} {less}, or let `synthlib generate --probe-batch` find one"
        advice = advice if less else f"use {parameter('precision')} float16, or smaller images"
        raise OutOfMemory(  # not within the handler, so that it does not hold on to what ran out
            f"out of memory on {hardware_name(self.settings.device)} with {parameter('batch_size')} {self.settings.batch_size}; "
            f"expected a batch that fits: {advice}."
        )


def _refuse_what_pipelines_cannot(settings: GenerateSettings) -> None:
    ours = {"noise": "per_image", "keep_latents": False, "lossy_guidance_until": 1.0, "lossy_vae": ""}
    for name, value in ours.items():
        if getattr(settings, name) != value:
            raise InputError(
                f"{parameter(name)} is {getattr(settings, name)!r}, which only checkpoints of Stable Diffusion v1's kind can do; "
                f"expected {value!r} for this one."
            )


def _encode(
    pixels: torch.Tensor, latents: torch.Tensor | None, resize: str, safety: SafetyChecker | None
) -> list[Encoded]:
    """A block as its shard keeps it: flagged at full size, resized, hashed, encoded."""
    flagged = flag(safety, pixels) if safety else [None] * len(pixels)
    images = resize_images(pixels, resize).numpy()
    kept = [None] * len(pixels)
    if latents is not None:
        latents = latents.half().cpu()
        finite = torch.isfinite(latents).all()
        require_finite(finite, "some latents, in the float16 that they are kept in,", "set keep_latents to False")
        kept = latents.numpy()
    return [
        Encoded(
            encode_png(image),
            hashlib.sha256(image.tobytes()).hexdigest(),
            found,
            None if latent is None else latent.tobytes(),
        )
        for image, found, latent in zip(images, flagged, kept, strict=True)
    ]


def _blocks(missing: list[int], rows: pa.Table, size: int) -> Iterator[tuple[Group, int, list[tuple[int, int]]]]:
    """The blocks that some rows lie in, in order: (group, number of the block, [(row number, index in the group)])."""
    columns = [rows[name].to_pylist() for name in ("replicate", "trick", "class", "index")]
    blocks: dict[tuple[Group, int], list[tuple[int, int]]] = {}
    for number in missing:
        replicate, trick, class_name, index = (column[number] for column in columns)
        group = Group(replicate, trick, class_name, 0)
        blocks.setdefault((group, index // size), []).append((number, index))
    for (group, block), members in blocks.items():
        yield group, block, members


def probe_batch(settings: GenerateSettings, spec: DatasetSpec) -> int:
    """The largest batch (64, 32, ... 1 images) that a block of this plan fits in memory with. Nothing is kept.

    settings: a plan's own, see Painter. No larger than what is wanted of a prompt needs. One step of diffusion and the decoding
    need as much memory as forty do.
    OutOfMemory where not even one image fits.
    """
    group = max(groups(settings, spec), key=lambda group: group.count)
    size = min(PROBE_FROM, 2 ** math.ceil(math.log2(group.count)))
    # Every image guided: that needs the most. No compilation: it would be for sizes that are then not used.
    most = replace(settings, num_inference_steps=1, compile="off", guidance_draw="uniform", batch_size=size)
    painter = Painter(most, spec)
    try:
        painter.open()
        while True:
            painter.settings = replace(most, batch_size=size)
            try:
                with contextlib.suppress(NotFinite):  # of one step's noise; what is kept is looked at when it is drawn
                    painter._in_memory(painter._draw, group_rows(group, painter.settings, spec, 0, size))
                return size
            except OutOfMemory:
                if size == 1:
                    raise
            size //= 2
            if painter.model.device.type == "cuda":
                torch.cuda.empty_cache()
    finally:
        painter.close()
