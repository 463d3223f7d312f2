"""Generate: the rows of a plan -> shards of images. Whatever exists already is not drawn again, whatever ends it."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthlib import costly, digests, hub, mirror, paths, receipts
from synthlib.data.datasets import DatasetSpec
from synthlib.data.shards import shard_bytes
from synthlib.devices import compile_for, hardware_name, precision_for
from synthlib.files import PLAN, read_json, write_json
from synthlib.generation import checkpoints
from synthlib.generation.conditioning import pool_digest, read_pool
from synthlib.generation.paint import Encoded, Painter, Pending
from synthlib.generation.plan import (
    GUIDANCE_TRICKS,
    Group,
    Slice,
    cut,
    group_rows,
    groups,
    n_rows,
    plan_rows,
    plan_spec,
    slice_rows,
)
from synthlib.generation.prompts import sources
from synthlib.generation.resize import filter_name
from synthlib.generation.reuse import Existing, drawn_files, identities, ranges, read_if_there
from synthlib.inputs import InputError, parameter
from synthlib.interrupts import sigterm_between_pieces, told_in_one_line
from synthlib.locks import claim
from synthlib.names import IMAGE_TRICKS
from synthlib.progress import meter
from synthlib.settings import GenerateSettings, part_numbers

SECONDS_BETWEEN_PARTS = 120  # what is drawn of an unfinished shard is saved so often, should the machine vanish
# What an image does not depend on: where it goes, how many others there are, how they are cut into shards. Or whose content
# counts: prompts are in the rows, of pool images there is a digest in the key of what is conditioned on them.
LAYOUT = (
    "run_dir",
    "set_dir",
    "part",
    "dataset",
    "classes",
    "domains",
    "prompts_file",
    "pool_per_class",
    "real_dir",
    "trick",
    "images_per_class",
    "replicates",
    "shard_rows",
    "reuse_dirs",
    "replace",
)
# What decides the guidance scale of rows, and by that their images; each drawn trick reads only some of it, see _guidance.
GUIDANCE = ("guidance_scale", "min_scale", "max_scale", "guidance_draw")


@dataclass(frozen=True)
class Plan:
    """A plan that may be drawn into its folder: `open_plan` has checked it.

    settings: with commit, precision and compilation as they will be, nothing "auto"; records: what all its rows have in common.
    """

    settings: GenerateSettings
    spec: DatasetSpec
    folder: Path
    key: costly.FileKey
    records: dict[str, Any]

    def rows(self, first: int, last: int) -> pa.Table:
        """Rows `first` to `last` (not included), see plan.group_rows for the columns."""
        return plan_rows(self.settings, self.spec, first, min(last, len(self)))

    def shards(self) -> Iterator[tuple[Path, list[Slice]]]:
        """The file of each shard and the slices of groups whose images it holds, in order."""
        for number, slices in enumerate(cut(self.settings, self.spec, self.settings.shard_rows)):
            words = {part.group.class_name: _words(self.spec, part.group.class_name) for part in slices}
            places = [[p.group.replicate, p.group.source, p.group.class_name, p.first, p.last] for p in slices]
            guidance = {part.group.source: _guidance(self.settings, part.group.source) for part in slices}
            content = [self.key.settings, list(self.spec.classes), words, guidance, places]
            yield self.folder / f"shard-{number:05d}-{digests.sha256_json(content)[:8]}.parquet", slices

    def own_shards(self) -> list[tuple[Path, list[Slice]]]:
        """The shards that `part` names, of 3/8 the third and every eighth from there on; all, if it is empty."""
        place, parts = part_numbers(self.settings.part)
        return list(self.shards())[place - 1 :: parts]

    def __len__(self) -> int:
        return n_rows(self.settings, self.spec)


def open_plan(settings: GenerateSettings) -> Plan:
    """Check settings against data set, checkpoint and folder; of a hub's checkpoint, fetch it.

    Raises InputError for an unknown data set, class or domain, for what is no checkpoint or none for this trick, for prompts
    or pool images that are not there, and for an output folder that holds another plan's shards (unless `replace` is set).
    """
    spec = plan_spec(settings)
    if settings.revision and not hub.is_hub_id(settings.model):
        raise InputError(
            f"{parameter('revision')} is {settings.revision!r}; expected none for a model that is no hub id: leave it out."
        )
    source = hub.fetch(settings.model, settings.revision, settings.safety == "flag")
    ours = checkpoints.for_our_sampler(source)
    checkpoints.check_trick(source, settings.trick)
    if settings.trick in IMAGE_TRICKS:
        spec = replace(spec, pool=read_pool(settings, list(spec.classes)))
    name, commit = hub.label(settings.model, settings.revision)
    settings = replace(
        settings,
        revision=commit,  # a branch may move meanwhile
        precision=precision_for(settings.device, settings.precision, ours),
        compile="on" if ours and compile_for(settings.device, settings.compile) else "off",
    )
    digest = receipts.model_digest(settings.model, settings.revision)
    records = {
        "model": name,
        "revision": commit or f"sha256:{digest[:12]}",
        "scheduler": checkpoints.scheduler_name(source),
        "num_inference_steps": settings.num_inference_steps,
        "precision": settings.precision,
        "device": hardware_name(settings.device),
        "batch_size": settings.batch_size,
        "resize": filter_name(settings.resize),
        "lossy": _lossy(settings),
    }
    pool = pool_digest(spec.pool) if spec.pool else ""
    if pool:
        records["pool"] = f"{settings.pool_per_class} of each class, sha256:{pool[:12]}"
    # All that decides an image beside its row: the settings of a shard's key.
    decides = {name: value for name, value in asdict(settings).items() if name not in (*LAYOUT, *GUIDANCE)}
    decides |= {"dataset": spec.name, "templates": spec.templates, "domains": list(spec.domains)}
    decides |= {"device": records["device"], "model": digest}
    if pool:
        decides["pool"] = pool
    if settings.lossy_vae:
        decides["lossy_vae"] = receipts.model_digest(settings.lossy_vae)
    plan = Plan(
        settings,
        spec,
        paths.resolve(settings.set_dir or settings.run_dir),
        costly.file_key("shards", decides),
        records,
    )
    _refuse_other_plans(plan)
    return plan


def _words(spec: DatasetSpec, class_name: str) -> str | list[str]:
    """What the prompts of a class are made from: its words, or its list of prompts."""
    return list(spec.prompts.get(class_name, ())) or spec.classes[class_name]


def _guidance(settings: GenerateSettings, source: str) -> list:
    """The settings that the guidance of a drawn trick's rows comes from."""
    return [getattr(settings, name) for name in (GUIDANCE[1:] if source in GUIDANCE_TRICKS else GUIDANCE[:1])]


def _lossy(settings: GenerateSettings) -> str:
    """What to record of the lossy options; "none" if there are none."""
    until, vae = settings.lossy_guidance_until, settings.lossy_vae
    used = [f"guided until {until:g} of the steps"] if until < 1 else []
    return ", ".join(used + ([f"VAE {Path(vae).name}"] if vae else [])) or "none"


def _description(plan: Plan) -> dict[str, Any]:
    """What a folder's plan file says: enough to know whether shards found there belong to a plan."""
    drawn = sources(plan.settings.trick, 3)  # however few are wanted now, all parts of a merged trick
    classes = {name: _words(plan.spec, name) for name in plan.spec.classes}
    own = {"draw settings": plan.key.settings, "trick": plan.settings.trick, "classes": classes}
    own["guidance"] = {source: _guidance(plan.settings, source) for source in drawn}
    return own | {name: value for name, value in plan.records.items() if name != "model"}  # a folder may be renamed


def _refuse_other_plans(plan: Plan) -> bool:
    """Whether the folder is this plan's already. InputError where it is another's: its shards are there, or its workers."""
    stored, own = read_json(plan.folder / PLAN), _description(plan)
    if stored == own:
        return True
    others = drawn_files(plan.folder) or [path for path in plan.folder.glob(".shard-*.lock") if _held(path)]
    if others and not plan.settings.replace:
        differs = ", ".join(name for name in own if not stored or stored.get(name) != own[name])
        raise InputError(
            f"{plan.folder} holds another plan's shards (other {differs}); give another folder, or delete that one."
        )
    return False


def _held(path: Path) -> bool:
    """Whether a worker holds a lock file."""
    lock = claim(path, wait=False)
    if lock is not None:
        lock.release()
    return lock is None


@told_in_one_line()
def generate(plan: Plan, made: Callable[[Path], object] = lambda shard: None) -> list[Path]:
    """Draw what is missing of a plan, or of the part of it that the settings name; return these shards, then its plan file.

    made: is called with each shard that is made, or was made meanwhile by another process.

    Rows that another shard of the same key holds (of an earlier call, another shard layout, or `reuse_dirs`) are copied.
    Several processes may work on one folder: each claims a shard at a time. SIGTERM ends it after the block in work, with
    Terminated; what is drawn of an unfinished shard is saved then, as at any other error, and every two minutes. Raises
    InputError for a size that the checkpoint cannot draw, for words it does not know, for a part that has no shards, and where
    memory does not suffice.
    """
    folder, key, settings = plan.folder, plan.key, plan.settings
    shards = plan.own_shards()
    if not shards:
        raise InputError(
            f"part {settings.part} of {folder} has no shards; expected as many parts as it has shards, or fewer."
        )
    with claim(folder / ".plan.lock"):  # one plan a folder, also if two begin at once
        same_plan = _refuse_other_plans(plan)
        if not same_plan:
            write_json(folder / PLAN, _description(plan))
    mirror.keep(folder / PLAN)  # without it shards that come back would be another plan's
    missing = [(path, slices) for path, slices in shards if not costly.is_current(path, key)]
    painter = Painter(settings, plan.spec)
    if missing:
        verified = {path for path, _ in shards} - {path for path, _ in missing}
        existing = Existing([folder, *settings.reuse_dirs], key, verified)
        total = sum(part.last - part.first for _, slices in missing for part in slices)
        with sigterm_between_pieces() as check, meter(f"{plan.spec.name} {settings.trick}", total, "image") as add:

            def make(path: Path, slices: list[Slice], wait: bool) -> bool:
                """Make one shard, unless another worker does or did; False if it is busy with it."""
                check()
                lock = claim(folder / f".{path.name}.lock", wait, check)
                if lock is None:
                    return False
                with lock:
                    if costly.is_current(path, key):
                        add(sum(part.last - part.first for part in slices), True)
                    else:
                        _make_shard(plan, path, slices, existing, painter, check, add)
                made(path)
                return True

            try:
                busy = [(path, slices) for path, slices in missing if not make(path, slices, wait=False)]
                for path, slices in busy:  # made by now, or left by a worker that died
                    make(path, slices, wait=True)
            finally:
                painter.close()
            check()
    if not settings.part:  # another part may still copy images from what is removed
        _remove_others(plan, same_plan)
    images = sum(part.last - part.first for _, slices in shards for part in slices)
    print(f"{images} images: {painter.drawn} drawn, {images - painter.drawn} there already.")
    return [*(path for path, _ in shards), folder / PLAN]


def _make_shard(
    plan: Plan,
    path: Path,
    slices: list[Slice],
    existing: Existing,
    painter: Painter,
    check: Callable[[], None],
    add: Callable[[int, bool], None],
) -> None:
    """Make one shard; whatever ends that early, what is drawn of it stays in a file of its own, which the next try takes."""
    part, start = path.with_name(path.name.replace("shard-", "part-")), time.monotonic()
    existing.look_at(part)  # perhaps another worker left it just now
    before = costly.seconds_to_make(part)
    rows = slice_rows(slices, plan.settings, plan.spec)
    images = [row and Encoded(row["image"]["bytes"], row["pixels_sha256"], row["flagged"], row.get("latents"))
              for row in existing.find(rows)]  # fmt: skip
    saved = there = sum(image is not None for image in images)
    last = start
    add(there, True)

    def write(file: Path, images: list[Encoded | Pending | None]) -> None:
        seconds = before + time.monotonic() - start
        costly.write_keyed(file, _shard_bytes(plan, rows, images), plan.key, seconds)

    ahead = 0.0  # images that steps of the block in work were counted for

    def count_step(images: float) -> None:
        nonlocal ahead
        images = math.floor(images * 1024) / 1024  # exact in binary, so that whole images come to their number
        ahead += images
        add(images, False)

    try:
        for count in painter.fill(images, rows, count_step):
            there += count
            add(count - ahead, False)
            ahead = 0.0
            check()
            if time.monotonic() - last > SECONDS_BETWEEN_PARTS:
                write(part, images)
                saved, last = there, time.monotonic()
        write(path, images)
    except BaseException:
        if there > saved:
            write(part, [image if isinstance(image, Encoded) or (image and image.came()) else None for image in images])
        raise
    costly.remove_keyed(part)


def _shard_bytes(plan: Plan, rows: pa.Table, images: list[Encoded | Pending | None]) -> bytes:
    """A shard file of those rows that have images, with all that is recorded of each."""
    made = [image.result() if isinstance(image, Pending) else image for image in images]
    rows = rows.filter(pa.array([image is not None for image in made]))
    made = [image for image in made if image is not None]
    for name, value in plan.records.items():
        rows = rows.append_column(name, pa.repeat(value, len(rows)))
    rows = rows.append_column("pixels_sha256", pa.array([image.pixels_sha256 for image in made]))
    rows = rows.append_column("flagged", pa.array([image.flagged for image in made], pa.bool_()))
    if plan.settings.keep_latents:
        rows = rows.append_column("latents", pa.array([image.latents for image in made], pa.binary()))
    return shard_bytes(rows, [image.png for image in made], list(plan.spec.classes))


def _remove_others(plan: Plan, same_plan: bool) -> None:
    """Remove shards of another plan, of an earlier layout or of older code, and old lock files.

    Those of this plan that hold images beyond today's count stay, for when more are asked for again.
    """
    if read_json(plan.folder / PLAN) != _description(plan):
        return  # another plan replaced this one meanwhile: what is there is its own
    wanted = {path for path, _ in plan.shards()}
    for path in drawn_files(plan.folder):
        if path not in wanted and not (same_plan and costly.is_current(path, plan.key) and _holds_more(plan, path)):
            costly.remove_keyed(path)
    for path in wanted:  # finished, so that nobody needs their locks; those of a worker with more images stay
        for left in (f".{path.name}.lock", f".{path.name}.lock.owner"):
            path.with_name(left).unlink(missing_ok=True)


def _holds_more(plan: Plan, path: Path) -> bool:
    """Whether a file has rows that today's plan would have if it were larger."""
    table = read_if_there(path)
    if table is None:
        return False
    counted = {(group.replicate, group.source, group.class_name): group for group in groups(plan.settings, plan.spec)}
    more = set()
    for place, low, high in ranges(table):
        group = counted.get(place) or Group(*place, 0)
        low = max(low, group.count)
        if group.class_name in plan.spec.classes and low <= high:
            more.update(identities(group_rows(group, plan.settings, plan.spec, low, high + 1)))
    return not more.isdisjoint(identities(table))
