"""The command line of the authors' train_network.py and eval_network.py: train and eval, with their arguments.

A folder of images in, one checkpoint out; the notebooks 02 and 03 do the same for whole experiments.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthlib import paths, receipts
from synthlib.files import PLAN, write_atomic
from synthlib.inputs import InputError
from synthlib.locks import claim_output
from synthlib.names import REAL_TRICKS, SPLITS, UNKNOWN, architecture_name, trick_name
from synthlib.settings import EvaluateSettings, TrainSettings

if TYPE_CHECKING:  # torch takes seconds, that other commands need not wait for
    import torch

    from synthlib.data.sets import SyntheticSet
    from synthlib.evaluation.evaluate import Logits
    from synthlib.training.train import Trained

LAST = "trained_model.safetensors"  # beside it best_on_test_model.safetensors
FILES = (".safetensors", ".pt", ".pth")  # a --model_path that ends so names the checkpoint, any other its folder
WITHOUT_RECORD = 32  # pixels, of CIFAR: the network's input where a file has no record and --img_size is not given


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands to an argparse's subparsers."""
    command = commands.add_parser("train", help="a classifier from any images, as the authors' train_network.py")
    add = command.add_argument
    add("--model", required=True, help="MBV3, Vit-B, Vit-S, RS50, RS101, convnext, convnext-s, or one of timm's")
    add("--epoch", "--epochs", type=int, default=-1, help="passes over the images (default: the protocol's)")
    add("--batch_size", type=int, default=-1, help="images a step (default: the protocol's)")
    _add_data(command)
    add("--lr", "--learning_rate", type=float, default=-1.0, help="learning rate (default: the protocol's)")
    add("--wd", "--weight_decay", type=float, default=-1.0, help="weight decay (default: the protocol's)")
    add("--model_path", type=Path, required=True, help=f"folder for {LAST}; or a .safetensors, .pt to write")
    add("--wandb", action="store_true", help="also tell Weights & Biases")
    add("--syn_data_location", required=True, help="class folders, .tar.gz, packed .npz or Parquet to learn from")
    add("--protocol", default="authors", help="authors (default): their code to the letter; or careful")
    add("--init", help="initial weights: scratch (default) or imagenet")
    add("--weights", default="", help="file of the ImageNet weights (default: those published)")
    add("--seed", type=int, help="training seed (default: 0)")
    add("--trick", default=UNKNOWN, help="how the images were prompted, for the record (default: unknown)")
    _add_machine(command)
    command.set_defaults(command=_train)

    command = commands.add_parser("eval", help="a classifier on real images, as the authors' eval_network.py")
    add = command.add_argument
    add("--model", default="", help="as in train; needed where the file does not say it")
    add("--model_path", type=Path, required=True, help=".safetensors of ours, or .pt of plain tensors")
    _add_data(command)
    add("--logits", type=Path, help="write the logits here (safetensors), to recompute all from")
    _add_machine(command)
    command.set_defaults(command=_eval)


def _add_data(command: argparse.ArgumentParser) -> None:
    """What says which images; errors of the kit name its own parameters, so these names are understood too."""
    add = command.add_argument
    add("--dataset", required=True, help="cifar10, cifar100, eurosat, digits; or own: named by the folders")
    add(
        "--img_size",
        "--image_size",
        type=int,
        default=0,
        help="pixels of the network's input (default: those of the images; eurosat 224)",
    )
    what = "real images, which are only tested on (default: where `synthlib download` puts them)"
    command.add_argument("--real_data_location", "--real_dir", default="", help=what)


def _add_machine(command: argparse.ArgumentParser) -> None:
    threads = "CPU threads (default: 1 as in the notebooks, for the last bits depend on them)"
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--threads", type=int, help=threads)


def _given(options: argparse.Namespace, **named: Any) -> dict[str, Any]:
    """Notebook parameters that both commands have, and those `named`; without those that were not given."""
    real = str(paths.typed(options.real_data_location)) if options.real_data_location else ""
    given = {"dataset": options.dataset.lower(), "real_dir": real, "trick": UNKNOWN, "device": options.device}
    given |= {"threads": options.threads} | named
    return {name: value for name, value in given.items() if value is not None}


# --- train ------------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> None:
    """Claim what the training writes: files of one stem share its state, and the name of the best epoch's checkpoint."""
    last = _last(options)
    with claim_output(last.with_name(last.stem.removeprefix("trained_"))):
        _train_claimed(options)


def _last(options: argparse.Namespace) -> Path:
    """Where the checkpoint of the last epoch goes."""
    return (options.model_path if options.model_path.suffix in FILES else options.model_path / LAST).absolute()


def _train_claimed(options: argparse.Namespace) -> None:
    """The last epoch is what counts; where the protocol tests every epoch, the best one is kept too, labelled."""
    settings, last, best = _train_settings(options)
    import torch

    from synthlib.data.real import load_real
    from synthlib.devices import device_named
    from synthlib.evaluation.predict import tester
    from synthlib.training.checkpoint import BEST_ON_TEST, load_model
    from synthlib.training.logs import epoch_logger
    from synthlib.training.train import preparation_for, train

    torch.set_num_threads(settings.threads)
    images, settings, number = _training_images(settings)
    preparation = preparation_for(settings, images.images.shape[-1])
    own = images.classes if settings.dataset == "own" else []
    test, told = None, "no real images: tested later, by `synthlib eval`"
    if settings.test_every or settings.real_dir or settings.dataset != "own":
        real = load_real(settings.dataset, settings.split, settings.real_dir, own, preparation.resized)
        test, told = tester(real, images.classes), f"{len(real.labels):,} real test images of {settings.dataset}"
    print(f"{len(images.labels):,} images of {len(images.classes)} classes (trick {settings.trick}), {told}")
    print(
        f"{settings.architecture} for {preparation.image_size} px, init {settings.init}, protocol "
        f"{settings.protocol_label()}, seed {settings.seed}"
    )
    if there := [os.path.relpath(path) for path in (last, best) if path.exists()]:
        print(f"this training replaces, at its end: {', '.join(there)}")
    state_file = last.with_suffix(".state")
    what = (images.images, images.labels, len(images.classes), settings, settings.seed, state_file)
    show = _epoch_lines(settings)
    with epoch_logger(settings, last.with_suffix(""), 0) as log:
        trained = train(*what, test if settings.test_every else None, lambda row: (show(row), log(row)))
    _write(trained, settings, images, number, last, best)
    state_file.unlink(missing_ok=True)
    tested = trained.history[-1]
    if test and not settings.test_every:
        model, _ = load_model(last, settings.architecture, images.classes, preparation.image_size)
        tested = test(model.to(device_named(settings.device)), preparation)
    print(f"{os.path.relpath(last)}: last epoch, {_tested(tested) if test else 'not tested yet'}")
    if trained.best:
        at_best = _tested(trained.history[trained.best_epoch - 1])
        print(f"{os.path.relpath(best)}: epoch {trained.best_epoch}, chosen: {BEST_ON_TEST}, {at_best}")
    real = options.real_data_location or ("FOLDER_OF_REAL_IMAGES" if settings.dataset == "own" else "")
    where = f" --real_data_location {real}" if real else ""
    size = "" if last.suffix == ".safetensors" else f" --img_size {preparation.image_size}"  # no record says it
    print(f"Intervals and more: synthlib eval --model {options.model} --model_path {os.path.relpath(last)} "
          f"--dataset {options.dataset}{where}{size}")  # fmt: skip


def _train_settings(options: argparse.Namespace) -> tuple[TrainSettings, Path, Path]:
    """The settings, and where the checkpoints of the last and of the best epoch go: a folder that can be written."""
    from synthlib.runs.experiment import complete

    last = _last(options)
    best = last.with_name(f"best_on_test_{last.name.removeprefix('trained_')}")
    weights = str(paths.typed(options.weights)) if options.weights else ""
    trick = options.trick if options.trick == UNKNOWN else trick_name(options.trick)
    loggers = ["wandb"] if options.wandb else []
    given = _given(options, run_dir=str(last.parent), trick=trick, generated_dir=str(paths.typed(options.syn_data_location)),
                   architecture=options.model, init=options.init, weights=weights, seed=options.seed, replicates=1,
                   protocol=options.protocol, epochs=options.epoch, batch_size=options.batch_size, learning_rate=options.lr,
                   weight_decay=options.wd, image_size=options.img_size, log_to=loggers)  # fmt: skip
    settings = TrainSettings(**complete("02_train", given))
    real = settings.real_dir or paths.data_home() / settings.dataset
    if Path(real).resolve() == Path(settings.generated_dir).resolve():
        raise InputError(
            f"{options.syn_data_location} is given to learn from and to be tested on; expected images for training that are not "
            "the test images: give another --syn_data_location."
        )
    write_atomic(last.with_suffix(".state.probe"), b"")  # better now than after hours
    last.with_suffix(".state.probe").unlink()
    return settings, last, best


def _training_images(settings: TrainSettings) -> tuple["SyntheticSet", TrainSettings, int]:
    """The images, with labels in the data set's order; the settings with the trick that they tell of; their replicate."""
    import numpy as np
    import pyarrow as pa
    import torch

    from synthlib.data.datasets import read_spec
    from synthlib.data.imports import match_classes
    from synthlib.data.readers import decode_items
    from synthlib.data.sets import SyntheticSet
    from synthlib.data.shards import set_files
    from synthlib.data.sources import open_source
    from synthlib.training.replicates import chosen_images
    from synthlib.training.train import preparation_for

    place, number, receipt = Path(settings.generated_dir), 0, receipts.read_receipt(settings.generated_dir)
    if receipt is None and any((place / name).exists() for name in (PLAN, "import.json")):
        raise InputError(f"{place} is not finished; give the command that makes it once more, and let it end.")
    if receipt is not None:
        set_files(place)  # checks each file
        if settings.trick == UNKNOWN:
            settings = replace(settings, trick=receipt["parameters"]["trick"])
    source = open_source(place)
    known = list(read_spec(settings.dataset, source.classes if settings.dataset == "own" else []).classes)
    ours = match_classes(source.classes, known, str(place), settings.dataset)
    items = source.items
    if source.rows is not None:
        replicates = source.rows["replicate"].to_pylist()
        number = min(replicates)
        if max(replicates) > number:
            print(f"{place.name} has several replicates; number {number} is learned from.")
        items = [item for item, replicate in zip(items, replicates, strict=True) if replicate == number]
    pixels = decode_items(items, place, place.name, preparation_for(settings, 0).resized)
    labels = torch.tensor([known.index(ours[item.class_name]) for item in items])
    rows = pa.table({"replicate": np.full(len(items), number), "index": np.arange(len(items))})
    return chosen_images(SyntheticSet(pixels, labels, known, rows), settings, number), settings, number


def _epoch_lines(settings: TrainSettings) -> Callable[[dict], None]:
    """A function that prints each new row of the history under a heading."""
    from tqdm import tqdm

    heading = [f"epoch     loss  train %{'  test %: eval  authors' if settings.test_every else ''}"]

    def show(row: dict) -> None:
        line = f"{row['epoch']:>5}  {row['loss']:7.4f}  {row['train_accuracy_percent']:7.2f}"
        if settings.test_every:
            line += f"  {row['test_eval_percent']:12.2f}  {row['test_authors_percent']:7.2f}"
        if heading and row["epoch"] > 1:
            heading.insert(0, f"goes on after epoch {row['epoch'] - 1}")
        tqdm.write("\n".join([*heading, line]), file=sys.stdout)  # print would break the bar that a terminal shows
        sys.stdout.flush()
        heading.clear()

    return show


def _write(
    trained: "Trained", settings: TrainSettings, images: "SyntheticSet", number: int, last: Path, best: Path
) -> None:
    """The checkpoints, each with its record; the one of the best epoch first, so that the last one is there last."""
    from synthlib.training.checkpoint import BEST_ON_TEST
    from synthlib.training.replicates import record_facts

    record = {"replicate": 0, "image_replicate": number}
    record |= {"training_seed": settings.seed} | record_facts(trained, settings, images)
    if trained.best:
        told = record | {"epoch": trained.best_epoch, "chosen": BEST_ON_TEST}
        write_atomic(best, _file_bytes(best, trained.best, told))
    write_atomic(last, _file_bytes(last, trained.state, record))
    if not trained.best:
        best.unlink(missing_ok=True)  # of an earlier training: beside the new file it would be taken for its best


def _file_bytes(path: Path, state: dict[str, "torch.Tensor"], record: dict) -> bytes:
    """A checkpoint as its suffix says: safetensors with a record, or as the authors write it, tensors alone."""
    import torch

    from synthlib.training.checkpoint import model_bytes

    if path.suffix == ".safetensors":
        return model_bytes(state, record)
    torch.save(state, file := io.BytesIO())
    return file.getvalue()


def _tested(row: dict) -> str:
    return f"{row['test_eval_percent']:.2f} % (eval), {row['test_authors_percent']:.2f} % (authors)"


# --- eval -------------------------------------------------------------------------------------------------------------


def _eval(options: argparse.Namespace) -> None:
    """Both modes side by side, with intervals over the test images, and what the checkpoint says of itself."""
    from synthlib.runs.experiment import complete

    if options.model:
        architecture_name(options.model)  # refuses an unknown one before anything is read
    given = _given(options, architecture=options.model or None)
    settings = EvaluateSettings(**complete("03_eval", given))
    import torch

    from synthlib.data.real import load_real
    from synthlib.devices import device_named
    from synthlib.evaluation.evaluate import Logits, logits_bytes
    from synthlib.evaluation.predict import predict_authors, predict_eval, require_classes
    from synthlib.training.checkpoint import preparation_of

    torch.set_num_threads(settings.threads)
    path = paths.typed(options.model_path)
    path = path / LAST if path.is_dir() else path
    model, record = _open(path, options, settings)
    preparation = preparation_of(record)
    own = record["classes"] if settings.dataset == "own" else []
    split = SPLITS[record.get("trick") in REAL_TRICKS]  # what learned from the real pool is not tested on it
    real = load_real(settings.dataset, split, settings.real_dir, own, preparation.resized)
    require_classes(record["classes"], real, path.name)
    print(f"{path.name}: {_said_of(record)}\n{settings.dataset}: {len(real.labels):,} real test images", flush=True)
    model = model.to(device_named(settings.device))
    authors, order = predict_authors(
        model, real.images, preparation, settings.batch_size, settings.shuffles, settings.seed
    )
    logits = Logits(predict_eval(model, real.images, preparation), authors, order, real.labels)
    print("\n".join(_accuracy_lines(logits, settings)))
    if options.logits:
        write_atomic(options.logits.absolute(), logits_bytes(logits))
        print(f"Logits: {os.path.relpath(options.logits)}")


def _open(path: Path, options: argparse.Namespace, settings: EvaluateSettings) -> tuple["torch.nn.Module", dict]:
    """A checkpoint's network and record; of a file without one, the record has the data set's own preparation."""
    from synthlib.data.datasets import read_spec
    from synthlib.runs.experiment import complete
    from synthlib.training.checkpoint import load_model
    from synthlib.training.train import preparation_for

    named = {"dataset": settings.dataset, "trick": UNKNOWN, "image_size": options.img_size}
    usual = preparation_for(TrainSettings(**complete("02_train", named)), WITHOUT_RECORD)
    classes = None if settings.dataset == "own" else list(read_spec(settings.dataset).classes)
    model, record = load_model(path, options.model, classes, usual.image_size)
    if options.img_size and record["image_size"] != options.img_size:
        raise InputError(
            f"{path} holds a network for {record['image_size']} px images; expected {options.img_size}: leave --img_size out."
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


def _accuracy_lines(logits: "Logits", settings: EvaluateSettings) -> list[str]:
    from synthlib.evaluation.calibration import calibration_bins, ece_percent
    from synthlib.evaluation.evaluate import accuracy_percent, top5_percent
    from synthlib.results.statistics import wilson_interval

    n, lines = len(logits.labels), []
    for mode, values in (("eval", logits.eval), ("authors", logits.authors)):
        accuracy, top5 = accuracy_percent(values, logits.labels), top5_percent(values, logits.labels)
        found = wilson_interval(round(accuracy * n / 100), n)  # a mean over shuffles: to the nearest whole image
        line = f"{mode:<8} {accuracy:6.2f} % [{found.low:.2f}, {found.high:.2f}]"
        line += "" if top5 is None else f"   top-5 {top5:6.2f} %"
        lines.append(f"{line}   ECE {ece_percent(calibration_bins(values, logits.labels)):5.2f}")
    return [
        *lines,
        "In brackets: Wilson, 95 %, over test images; ECE: expected calibration error in points.",
        f"authors mode: tested as their code does, in train mode, in shuffled batches of {settings.batch_size}, where batch norm "
        f"adapts to the test images (mean of {settings.shuffles} shuffles).",
    ]
