"""The command line of the authors' train_network.py, with its arguments; cli_eval has that of their eval_network.py.

A folder of images in, one checkpoint out; the notebooks 02 and 03 do the same for whole experiments.
"""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthlib import paths, receipts
from synthlib.files import PLAN, write_atomic
from synthlib.inputs import InputError
from synthlib.locks import claim_output
from synthlib.names import CIFAR, UNKNOWN, trick_name
from synthlib.settings import TrainSettings

if TYPE_CHECKING:  # torch takes seconds, that other commands need not wait for
    import torch

    from synthlib.data.sets import SyntheticSet
    from synthlib.training.train import Trained

LAST = "trained_model.safetensors"  # beside it best_on_test_model.safetensors
FILES = (".safetensors", ".pt", ".pth")  # a --model_path that ends so names the checkpoint, any other its folder
AUTHORS_UNUSED = 10_000  # images of a synthetic CIFAR set that their data modules split off, at random, and never use


def add_commands(commands: Any) -> None:
    """Add the parser of train to an argparse's subparsers."""
    command = commands.add_parser("train", help="a classifier from any images, as the authors' train_network.py")
    add = command.add_argument
    networks = "MBV3, Vit-B, Vit-S, RS50, RS101, convnext, convnext-s, or one of timm's"
    add("--model", dest="architecture", required=True, help=networks)
    passes = "passes over the images (default: the protocol's)"
    add("--epoch", "--epochs", dest="epochs", type=int, default=-1, help=passes)
    add("--batch_size", type=int, default=-1, help="images a step (default: the protocol's)")
    add_data(command)
    rate, decay = "learning rate (default: the protocol's)", "weight decay (default: the protocol's)"
    add("--lr", "--learning_rate", dest="learning_rate", type=float, default=-1.0, help=rate)
    add("--wd", "--weight_decay", dest="weight_decay", type=float, default=-1.0, help=decay)
    add("--model_path", type=Path, required=True, help=f"folder for {LAST}; or a .safetensors, .pt to write")
    log = "also tell Weights & Biases"
    add("--wandb", dest="log_to", action="store_const", const=["wandb"], default=[], help=log)
    learned = "class folders, .tar.gz, packed .npz or Parquet to learn from"
    add("--syn_data_location", dest="generated_dir", required=True, help=learned)
    add("--protocol", default="authors", help="authors (default): as their released code; or careful")
    add("--init", help="initial weights: scratch (default) or imagenet")
    add("--weights", default="", help="file of the ImageNet weights (default: those published)")
    add("--seed", type=int, help="training seed (default: 0)")
    unused = "images to leave out, at random (default: 0; the authors' code: 10000 of a CIFAR set)"
    add("--unused_images", type=int, default=0, help=unused)
    add("--trick", default=UNKNOWN, help="how the images were prompted, for the record (default: unknown)")
    add_machine(command)
    command.set_defaults(command=_train)


def add_data(command: argparse.ArgumentParser) -> None:
    """What says which images; the notebooks' names of these are understood too."""
    add = command.add_argument
    names = "cifar10, cifar100, eurosat, digits; own: named by the folders; or as in their code the name of a synthetic set, "
    add("--dataset", required=True, help=f"{names}such as cifar10_generated_32A, which is looked for in its location")
    add(
        "--img_size",
        "--image_size",
        dest="image_size",
        type=int,
        default=0,
        help="pixels of the network's input (default: CIFAR 32, eurosat 224, others those of the images; of images of several "
        "sizes, which are cropped to squares, 224)",
    )
    what = "real images, which are only tested on (default: where `synthlib download` puts them)"
    command.add_argument("--real_data_location", "--real_dir", dest="real_dir", default="", help=what)


def add_machine(command: argparse.ArgumentParser) -> None:
    threads = "CPU threads (default: 1 as in the notebooks, for the last bits depend on them)"
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--threads", type=int, help=threads)


def given_to_both(options: argparse.Namespace, **named: Any) -> dict[str, Any]:
    """Notebook parameters that both commands have, and those `named`; without those that were not given."""
    real = str(paths.typed(options.real_dir)) if options.real_dir else ""
    given = {"dataset": dataset_of(options), "real_dir": real, "trick": UNKNOWN, "device": options.device}
    given |= {"threads": options.threads} | named
    return {name: value for name, value in given.items() if value is not None}


def dataset_of(options: argparse.Namespace) -> str:
    """The data set that --dataset names: itself or, as in the authors' code, a synthetic set whose name begins with it."""
    name = options.dataset.lower()
    return next((dataset for dataset in (*CIFAR, "eurosat") if name.startswith(f"{dataset}_")), name)


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
    """The last epoch is what counts; where the protocol tests while training, the best one is kept too, labelled."""
    settings, last, best = _train_settings(options)
    import torch

    from synthlib.data.real import DOWNLOADED, is_at_hand, load_real
    from synthlib.devices import device_named
    from synthlib.evaluation.predict import tester
    from synthlib.training.checkpoint import BEST_ON_TEST, load_model
    from synthlib.training.logs import epoch_logger
    from synthlib.training.replicates import require_test_images
    from synthlib.training.train import preparation_for, train

    torch.set_num_threads(settings.threads)
    require_test_images(settings)
    images, settings, number = _training_images(settings)
    preparation = preparation_for(settings, images.images.shape[-1])
    own = images.classes if settings.dataset == "own" else []
    test, told = None, "no real images: tested later, by `synthlib eval`"
    if settings.test_every or settings.real_dir or is_at_hand(settings.dataset):
        whose = "the training set"
        real = load_real(settings.dataset, settings.split, settings.real_dir, own, preparation.resized, whose)
        test = tester(real, images.classes, settings.batch_size)
        told = f"{len(real.labels):,} real test images of {settings.dataset}"
    print(f"{len(images.labels):,} images of {len(images.classes)} classes (trick {settings.trick}), {told}")
    for line in _unused_lines(settings, len(images.labels) + settings.unused_images):
        print(line)
    size = f"{preparation.image_size} px{'' if settings.image_size else ' (--img_size sets another size)'}"
    print(
        f"{settings.architecture} for {size}, init {settings.init}, protocol "
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
    if test and "test_eval_percent" not in tested:
        model, _ = load_model(last, settings.architecture, images.classes, preparation.image_size)
        tested = test(model.to(device_named(settings.device)), preparation)
    chance = 100 / len(images.classes)
    print(f"{os.path.relpath(last)}: last epoch, {_tested(tested, chance) if test else 'not tested yet'}")
    if trained.best:
        at_best = _tested(trained.history[trained.best_epoch - 1], chance)
        print(f"{os.path.relpath(best)}: epoch {trained.best_epoch}, chosen: {BEST_ON_TEST}, {at_best}")
    real = options.real_dir or ("" if settings.dataset in ("digits", *DOWNLOADED) else "FOLDER_OF_REAL_IMAGES")
    words = ["eval", "--model", options.architecture, "--model_path", os.path.relpath(last)]
    words += ["--dataset", settings.dataset]
    words += ["--real_data_location", real] if real else []
    if last.suffix != ".safetensors":  # no record says it
        words += ["--img_size", str(preparation.image_size), "--batch_size", str(settings.batch_size)]
    print(f"Next: synthlib {shlex.join(words)}")


def _train_settings(options: argparse.Namespace) -> tuple[TrainSettings, Path, Path]:
    """The settings, and where the checkpoints of the last and of the best epoch go: a folder that can be written."""
    from synthlib.runs.experiment import complete

    last = _last(options)
    best = last.with_name(f"best_on_test_{last.name.removeprefix('trained_')}")
    weights = str(paths.typed(options.weights)) if options.weights else ""
    trick = options.trick if options.trick == UNKNOWN else trick_name(options.trick)
    as_given = ("unused_images", "architecture", "init", "seed", "protocol", "epochs", "batch_size", "learning_rate",
                "weight_decay", "image_size", "log_to")  # fmt: skip
    given = given_to_both(options, run_dir=str(last.parent), trick=trick, generated_dir=str(_synthetic(options)), replicates=1,
                          weights=weights, **{name: getattr(options, name) for name in as_given})  # fmt: skip
    settings = TrainSettings(**complete("02_train", given))
    real = settings.real_dir or paths.data_home() / settings.dataset
    if Path(real).resolve() == Path(settings.generated_dir).resolve():
        raise InputError(
            f"{options.generated_dir} is given to learn from and to be tested on; expected images for training that are not "
            "the test images: give another --syn_data_location."
        )
    write_atomic(last.with_suffix(".state.probe"), b"")  # better now than after hours
    last.with_suffix(".state.probe").unlink()
    return settings, last, best


def _synthetic(options: argparse.Namespace) -> Path:
    """Where the images to learn from lie: in --syn_data_location or, where --dataset names a synthetic set, in that one there."""
    place, dataset = paths.typed(options.generated_dir), dataset_of(options)
    if options.dataset.lower() in (dataset, place.name.lower()):
        return place
    inside = sorted(place.iterdir()) if place.is_dir() else []
    found = [inner for inner in inside if inner.name.lower() == options.dataset.lower()]
    if not found:
        raise InputError(
            f"no {options.dataset} in {options.generated_dir}; expected a folder of that name there: give the folder above "
            f"it as --syn_data_location, or --dataset {dataset} and the images' own folder."
        )
    return next((inner for inner in found if inner.name == options.dataset), found[0])


def _unused_lines(settings: TrainSettings, n: int) -> list[str]:
    """What of n images is left out of training, and what the authors' loader would leave out."""
    unused = settings.unused_images
    lines = [f"{unused:,} more images, at random, are left out"] if unused else []
    if settings.protocol == "authors" and settings.dataset in CIFAR and unused != AUTHORS_UNUSED:
        more = f": --unused_images {AUTHORS_UNUSED} does so" if n > AUTHORS_UNUSED else ", and takes none so small"
        lines.append(f"the authors' loader leaves {AUTHORS_UNUSED:,} images of a CIFAR set out, at random{more}")
    return lines


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
    from synthlib.training.replicates import chosen_images, require_several
    from synthlib.training.train import preparation_for

    place, number, receipt = Path(settings.generated_dir), 0, receipts.read_receipt(settings.generated_dir)
    if receipt is None and any((place / name).exists() for name in (PLAN, "import.json")):
        raise InputError(f"{place} is not finished; give the command that makes it once more, and let it end.")
    if receipt is not None:
        set_files(place)  # checks each file
    drawn = receipt or receipts.read_receipt(paths.kept_beside(place))
    if drawn and settings.trick == UNKNOWN:
        settings = replace(settings, trick=drawn["parameters"]["trick"])
    source = open_source(place)
    require_several(source.classes, str(place))
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
    images = chosen_images(SyntheticSet(pixels, labels, known, rows), settings, number, settings.seed)
    return images, settings, number


def _epoch_lines(settings: TrainSettings) -> Callable[[dict], None]:
    """A function that prints each new row of the history under a heading."""
    from tqdm import tqdm

    heading = [f"epoch     loss  train %{'  test %: eval  authors' if settings.test_every else ''}"]

    def show(row: dict) -> None:
        line = f"{row['epoch']:>5}  {row['loss']:7.4f}  {row['train_accuracy_percent']:7.2f}"
        if "test_eval_percent" in row:
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


def _tested(row: dict, chance: float) -> str:
    modes = f"{row['test_eval_percent']:.2f} % (eval), {row['test_authors_percent']:.2f} % (authors)"
    return f"{modes}, chance {chance:.2f} %"
