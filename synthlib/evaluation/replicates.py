"""All replicates of a condition, tested: logits of each classifier in both evaluation modes, and the result rows."""

import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from synthlib import costly, digests, receipts
from synthlib.data.real import load_real
from synthlib.data.sets import ImageSet
from synthlib.devices import device_named, hardware_name
from synthlib.evaluation.evaluate import (
    Classifier,
    Logits,
    calibration_rows,
    load_logits,
    logits_bytes,
    per_class_rows,
    result_rows,
)
from synthlib.evaluation.predict import EVAL_BATCH_SIZE, predict_authors, predict_eval, require_classes
from synthlib.files import write_atomic, write_json
from synthlib.inputs import InputError
from synthlib.interrupts import told_in_one_line
from synthlib.names import REAL_TRICKS
from synthlib.progress import progress
from synthlib.settings import EvaluateSettings
from synthlib.training.checkpoint import LAST, load_model, preparation_of, read_record

# A set's maker -> what rows call its images.
ORIGINS = {"01_generate": "drawn", "download": "hosted", "import": "imported"}


def load_test_images(settings: EvaluateSettings) -> ImageSet:
    """The real images that `settings` names; those that differ in size at the size that the checkpoints resize to.

    InputError: there is no checkpoint.
    """
    checkpoints = receipts.output_names(settings.trained_dir, ".safetensors")
    if not checkpoints:
        raise InputError(f"no checkpoint in {settings.trained_dir}; run notebooks/02_train.ipynb first.")
    size = preparation_of(read_record(receipts.read_output(settings.trained_dir, checkpoints[0]))).resized
    return load_real(settings.dataset, settings.split, settings.real_dir, settings.classes, size)


@told_in_one_line()
def evaluate_replicates(real: ImageSet, settings: EvaluateSettings, folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """Test each checkpoint of `trained_dir` on real images; return the files and the rows of results.csv.

    One row per (replicate, evaluation mode); of a checkpoint that was chosen on the test set one row, labelled so. Beside
    them per_class.csv, calibration.csv and the logits, from which all of it can be made again. Logits whose key (checkpoint,
    images, settings, code) is current are kept. InputError: checkpoint and real images differ in their classes.
    """
    torch.set_num_threads(settings.threads)
    trained = receipts.settings_of(settings.trained_dir)
    settings = replace(settings, batch_size=settings.batch_size or trained.batch_size)
    kept = {name: getattr(settings, name) for name in ("batch_size", "shuffles", "seed", "threads")}
    kept |= {"device": hardware_name(settings.device), "eval_batch_size": EVAL_BATCH_SIZE}
    kept |= {"images": real.digest(), "in_file_order": real.in_file_order}
    images, seed = _origin(settings)
    files, tables = [], {"results.csv": [], "per_class.csv": [], "calibration.csv": []}
    names = receipts.output_names(settings.trained_dir, ".safetensors")
    for name in progress(names, f"{settings.dataset} {settings.trick} {settings.architecture}", unit="checkpoint"):
        checkpoint = receipts.read_output(settings.trained_dir, name)
        record = read_record(checkpoint)
        require_classes(record["classes"], real, checkpoint.name)
        best = record["chosen"] != LAST
        path = folder / f"logits-{'best-' if best else ''}r{record['replicate']}.safetensors"
        key = costly.file_key("logits", kept | {"checkpoint": digests.sha256_file(checkpoint)})
        if not costly.is_current(path, key):
            start = time.monotonic()
            data = logits_bytes(_test(checkpoint, real, settings))
            costly.write_keyed(path, data, key, time.monotonic() - start)
        classifier = Classifier(
            dataset=settings.dataset,
            split=settings.split,
            trick=settings.trick,
            setting=settings.setting,
            images=images,
            architecture=settings.architecture,
            init=record["init"],
            protocol=trained.protocol_label(),
            replicate=record["replicate"],
            generation_seed=f"{seed}:{record['image_replicate']}",
            training_seed=record["training_seed"],
            unused_images=trained.unused_images,
            n_train=record["n_train"],
            n_steps=record["n_steps"],
        )
        logits = load_logits(path)
        tables["results.csv"] += result_rows(classifier, logits, best)
        if not best:
            tables["per_class.csv"] += per_class_rows(classifier, logits, real.classes)
            tables["calibration.csv"] += calibration_rows(classifier, logits)
        files.append(path)
    for name, rows in tables.items():
        write_atomic(folder / name, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
        files.append(folder / name)
    write_json(folder / "classes.json", real.classes)
    return [*files, folder / "classes.json"], pd.DataFrame(tables["results.csv"])


def _origin(settings: EvaluateSettings) -> tuple[str, str]:
    """What rows call the images that were learned from, and their generation seed (of images made elsewhere: a digest)."""
    if settings.trick in REAL_TRICKS:
        return "real", "real"
    receipt = receipts.read_receipt(settings.generated_dir)
    digest = digests.sha256_json(receipts.output_digests(settings.generated_dir))[:12]
    return ORIGINS.get(receipt["notebook"], "imported"), str(receipt["parameters"].get("seed", f"given {digest}"))


def _test(checkpoint: Path, real: ImageSet, settings: EvaluateSettings) -> Logits:
    model, record = load_model(checkpoint, settings.architecture, real.classes)
    model, preparation = model.to(device_named(settings.device)), preparation_of(record)
    how = (preparation, settings.batch_size, settings.shuffles, settings.seed, real.in_file_order)
    authors, order = predict_authors(model, real.images, *how)
    return Logits(eval=predict_eval(model, real.images, preparation), authors=authors, order=order, labels=real.labels)
