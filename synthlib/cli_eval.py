"""The command line of the authors' eval_network.py, with its arguments: a checkpoint of ours or of theirs on real images."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthlib import paths
from synthlib.cli_authors import LAST, add_data, add_machine, given_to_both
from synthlib.files import write_atomic
from synthlib.inputs import InputError
from synthlib.names import CIFAR, REAL_TRICKS, SPLITS, UNKNOWN, architecture_name
from synthlib.settings import EvaluateSettings, TrainSettings

if TYPE_CHECKING:  # torch takes seconds, that other commands need not wait for
    import torch

    from synthlib.evaluation.evaluate import Logits

WITHOUT_RECORD = 32  # pixels, of CIFAR: the network's input where a file has no record and --img_size is not given


def add_commands(commands: Any) -> None:
    """Add the parser of eval to an argparse's subparsers."""
    command = commands.add_parser("eval", help="a classifier on real images, as the authors' eval_network.py")
    add = command.add_argument
    add("--model", dest="architecture", default="", help="as in train; needed where the file does not say it")
    add("--model_path", type=Path, required=True, help=".safetensors of ours, or .pt of plain tensors")
    add_data(command)
    batch = "images a batch in authors mode (default: as it was trained; 64 where the file does not say it)"
    add("--batch_size", type=int, default=0, help=batch)
    add("--logits", type=Path, help="write the logits here (safetensors), to recompute all from")
    add_machine(command)
    command.set_defaults(command=_eval)


def _eval(options: argparse.Namespace) -> None:
    """Both modes side by side, with intervals over the test images, and what the checkpoint says of itself."""
    from synthlib.runs.experiment import complete

    if options.architecture:
        architecture_name(options.architecture)  # refuses an unknown one before anything is read
    given = given_to_both(options, architecture=options.architecture or None, batch_size=options.batch_size)
    settings = EvaluateSettings(**complete("03_eval", given))
    import torch

    from synthlib.data.real import load_real
    from synthlib.devices import device_named
    from synthlib.evaluation.evaluate import Logits, logits_bytes
    from synthlib.evaluation.predict import AUTHORS_BATCH_SIZE, predict_authors, predict_eval, require_classes
    from synthlib.training.checkpoint import preparation_of

    torch.set_num_threads(settings.threads)
    path = _checkpoint(options.model_path)
    model, record = _open(path, options, settings)
    preparation = preparation_of(record)
    own = record["classes"] if settings.dataset == "own" else []
    split = SPLITS[record.get("trick") in REAL_TRICKS]  # what learned from the real pool is not tested on it
    real = load_real(settings.dataset, split, settings.real_dir, own, preparation.resized, path.name)
    require_classes(record["classes"], real, path.name)
    print(f"{path.name}: {_said_of(record)}\n{settings.dataset}: {len(real.labels):,} real test images", flush=True)
    model = model.to(device_named(settings.device))
    size = settings.batch_size or record.get("batch_size", AUTHORS_BATCH_SIZE)
    how = (preparation, size, settings.shuffles, settings.seed, real.in_file_order)
    authors, order = predict_authors(model, real.images, *how)
    logits = Logits(predict_eval(model, real.images, preparation), authors, order, real.labels)
    known = settings.batch_size or "batch_size" in record
    batches = f"batches of {size}{'' if known else ', their default (what it was trained in is not known)'}"
    print("\n".join(_accuracy_lines(logits, settings.dataset, batches)))
    if options.logits:
        write_atomic(options.logits.absolute(), logits_bytes(logits))
        print(f"Logits: {os.path.relpath(options.logits)}")


def _checkpoint(given: Path) -> Path:
    """The file to test: of a folder the last epoch's; for a .pt that is not there the .safetensors of its name, as of train."""
    path = paths.typed(given)
    path = path / LAST if path.is_dir() else path
    if path.exists() or not (ours := paths.typed(given.with_suffix(".safetensors"))).is_file():
        return path
    print(f"no file {given}: {os.path.relpath(ours)} is tested, which is there")
    return ours


def _open(path: Path, options: argparse.Namespace, settings: EvaluateSettings) -> tuple["torch.nn.Module", dict]:
    """A checkpoint's network and record; of a file without one, the record has the data set's own preparation."""
    from synthlib.data.datasets import read_spec
    from synthlib.runs.experiment import complete
    from synthlib.training.checkpoint import load_model
    from synthlib.training.train import preparation_for

    named = {"dataset": settings.dataset, "trick": UNKNOWN, "image_size": options.image_size}
    usual = preparation_for(TrainSettings(**complete("02_train", named)), WITHOUT_RECORD)
    classes = None if settings.dataset == "own" else list(read_spec(settings.dataset).classes)
    model, record = load_model(path, options.architecture, classes, usual.image_size)
    if options.image_size and record["image_size"] != options.image_size:
        raise InputError(
            f"{path} holds a network for {record['image_size']} px images; expected {options.image_size}: leave --img_size out."
        )
    return model, asdict(usual) | record


def _said_of(record: dict) -> str:
    """Architecture, origin and choice of a checkpoint, as far as its record goes."""
    network = f"{record['architecture']} for {record['image_size']} px"
    if "chosen" not in record:
        return f"{network}; no record, so nothing is known of its training, nor how its epoch was chosen"
    from synthlib.training.checkpoint import BEST_ON_TEST

    best = record["chosen"] == BEST_ON_TEST
    chosen = f"{record['chosen']}, so its accuracy there flatters it" if best else "last epoch"
    return (
        f"{network}, {record['n_train']:,} training images, protocol {record['protocol']}\n"
        f"epoch {record['epoch']}, chosen: {chosen}"
    )


def _accuracy_lines(logits: "Logits", dataset: str, batches: str) -> list[str]:
    from synthlib.evaluation.calibration import calibration_bins, ece_percent
    from synthlib.evaluation.evaluate import accuracy_percent, in_file_order, top5_percent
    from synthlib.results import CHANCE_MARK, estimate_words
    from synthlib.results.statistics import covers_chance, wilson_interval

    (n, n_classes), lines = logits.eval.shape, []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        accuracy, top5 = accuracy_percent(values, logits.labels), top5_percent(values, logits.labels)
        found = wilson_interval(round(accuracy * n / 100), n)  # a mean over orders: to the nearest whole image
        marked = covers_chance(found, 100 / n_classes, n)
        words = estimate_words(f"{accuracy:6.2f} %", f"{found.low:.2f}", f"{found.high:.2f}", marked=marked)
        line = f"{mode:<8} {words}   chance {100 / n_classes:.2f} %"
        line += "" if top5 is None else f"   top-5 {top5:6.2f} %   chance {500 / n_classes:.2f} %"
        lines.append(f"{line}   ECE {ece_percent(calibration_bins(values, logits.labels)):5.2f}")
    first = "file order, as theirs," if in_file_order(logits.order) else "one shuffle"
    if first == "one shuffle" and dataset in (*CIFAR, "eurosat"):
        first += " (theirs is file order, which these files do not tell)" if dataset in CIFAR else ", as theirs,"
    ours, others = (accuracy_percent(part, logits.labels) for part in (logits.authors[:1], logits.authors[1:]))
    return [
        *lines,
        "In brackets: Wilson, 95 %, over test images alone; a classifier of another training seed may well lie outside.",
        f"{CHANCE_MARK}: the brackets cover chance. ECE: expected calibration error in points.",
        f"authors mode: tested as their code does, in train mode, where batch norm adapts to the test images, in {batches}:",
        f"{first} {ours:.2f} %, {len(logits.authors) - 1} shuffles {others:.2f} % in the mean; authors is the mean of all.",
    ]
