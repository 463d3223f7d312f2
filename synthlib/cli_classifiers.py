"""The command line for classifiers: baseline, which gives what trained classifiers and their images are measured against."""

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthlib import digests, paths
from synthlib.files import write_atomic, write_json
from synthlib.inputs import InputError, choose, require
from synthlib.locks import claim_output
from synthlib.names import REAL_TRICKS, SPLITS
from synthlib.results import CHANCE_MARK, estimate_words

REFEREES = ("glyph", "clip")  # or a checkpoint's file


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands to an argparse's subparsers."""
    command = commands.add_parser(
        "baseline", help="what classifiers are measured against: CLIP zero-shot, a referee of labels"
    )
    kinds = command.add_subparsers(required=True, metavar="BASELINE")

    kind = kinds.add_parser("clip", help="accuracy of CLIP zero-shot on real images, beside what is published")
    kind.add_argument(
        "--dataset", required=True, help="cifar10, cifar100, eurosat, digits, or own with --real_data_location"
    )
    kind.add_argument("--split", default="test", help="of the real images (default: test)")
    _add_clip(kind)
    kind.set_defaults(command=_claimed(_baseline_clip))

    kind = kinds.add_parser(
        "referee", help="how often a referee disagrees with the labels of a generated set, by trick"
    )
    kind.add_argument("set", type=Path, help="folder of a generated, downloaded or imported set")
    kind.add_argument("--dataset", required=True, help="whose classes they are: digits, cifar10, cifar100, eurosat")
    kind.add_argument(
        "--referee",
        required=True,
        help="glyph (digits only: learned from drawn glyphs), clip, or a checkpoint of 02_train (.safetensors)",
    )
    _add_clip(kind)
    kind.set_defaults(command=_claimed(_baseline_referee), split="test")


def _add_clip(command: argparse.ArgumentParser) -> None:
    """What both baselines take."""
    command.add_argument(
        "--model",
        default="RN50",
        help="CLIP's network by open_clip's name: RN50 (default), ViT-B-32, ...; with a local file of OpenAI's weights "
        "RN50-quickgelu, ViT-B-32-quickgelu, ...: they were trained with QuickGELU, and a file does not say so",
    )
    command.add_argument(
        "--weights", default="openai", help="openai (default), another tag of open_clip's, or a local .safetensors file"
    )
    command.add_argument(
        "--prompts", default="clip", help="clip (default): the CLIP paper's; ours: those of the base_class trick"
    )
    command.add_argument(
        "--real_data_location",
        dest="real_dir",
        default="",
        help="folder of the real images (default: where `synthlib download` puts them)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--batch_size", type=int, default=128, help="images or prompts at once (default 128)")
    command.add_argument("--out", type=Path, help="folder of what is written (default: below papermill_runs/baselines)")


def _claimed(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """A command that claims its --out; where it is not given, whoever writes into a folder computes the same."""

    def claimed(options: argparse.Namespace) -> None:
        with claim_output(options.out.absolute()) if options.out else contextlib.nullcontext():
            command(options)

    return claimed


def _baseline_clip(options: argparse.Namespace) -> None:
    """Top-1 and top-5 with intervals over test images; logits, a row and a record to recompute them from."""
    started = time.monotonic()
    _check_batch_size(options)
    import pandas as pd
    import safetensors.torch

    from synthlib.evaluation import clip_zero_shot as zero_shot
    from synthlib.results.statistics import covers_chance, wilson_interval, wilson_method

    clip = zero_shot.load_clip(options.model, options.weights, options.device)
    real = _real(options, options.split, clip.preparation.size)
    words, templates = zero_shot.read_prompts(options.dataset, real.classes, options.prompts)
    embeddings = zero_shot.class_embeddings(clip, words, templates, options.batch_size)
    logits = zero_shot.image_logits(clip, embeddings, real.images, options.batch_size)
    row = {"dataset": options.dataset, "split": options.split, "method": "CLIP zero-shot", "model": clip.model,
           "weights": clip.weights, "weights_sha256": clip.sha256, "quick_gelu": clip.quick_gelu,
           "prompts": options.prompts, "n_templates": len(templates), "n_test": len(real.labels)}  # fmt: skip
    lines = [
        clip.label(),
        f"{options.dataset} {options.split}, {len(real.labels):,} real images; prompts: {_prompts_said(options, templates)}",
    ]
    for k in (1, 5) if len(real.classes) > 5 else (1,):
        hits = int((logits.topk(k, 1).indices == real.labels[:, None]).sum())
        share = wilson_interval(hits, len(real.labels))
        row |= {f"top{k}_percent": share.mean, f"top{k}_low": share.low, f"top{k}_high": share.high}
        chance = 100 * k / len(real.classes)
        said = _share_said(share, covers_chance(share, chance, len(real.labels)))
        lines.append(f"top-{k}      {said}   chance {chance:.1f} %")
    row["interval_method"] = wilson_method(len(real.labels))
    lines += [
        f"published  {_published_said(options.dataset, clip)}",
        f"In brackets: {row['interval_method']}; {CHANCE_MARK}: it covers chance.",
    ]
    folder = _folder(options, "clip", f"{options.dataset}-{_variant(options, clip.sha256)}")
    tensors = {"logits": logits, "labels": real.labels, "class_embeddings": embeddings.cpu()}
    files = {"logits.safetensors": safetensors.torch.save(tensors), "results.csv": _csv(pd.DataFrame([row]))}
    images = digests.sha256_bytes(real.images.numpy().tobytes() + real.labels.numpy().tobytes())
    asked = {"classes": list(real.classes), "class_words": words, "templates": templates, "images_sha256": images}
    _write(folder, files, row | asked, started)
    print("\n".join([*lines, f"Logits, row and record: {os.path.relpath(folder)}"]))


def _prompts_said(options: argparse.Namespace, templates: Sequence[str]) -> str:
    whose = "the CLIP paper's" if options.prompts == "clip" else "ours, of the base_class trick"
    return f"{whose}, {len(templates)} template{'s' * (len(templates) > 1)}"


def _published_said(dataset: str, clip: Any) -> str:
    """What experiments/published.csv has for CLIP with this network and OpenAI's weights on this data set."""
    from synthlib.results.rows import read_published

    stem, _, patch = clip.model.rpartition("-")
    printed = f"{stem}/{patch}" if patch.isdigit() and stem else clip.model  # ViT-B-32 is printed ViT-B/32
    rows = read_published(paths.published_file())
    fitting = (rows["dataset"] == dataset) & (rows["classifier"] == f"CLIP {printed}")
    rows = rows[fitting & rows["method"].str.startswith("CLIP zero-shot")]
    local = clip.quick_gelu and clip.weights.startswith("of the local file ")  # these can be OpenAI's, then
    if rows.empty or not (local or clip.weights.startswith("openai ")):
        return "not available"
    values = [f"{row.accuracy_percent} % ({row.source})" for row in rows.itertuples()]
    return f"{', '.join(values)}; for OpenAI's weights with the CLIP paper's prompts"


@dataclass(frozen=True)
class _Referee:
    """A judge of labels: images uint8 [N, 3, H, W] -> logits float32 [N, C] for `classes`."""

    name: str  # in the name of a folder
    said: str
    classes: list[str]
    logits: Callable[[Any], Any]
    image_size: int  # of its input, in pixels: photographs of several sizes are made so large
    split: str = SPLITS[0]  # of the real images that its own error is taken on


def _baseline_referee(options: argparse.Namespace) -> None:
    """Shares of labels that the referee does not agree with, beside its own error on real images."""
    started = time.monotonic()
    _check_batch_size(options)
    import safetensors.torch

    from synthlib.data.shards import set_files, set_folder
    from synthlib.evaluation.referee import judge_set
    from synthlib.results.label_noise import ALL, label_noise
    from synthlib.results.statistics import Interval

    files = set_files(set_folder(options.set))
    referee = _referee(options)
    logits, labels, images = judge_set(files, referee.classes, referee.logits)
    error, lines = _own_error(options, referee)
    table = label_noise(logits, labels, images["trick"].tolist(), referee.classes, error and error.mean)
    folder = _folder(options, "referee", f"{options.dataset}-{options.set.absolute().name}-{referee.name}")
    kept = {"label_noise.csv": _csv(table), "images.csv": _csv(images)}
    kept["logits.safetensors"] = safetensors.torch.save({"logits": logits, "labels": labels})
    shards = {file.name: digests.sha256_file(file) for file in files}
    _write(folder, kept, {"referee": referee.said, "dataset": options.dataset, "shards": shards,
                          "classes": referee.classes, "referee_error": error and error._asdict()}, started)  # fmt: skip
    print(f"Referee: {referee.said}\nLabels it does not agree with, {options.set.name}:")
    for row in table[table["class"] == ALL].itertuples():
        share = Interval(row.disagree_percent, row.low_percent, row.high_percent)
        print(f"  {row.group:<16} {_share_said(share)} of {row.n:,} images")
    print("\n".join(lines))
    print(f"In brackets: Wilson, 95 %, over images. By class, and image by image: {os.path.relpath(folder)}")


def _referee(options: argparse.Namespace) -> _Referee:
    """The referee asked for. InputError: there is none of this name, or it is not for this data set."""
    from synthlib.data.datasets import read_spec

    if options.referee.endswith(".safetensors"):
        file = paths.typed(options.referee)
        if not file.is_file():
            raise InputError(
                f"no checkpoint {options.referee}; expected a file that 02_train wrote, or glyph, or clip."
            )
        from synthlib.evaluation.referee import checkpoint_referee

        record, logits_of = checkpoint_referee(file, options.device)
        split = SPLITS[record.get("trick") in REAL_TRICKS]  # what learned from the real pool is not tested on it
        return _Referee(file.stem, f"checkpoint {file.name}", record["classes"], logits_of, record["image_size"], split)
    if choose("referee", options.referee, REFEREES) == "clip":
        from synthlib.evaluation import clip_zero_shot as zero_shot

        classes = list(read_spec(options.dataset).classes)
        words, templates = zero_shot.read_prompts(options.dataset, classes, options.prompts)
        clip = zero_shot.load_clip(options.model, options.weights, options.device)
        embeddings = zero_shot.class_embeddings(clip, words, templates, options.batch_size)
        said = f"{clip.label()}; prompts: {_prompts_said(options, templates)}"
        name = f"clip-{_variant(options, clip.sha256)}"
        return _Referee(
            name,
            said,
            classes,
            lambda x: zero_shot.image_logits(clip, embeddings, x, options.batch_size),
            clip.preparation.size,
        )
    from synthlib.evaluation.referee import glyph_logits
    from synthlib.pocket.glyphs import CLASSES

    if options.dataset != "digits":
        raise InputError(f"the glyph referee knows digits only, and the data set is {options.dataset}; expected clip.")
    return _Referee("glyph", "the pocket referee, which learned from drawn glyphs", list(CLASSES), glyph_logits, 32)


def _own_error(options: argparse.Namespace, referee: _Referee) -> tuple[Any, list[str]]:
    """The referee's error on real test images as an Interval, and what there is to say of it; None where there are none."""
    from synthlib.evaluation.referee import referee_errors
    from synthlib.results.statistics import wilson_interval

    try:
        split = referee.split if options.split == SPLITS[0] else options.split
        real = _real(options, split, referee.image_size)
        error = wilson_interval(referee_errors(real, referee.classes, referee.logits), len(real.labels))
    except InputError as error:
        return None, [
            "Its own error on real images: not available, so nothing tells its mistakes from wrong labels.",
            f"  ({error})",
        ]
    return error, [
        f"Its own error on {len(real.labels):,} real images of {options.dataset} {split}: {_share_said(error)}.",
        "A share that is not clearly above it is no evidence of wrong labels; on generated images it may err more, or less.",
    ]


def _real(options: argparse.Namespace, split: str, image_size: int) -> Any:
    """The real images that the options name; those of several sizes are made `image_size` pixels large."""
    from synthlib.data.real import load_real

    place = str(paths.typed(options.real_dir)) if options.real_dir else ""
    return load_real(options.dataset, split, place, image_size=image_size)


def _check_batch_size(options: argparse.Namespace) -> None:
    require(options.batch_size >= 1, "batch_size", options.batch_size, "a number of at least 1")


def _share_said(share: Any, marked: bool = False) -> str:
    return estimate_words(f"{share.mean:5.1f} %", f"{share.low:.1f}", f"{share.high:.1f}", marked=marked)


def _variant(options: argparse.Namespace, sha256: str) -> str:
    """A CLIP in a folder's name: the model, and what is not the default, so that one run does not write over another."""
    weights = [] if options.weights == "openai" else [sha256[:8]]
    others = [given for given in (options.prompts, options.split) if given not in ("clip", "test")]
    return "-".join([options.model.replace("/", "-"), *weights, *others])


def _folder(options: argparse.Namespace, kind: str, name: str) -> Path:
    return options.out.absolute() if options.out else paths.resolve(f"papermill_runs/baselines/{kind}/{name}")


def _csv(table: Any) -> bytes:
    return table.to_csv(index=False, lineterminator="\n", na_rep="not available").encode()


def _write(folder: Path, files: dict[str, bytes], facts: dict[str, Any], started: float) -> None:
    """Files by name, and record.json last: their sha256, what the numbers were made from, and on what."""
    import importlib.metadata

    for name, data in files.items():
        write_atomic(folder / name, data)
    facts = facts | {"outputs_sha256": {name: digests.sha256_bytes(data) for name, data in files.items()}}
    from synthlib.provenance import recorded

    made_on = recorded(time.monotonic() - started)
    made_on["versions"] |= (
        {"open_clip_torch": importlib.metadata.version("open_clip_torch")} if "weights" in facts else {}
    )
    write_json(folder / "record.json", facts | {"recorded": made_on})
