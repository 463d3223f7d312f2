"""Redraw: one image of a generated set drawn again from its row and its receipt, and compared with what is stored."""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthlib import costly, digests, hub, provenance, receipts
from synthlib.data.shards import decode_image, read_table
from synthlib.files import key_file
from synthlib.generation.generate import Plan, open_plan
from synthlib.generation.paint import Painter
from synthlib.generation.plan import group_rows, groups
from synthlib.generation.reuse import OWN
from synthlib.inputs import InputError
from synthlib.settings import GenerateSettings


@dataclass(frozen=True)
class Redrawn:
    """An image as it is stored and as it is drawn here today, both uint8 [H, W, 3].

    equal: by sha256 of the pixels; largest_difference: of a colour value, 0 to 255; differing_pixels: of H x W; differences:
    what is not as it was then, whether the pixels feel it or not.
    """

    image_id: str
    stored: np.ndarray
    redrawn: np.ndarray
    equal: bool
    largest_difference: int
    differing_pixels: int
    differences: list[str]


def redraw(folder: Path, image_id: str) -> Redrawn:
    """Draw one image of the set in `folder` again on this machine; nothing is written there.

    InputError for a set whose settings nobody knows (imported, or without a receipt), for an image_id that it does not hold,
    where today's plan asks for another image in its place, and for whatever open_plan and Painter refuse.
    """
    receipt = receipts.read_receipt(folder)
    settings = _settings(receipt, folder)
    shard, row = _stored_row(folder, image_id)
    if hub.COMMIT.fullmatch(row["revision"]):
        settings = dataclasses.replace(settings, revision=row["revision"])  # a branch may have moved since
    plan = open_plan(settings)
    pixels = _drawn(plan, _todays_row(plan, row, folder))
    stored = decode_image(row["image"]["bytes"])
    if stored.shape != pixels.shape:
        was, now = (f"{shape[0]} x {shape[1]}" for shape in (stored.shape, pixels.shape))
        raise InputError(
            f"{image_id} is stored with {was} pixels and drawn here with {now}; expected the model that the set was drawn "
            f"with, {row['model']} {row['revision']}: bring that one back."
        )
    apart = np.abs(stored.astype(int) - pixels).max(axis=2)
    return Redrawn(
        image_id=image_id,
        stored=stored,
        redrawn=pixels,
        equal=_sha256(stored) == _sha256(pixels),
        largest_difference=int(apart.max()),
        differing_pixels=int((apart > 0).sum()),
        differences=_differences(plan, receipt, shard, row, _sha256(stored)),
    )


def redrawn_text(redrawn: Redrawn) -> str:
    """One line: whether the pixels are the same, and what differs here from then."""
    differences = "; ".join(redrawn.differences)
    if redrawn.equal:
        return f"{redrawn.image_id}: same pixels" + (
            f", although here is not as then: {differences}" if differences else ""
        )
    return (
        f"{redrawn.image_id} differs in {redrawn.differing_pixels} of {redrawn.stored[..., 0].size} pixels, by at most "
        f"{redrawn.largest_difference} of 255; here is not as then: {differences or 'nothing that is recorded'}"
    )


def _settings(receipt: dict[str, Any] | None, folder: Path) -> GenerateSettings:
    """The settings that a set was drawn with, for a plan that has no folder. InputError where nobody knows them."""
    if receipt is None or receipt["notebook"] != "01_generate":
        why = f"came by `synthlib {receipt['notebook']}`" if receipt else "has no receipt"
        raise InputError(
            f"{folder} {why}, so nobody knows what it was drawn from; expected a finished set of 01_generate or "
            "`synthlib generate`: give one."
        )
    parameters, names = receipt["parameters"], {field.name for field in dataclasses.fields(GenerateSettings)}
    if names != set(parameters):
        raise InputError(
            f"{folder} was drawn by other code, whose settings differ in {', '.join(sorted(names ^ set(parameters)))}; expected "
            "today's: run 01_generate again."
        )
    here = {"run_dir": str(folder / "of-no-set"), "reuse_dirs": [], "replace": False}  # open_plan makes no folder
    here["device"] = "cpu" if parameters["device"] == "cpu" else "auto"  # the GPU of then may not be here
    return GenerateSettings.from_parameters(parameters | here)


def _stored_row(folder: Path, image_id: str) -> tuple[Path, dict[str, Any]]:
    """The shard that holds an image, and its row. InputError with the nearest image_id where none does."""
    # Not read_output: that reads every byte of every shard, and takes the receipt away from a set that is damaged elsewhere.
    known: list[str] = []
    for shard in [folder / name for name in receipts.output_names(folder, ".parquet")]:
        ids = read_table(shard, ["image_id"])["image_id"]
        place = pc.index(ids, image_id).as_py()
        if place >= 0:
            return shard, read_table(shard).slice(place, 1).to_pylist()[0]
        known += ids.to_pylist()
    raise InputError(
        f"no image {image_id!r} in {folder}; expected an image_id of its {len(known)} rows, which exported files are named "
        f"after{_hint(image_id, known)}"
    )


def _hint(image_id: str, known: list[str]) -> str:
    """The nearest id that there is. Ids end in a number: of hundreds of thousands only those with the nearest start compete."""
    starts = list(dict.fromkeys(name.rpartition("-")[0] for name in known))
    start = difflib.get_close_matches(image_id.rpartition("-")[0], starts, n=1, cutoff=0.5)
    competing = [name for name in known if start and name.rpartition("-")[0] == start[0]]
    near = difflib.get_close_matches(image_id, competing, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _todays_row(plan: Plan, row: dict[str, Any], folder: Path) -> pa.Table:
    """The row of today's plan in a stored row's place. InputError unless it asks for the same image."""
    place = (row["replicate"], row["trick"], row["class"])
    group = next((g for g in groups(plan.settings, plan.spec) if (g.replicate, g.source, g.class_name) == place), None)
    if group is None:
        raise InputError(
            f"{row['image_id']} has no place in today's plan (replicate {place[0]}, trick {place[1]}, class {place[2]}); "
            f"expected the data set {plan.spec.name!r} as it was when {folder} was drawn: bring its YAML back."
        )
    today = group_rows(group, plan.settings, plan.spec, row["index"], row["index"] + 1)
    (now,) = today.to_pylist()
    differs = [f"{name} {row[name]!r} then, {now[name]!r} today" for name in OWN if row[name] != now[name]]
    if differs:
        raise InputError(
            f"today's plan asks for another image than {row['image_id']}: {'; '.join(differs)}; expected the same: bring back "
            f"the data set's YAML or the code that {folder} was drawn with, or run 01_generate again."
        )
    return today


def _drawn(plan: Plan, row: pa.Table) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of one row, drawn with the whole block that it lies in."""
    trick, name = row["trick"][0].as_py(), row["class"][0].as_py()
    # Only its own prompts are encoded, each of which depends on nothing else: a set of 100 classes has a thousand.
    spec = dataclasses.replace(plan.spec, classes={name: plan.spec.classes[name]})
    painter = Painter(dataclasses.replace(plan.settings, trick=trick), spec)
    images = [None]
    try:
        for _ in painter.fill(images, row):
            pass
        return decode_image(images[0].result().png)
    finally:
        painter.close()


def _differences(
    plan: Plan, receipt: dict[str, Any], shard: Path, row: dict[str, Any], stored_sha256: str
) -> list[str]:
    """What is not as it was when a row was drawn."""
    recorded, today = receipt["recorded"], provenance.recorded(0)
    then = {name: row.get(name) for name in plan.records}
    now = dict(plan.records)
    if vae := plan.settings.lossy_vae:
        then["lossy_vae"], now["lossy_vae"] = receipt["inputs"].get("lossy_vae"), receipts.model_digest(vae)
    then["hardware"], now["hardware"] = recorded["hardware"], today["hardware"]
    for name in sorted({*recorded["versions"], *today["versions"]}):
        then[name], now[name] = (found["versions"].get(name, "none") for found in (recorded, today))
    found = [f"{name} {then[name]} then, {now[name]} here" for name in now if then[name] != now[name]]
    key = costly.read_key(key_file(shard))
    if key and key.get("kept_from_code", key["code"]) != costly.costly_code("shards"):
        found.append("the code that draws has changed")
    if row["pixels_sha256"] != stored_sha256:
        found.append("the stored pixels are not those that were recorded (pixels_sha256): they were changed since")
    return found


def _sha256(pixels: np.ndarray) -> str:
    return digests.sha256_bytes(pixels.tobytes())
