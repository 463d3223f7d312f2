"""Who is told of a training, epoch by epoch: a CSV file always, TensorBoard and Weights & Biases when asked."""

import contextlib
import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from synthlib.inputs import InputError, parameter
from synthlib.settings import TrainSettings


@contextlib.contextmanager
def epoch_logger(settings: TrainSettings, name: Path, replicate: int) -> Iterator[Callable[[dict], None]]:
    """Gives a function that takes each history row of one training, writes it to <name>.csv and to `settings.log_to`.

    The file begins anew with epoch 1; a training that goes on appends. TensorBoard's files lie in <name>.tensorboard, those
    of Weights & Biases in <name>.wandb. InputError: one that is asked for is not installed.
    """
    with contextlib.ExitStack() as stack:
        writers = [lambda row: _append(Path(f"{name}.csv"), row)]
        if "tensorboard" in settings.log_to:
            _require("tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            writer = stack.enter_context(SummaryWriter(f"{name}.tensorboard"))
            writers.append(lambda row: [writer.add_scalar(key, value, row["step"]) for key, value in row.items()])
        if "wandb" in settings.log_to:
            _require("wandb")
            import wandb

            folder = Path(f"{name}.wandb")
            folder.mkdir(parents=True, exist_ok=True)
            title = f"{settings.dataset}-{settings.trick}-{settings.architecture}-r{replicate}"
            config = json.loads(json.dumps(asdict(settings)))
            run = wandb.init(project="synthlib", name=title, dir=folder, config=config)
            stack.callback(run.finish)
            writers.append(lambda row: run.log(row, step=row["step"]))

        def tell(row: dict) -> None:
            for write in writers:
                write(row)

        yield tell


def _append(path: Path, row: dict) -> None:
    new = row["epoch"] == 1 or not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w" if new else "a", newline="", encoding="utf-8") as file:
        lines = [list(row), list(row.values())] if new else [list(row.values())]
        csv.writer(file, lineterminator="\n").writerows(lines)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{parameter('log_to')} needs {package}, which is not installed; run `pip install {package}`, or leave it out."
        )
