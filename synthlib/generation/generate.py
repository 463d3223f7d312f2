"""Generate: the rows of a plan -> shards of images. Whatever exists already is not drawn again."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from synthlib import digests, paths, receipts
from synthlib.data.datasets import DatasetSpec, read_spec
from synthlib.data.shards import encode_png, read_table, shard_bytes
from synthlib.devices import hardware_name
from synthlib.generation import checkpoints
from synthlib.generation.checkpoints import Checkpoint
from synthlib.generation.plan import Group, group_rows, n_rows, plan_rows
from synthlib.generation.prompts import prompts_of
from synthlib.locks import claim
from synthlib.progress import progress
from synthlib.settings import GenerateSettings, InputError

PLAN_FILE = "plan.json"
# What an image does not depend on: where it goes, how many others there are, how they are cut into shards.
LAYOUT = (
    "run_dir",
    "dataset",
    "classes",
    "domains",
    "trick",
    "images_per_class",
    "replicates",
    "shard_rows",
    "reuse_dirs",
    "replace",
)


def draw_settings(settings: GenerateSettings, spec: DatasetSpec) -> dict[str, Any]:
    """All that decides an image beside its row: the settings of a shard's key."""
    kept = {name: value for name, value in asdict(settings).items() if name not in LAYOUT}
    data = {"dataset": spec.name, "templates": spec.templates, "domains": list(spec.domains)}
    return kept | data | {"device": hardware_name(settings.device), "model": receipts.model_digest(settings.model)}


@dataclass(frozen=True)
class Plan:
    """A plan that may be drawn into its folder: `open_plan` has checked it."""

    settings: GenerateSettings
    spec: DatasetSpec
    folder: Path
    key: receipts.FileKey

    def rows(self, first: int, last: int) -> pa.Table:
        """Rows `first` to `last` (not included), see plan.group_rows for the columns."""
        return plan_rows(self.settings, self.spec, first, min(last, len(self)))

    def __len__(self) -> int:
        return n_rows(self.settings, self.spec)


def open_plan(settings: GenerateSettings) -> Plan:
    """Check settings against data set, checkpoint and folder; nothing is written.

    Raises InputError for an unknown data set, class or domain, a folder that is no checkpoint, and an output folder that
    holds another plan's shards (unless `replace` is set).
    """
    spec = read_spec(settings.dataset, settings.classes, settings.domains)
    checkpoints.model_folder(settings.model)
    folder = paths.resolve(settings.run_dir)
    plan = Plan(settings, spec, folder, receipts.file_key("shards", draw_settings(settings, spec)))
    stored, own = receipts.read_json(folder / PLAN_FILE), _description(plan)
    if stored != own and any(folder.glob("shard-*.parquet")) and not settings.replace:
        differs = ", ".join(name for name in own if not stored or stored.get(name) != own[name])
        raise InputError(
            f"{folder} holds another plan's shards (other {differs}); give another folder, or delete that one."
        )
    return plan


def _description(plan: Plan) -> dict[str, Any]:
    """What a folder's plan file says: enough to know whether shards found there belong to a plan."""
    return {"draw settings": plan.key.settings, "trick": plan.settings.trick, "classes": plan.spec.classes}


def generate(plan: Plan) -> list[Path]:
    """Draw what is missing of a plan; return its shards in order, then its plan file.

    Rows that another shard of the same key holds (of an earlier call, another shard layout, or `reuse_dirs`) are copied.
    Several processes may work on one folder: each claims a shard at a time. Raises InputError for a size that the
    checkpoint cannot draw and for words it does not know.
    """
    settings, spec, folder, key = plan.settings, plan.spec, plan.folder, plan.key
    same_plan = receipts.read_json(folder / PLAN_FILE) == _description(plan)
    receipts.write_json(folder / PLAN_FILE, _description(plan))
    wanted = {}
    for number, first in enumerate(range(0, len(plan), settings.shard_rows)):
        rows = plan.rows(first, first + settings.shard_rows)
        content = [key.settings, list(spec.classes), rows.to_pydict()]
        wanted[folder / f"shard-{number:05d}-{digests.sha256_json(content)[:8]}.parquet"] = rows
    missing = [path for path in wanted if not receipts.is_current(path, key)]
    existing = _Existing(folder, settings.reuse_dirs, key) if missing else None
    painter = _Painter(settings, spec)

    def make(path: Path, wait: bool) -> bool:
        """Make one shard, unless another worker does or did; False if it is busy with it."""
        lock = claim(folder / f".{path.name}.lock", wait)
        if lock is None:
            return False
        with lock:
            if not receipts.is_current(path, key):
                rows, start = wanted[path], time.monotonic()
                images = painter.fill(existing.of(rows), rows)
                receipts.write_keyed(path, shard_bytes(rows, images, list(spec.classes)), key, time.monotonic() - start)
        return True

    what = f"{spec.name} {settings.trick}"
    busy = [path for path in progress(missing, what, unit="shard") if not make(path, wait=False)]
    for path in busy:  # made by now, or left by a worker that died
        make(path, wait=True)
    _remove_others(folder, wanted, key if same_plan else None)
    print(f"{len(plan)} images: {painter.drawn} drawn, {len(plan) - painter.drawn} there already.")
    return [*wanted, folder / PLAN_FILE]


def _remove_others(folder: Path, wanted: dict[Path, pa.Table], key: receipts.FileKey | None) -> None:
    """Remove shards of another plan, of an earlier layout or of older code, and old lock files.

    Shards of this plan (with its `key`) that hold images beyond today's count stay, for when more are asked for again.
    """
    others = [path for path in folder.glob("shard-*.parquet") if path not in wanted]
    rows = {row for table in wanted.values() for row in _identities(table)} if others else set()
    for path in others:
        if key is None or not receipts.is_current(path, key) or rows.issuperset(_identities(read_table(path))):
            path.with_name(f"{path.name}.key").unlink(missing_ok=True)
            path.unlink()
    for path in folder.glob(".shard-*.lock*"):
        path.unlink(missing_ok=True)


class _Existing:
    """Images that are there already, by their rows, from shards of the same key, here and in `reuse_dirs`."""

    def __init__(self, folder: Path, reuse_dirs: list[str], key: receipts.FileKey) -> None:
        self.place: dict[tuple, tuple[Path, int]] = {}
        self.opened: tuple[Path, list[dict]] | None = None
        for path in (p for d in (folder, *map(paths.resolve, reuse_dirs)) for p in sorted(d.glob("shard-*.parquet"))):
            if receipts.is_current(path, key):
                for number, row in enumerate(_identities(read_table(path))):
                    self.place[row] = (path, number)

    def of(self, rows: pa.Table) -> list[bytes | None]:
        """Encoded images of some rows, None where there is none."""
        found: list[bytes | None] = [None] * len(rows)
        places = [(self.place.get(row), i) for i, row in enumerate(_identities(rows))]
        for (path, row), i in sorted(place for place in places if place[0]):
            if self.opened is None or self.opened[0] != path:
                self.opened = (path, read_table(path)["image"].to_pylist())
            found[i] = self.opened[1][row]["bytes"]
        return found


def _identities(rows: pa.Table) -> list[tuple]:
    """What makes each row's image its own, beside the settings that all rows share."""
    return list(
        zip(*(rows[name].to_pylist() for name in ("image_id", "prompt", "guidance_scale", "seed")), strict=True)
    )


class _Painter:
    """Draws rows in whole blocks, and opens the checkpoint only when there is something to draw."""

    def __init__(self, settings: GenerateSettings, spec: DatasetSpec) -> None:
        self.settings, self.spec = settings, spec
        self.checkpoint: Checkpoint | None = None
        self.text: dict[str, torch.Tensor] = {}
        self.last: tuple[tuple[Group, int], list[bytes]] | None = None
        self.drawn = 0

    def _open(self) -> None:
        torch.set_num_threads(self.settings.threads)
        self.checkpoint = checkpoints.open_checkpoint(
            self.settings.model, self.settings.device, self.settings.precision
        )
        prompts = prompts_of(self.spec, self.settings.trick, self.settings.images_per_class)
        checkpoints.check_words(self.checkpoint, prompts)
        height, width = self.settings.height or self.checkpoint.height, self.settings.width or self.checkpoint.width
        checkpoints.check_size(self.checkpoint, height, width)
        self.size = (height, width)
        embeddings = checkpoints.encode_prompts(self.checkpoint, ["", *prompts])
        self.text = dict(zip(["", *prompts], embeddings.split(1), strict=True))

    def fill(self, images: list[bytes | None], rows: pa.Table) -> list[bytes]:
        """Draw the images that are None among those of some rows."""
        missing = [i for i, image in enumerate(images) if image is None]
        if missing and self.checkpoint is None:
            self._open()
        for group, block, members in _blocks(missing, rows, self.settings.batch_size):
            drawn = self._block(group, block)
            for i, index in members:
                images[i] = drawn[index - block * self.settings.batch_size]
        self.drawn += len(missing)
        return images

    def _block(self, group: Group, block: int) -> list[bytes]:
        """One block: `batch_size` consecutive rows of a group, always the same computation, whoever asks for a part of it."""
        from synthlib.generation.sampler import draw

        if self.last is None or self.last[0] != (group, block):
            first = block * self.settings.batch_size
            rows = group_rows(group, self.settings, self.spec, first, first + self.settings.batch_size)
            text = torch.cat([self.text[prompt] for prompt in rows["prompt"].to_pylist()])
            guidance = torch.from_numpy(rows["guidance_scale"].to_numpy().copy())
            steps, seeds = self.settings.num_inference_steps, rows["seed"].to_pylist()
            pixels = draw(self.checkpoint, text, self.text[""], guidance, seeds, steps, *self.size)
            self.last = ((group, block), [encode_png(image) for image in pixels.numpy()])
        return self.last[1]


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
