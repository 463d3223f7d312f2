"""All replicates of a condition, tested: logits of each classifier in both evaluation modes, and the result rows."""

import time
from pathlib import Path

import pandas as pd
import torch

from synthlib import digests, receipts
from synthlib.data.datasets import ImageSet
from synthlib.devices import device_named, hardware_name
from synthlib.evaluation.evaluate import Classifier, Logits, load_logits, logits_bytes, per_class_rows, result_rows
from synthlib.evaluation.predict import predict_authors, predict_eval
from synthlib.progress import progress
from synthlib.settings import EvaluateSettings, InputError
from synthlib.training.train import load_model, read_record

EVAL_BATCH_SIZE = 256  # of `eval` mode, where a prediction does not depend on its batch but for last bits


def evaluate_replicates(real: ImageSet, settings: EvaluateSettings, folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """Test each checkpoint of `trained_dir` on real images; return the files and the rows of results.csv.

    One row per (replicate, evaluation mode). Logits whose key (checkpoint, images, settings, code) is current are kept.
    Raises InputError where checkpoint and real images differ in their classes.
    """
    torch.set_num_threads(settings.threads)
    kept = {name: getattr(settings, name) for name in ("batch_size", "shuffles", "seed", "threads")}
    kept["device"] = hardware_name(settings.device)
    images = digests.sha256_bytes(real.images.numpy().tobytes() + real.labels.numpy().tobytes())
    drawn = receipts.read_receipt(settings.generated_dir)["parameters"]
    set_digest = digests.sha256_json(receipts.output_digests(settings.generated_dir))[:12]  # of images made elsewhere
    origin = drawn.get("seed", f"given {set_digest}")
    files, rows, by_class = [], [], []
    names = receipts.output_names(settings.trained_dir, ".safetensors")
    for name in progress(names, f"{settings.dataset} {settings.trick} {settings.architecture}", unit="replicate"):
        checkpoint = receipts.read_output(settings.trained_dir, name)
        record = read_record(checkpoint)
        if record["classes"] != real.classes:
            raise InputError(
                f"{checkpoint} was trained on classes {record['classes']}; expected those of {settings.dataset}: "
                f"{real.classes}. Train on images of this data set."
            )
        path = folder / f"logits-r{record['replicate']}.safetensors"
        key = receipts.file_key(
            "logits",
            kept
            | {"images": images, "eval_batch_size": EVAL_BATCH_SIZE, "checkpoint": digests.sha256_file(checkpoint)},
        )
        if not receipts.is_current(path, key):
            start = time.monotonic()
            data = logits_bytes(_test(checkpoint, real, settings))
            receipts.write_keyed(path, data, key, time.monotonic() - start)
        classifier = Classifier(
            dataset=settings.dataset,
            trick=settings.trick,
            architecture=settings.architecture,
            replicate=record["replicate"],
            generation_seed=f"{origin}:{record['replicate']}",
            training_seed=record["training_seed"],
            n_train=record["n_train"],
            n_steps=record["n_steps"],
        )
        logits = load_logits(path)
        rows += result_rows(classifier, logits)
        by_class += per_class_rows(classifier, logits, real.classes)
        files.append(path)
    table = pd.DataFrame(rows)
    for name, content in (("results.csv", table), ("per_class.csv", pd.DataFrame(by_class))):
        receipts.write_atomic(folder / name, content.to_csv(index=False, lineterminator="\n").encode())
        files.append(folder / name)
    receipts.write_json(folder / "classes.json", real.classes)
    return [*files, folder / "classes.json"], table


def _test(checkpoint: Path, real: ImageSet, settings: EvaluateSettings) -> Logits:
    model = load_model(checkpoint, settings.architecture, len(real.classes), real.images.shape[-1]).to(
        device_named(settings.device)
    )
    authors, order = predict_authors(model, real.images, settings.batch_size, settings.shuffles, settings.seed)
    return Logits(
        eval=predict_eval(model, real.images, EVAL_BATCH_SIZE), authors=authors, order=order, labels=real.labels
    )
