"""T3: our conditions beside CLIP zero-shot, run or not, and beside what peers published on the same data sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from synthlib.digests import sha256_file
from synthlib.files import read_json
from synthlib.inputs import InputError
from synthlib.names import BEST_MODE
from synthlib.results import MODE_LABELS, known, statistics, trick_label, varying
from synthlib.results.cells import (
    CHANCE,
    NOT_AVAILABLE,
    Condition,
    chance_of_all_classes,
    chance_text,
    count_text,
    covers_text,
    estimate_text,
    without_empty,
)
from synthlib.results.rows import CONDITION
from synthlib.results.tables import BEST_TRICKS, accuracy_by_trick

CLIP_COLUMNS = ["dataset", "split", "model", "weights", "quick_gelu", "prompts", "n_test", "top1_percent", "top1_low",
                "top1_high", "interval_method"]  # fmt: skip
COLUMNS = ["kind", *CONDITION, "method", "classifier", "learned_from", "accuracy_percent", "ci_low", "ci_high",
           "accuracy_values", "ci_method", CHANCE, "accuracy_covers_chance", "n_replicates", "n_train", "n_test",
           "published_percent", "published_source", "status"]  # fmt: skip
OURS, CLIP, PEER = "ours", "CLIP zero-shot", "peer"
DEFAULT_CLIP = "CLIP RN50"  # that the paper compares with; also the default of `synthlib baseline clip`


def read_clip(folder: str | Path) -> pd.DataFrame:
    """What `synthlib baseline clip` left below `folder` (papermill_runs/baselines): a row a run, CLIP_COLUMNS, n_classes.

    No row where there is none. InputError: a results.csv lacks one of the columns, or its run wrote other bytes.
    """
    found = [pd.DataFrame(columns=[*CLIP_COLUMNS, "n_classes"])]
    for path in sorted(Path(folder).glob("clip/*/results.csv")):
        record = read_json(path.with_name("record.json"))
        made = record.get("outputs_sha256") if isinstance(record, dict) else {}
        made = made if isinstance(made, dict) else {}
        for name in ("results.csv", "logits.safetensors"):
            file = path.with_name(name)
            if not file.is_file() or sha256_file(file) != made.get(name):
                raise InputError(
                    f"{file} is missing or not what `synthlib baseline clip` wrote (its sha256 is not in record.json beside "
                    "it): run that command again, or remove the folder."
                )
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        lacking = [name for name in CLIP_COLUMNS if name not in table.columns]
        if lacking:
            raise InputError(
                f"{path} lacks the columns {', '.join(lacking)}; expected what `synthlib baseline clip` writes: "
                "run it again, or remove the folder."
            )
        classes = record.get("classes")
        n_classes = len(classes) if isinstance(classes, list) else float("nan")
        found.append(table[CLIP_COLUMNS].assign(n_classes=n_classes))
    return pd.concat(found[1:] or found, ignore_index=True)


def against_baselines(
    rows: pd.DataFrame,
    published: pd.DataFrame,
    clip: pd.DataFrame,
    wanted: Iterable[Condition] = (),
    why_not_run: Mapping[Condition, str] | None = None,
) -> pd.DataFrame:
    """T3: by data set our conditions, as in T1 in modes eval and authors; then CLIP zero-shot; then the peers' values.

    kind: OURS, CLIP or PEER. clip: as `read_clip`, with Wilson's interval over test images. Each CLIP that is published on
    the data set (RN50 where none is) and was not run has status "not run: weights absent; ..." and the command that runs
    it. Published values are in their own columns, of a CLIP of OpenAI's weights too; peers have no other.
    """
    ours = accuracy_by_trick(rows, published, wanted, why_not_run)
    ours = ours[ours["evaluation_mode"] != BEST_MODE]
    table = []
    for dataset in dict.fromkeys(ours["dataset"]):
        here = published[published["dataset"] == dataset]
        for row in ours[ours["dataset"] == dataset].to_dict("records"):
            learned = f"{row['images']} images" if known(row["images"]) else ""
            words = {"kind": OURS, "method": row["trick"], "classifier": row["architecture"], "learned_from": learned}
            table.append({**row, **words})
        table += _clip_rows(dataset, here, clip[clip["dataset"] == dataset])
        others = here[~here["setting"].str.contains("this paper") & ~_is_clip(here)]
        for row in others.to_dict("records"):
            learned = f"{row['setting']} ({row['generator']})" if row["generator"] else row["setting"]
            table.append(
                {"kind": PEER, "dataset": dataset, "method": row["method"], "classifier": row["classifier"]}
                | {CHANCE: chance_of_all_classes(dataset)}
                | {"learned_from": learned, "published_percent": float(row["accuracy_percent"])}
                | {"published_source": row["source"], "status": "published only"}
            )
    integers = ["n_replicates", "n_train", "n_test"]
    return pd.DataFrame(table, columns=COLUMNS).astype(dict.fromkeys(integers, "Int64")).fillna({"setting": ""})


def _clip_rows(dataset: str, here: pd.DataFrame, clip: pd.DataFrame) -> list[dict[str, object]]:
    """The runs of CLIP on a data set, then each CLIP that is published there and was not run. here: its published rows."""
    table = []
    for run in clip.to_dict("records"):
        printed = _printed(run["model"])
        theirs = str(run["weights"]).startswith("openai") or str(run["quick_gelu"]) == "True"  # OpenAI's, or can be
        row = _clip_row(dataset, printed, here if theirs else here.iloc[:0]) | {"split": run["split"]}
        row |= {"accuracy_percent": float(run["top1_percent"]), "ci_low": float(run["top1_low"])}
        row |= {"ci_high": float(run["top1_high"]), "ci_method": run["interval_method"], "n_test": int(run["n_test"])}
        row[CHANCE] = 100 / run["n_classes"]
        interval = statistics.Interval(row["accuracy_percent"], row["ci_low"], row["ci_high"])
        row["accuracy_covers_chance"] = covers_text("accuracy_percent", interval, row[CHANCE], row["n_test"])
        status = f"run: weights {run['weights']}, prompts {run['prompts']}"
        table.append(row | {"status": status})
    names = dict.fromkeys(here.loc[_is_clip(here), "classifier"]) or [DEFAULT_CLIP]
    for name in names:
        if name not in {row["classifier"] for row in table}:
            command = f"synthlib baseline clip --dataset {dataset}"
            if name != DEFAULT_CLIP:
                command += f" --model {name.removeprefix('CLIP ').replace('/', '-')}"
            table.append(_clip_row(dataset, name, here) | {"status": f"not run: weights absent; {command}"})
    return table


def _clip_row(dataset: str, classifier: str, here: pd.DataFrame) -> dict[str, object]:
    """A CLIP with its published value: the CLIP paper's if there is one; other measurements of it are said in the source."""
    values = here[_is_clip(here) & (here["classifier"] == classifier)].to_dict("records")
    source = "; ".join(
        [v["source"] for v in values[:1]] + [f"{v['source']}: {v['accuracy_percent']}" for v in values[1:]]
    )
    row = {
        "kind": CLIP,
        "dataset": dataset,
        "method": CLIP,
        "classifier": classifier,
        "learned_from": "text and images",
    }
    row |= {CHANCE: chance_of_all_classes(dataset)} if values else {}
    return row | {
        "published_percent": float(values[0]["accuracy_percent"]) if values else NOT_AVAILABLE,
        "published_source": source or NOT_AVAILABLE,
    }


def _is_clip(published: pd.DataFrame) -> pd.Series:
    return published["method"].str.startswith(CLIP)


def _printed(model: str) -> str:
    """open_clip's name of a network as papers print it: ViT-B-32-quickgelu is CLIP ViT-B/32."""
    stem, _, patch = str(model).removesuffix("-quickgelu").rpartition("-")
    return f"CLIP {stem}/{patch}" if patch.isdigit() and stem else f"CLIP {str(model).removesuffix('-quickgelu')}"


def baselines_view(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """T3 for people: one line a method and classifier, of ours one a mode too; variants where there are several."""
    shown = [name for name in varying(table) if name != "images"]
    lines = []
    for place in range(len(table)):
        row = table.iloc[[place]]
        first = row.iloc[0]
        method = first["method"]
        if first["kind"] == OURS:
            method = trick_label(method) if method == BEST_TRICKS else f"ours: {trick_label(method)}"
        line = {"data set": first["dataset"], "method": method, "classifier": first["classifier"]}
        line |= {name: known(first[name]) for name in shown} | {"learned from": first["learned_from"]}
        line["evaluated in"] = MODE_LABELS.get(known(first["evaluation_mode"]), "")
        line["accuracy %"] = estimate_text(row, "accuracy_percent", digits)
        line["chance %"] = chance_text(first, digits)
        value = first["published_percent"]
        line["published %"] = value if value == NOT_AVAILABLE else f"{float(value):.{digits}f}"
        line["n test"] = count_text(first["n_test"])
        said = [first["published_source"]] if value != NOT_AVAILABLE else []
        said += [] if first["status"] == "run" else [first["status"].removeprefix("run: ")]
        lines.append(line | {"remark": "; ".join(said)})
    return without_empty(pd.DataFrame(lines))
