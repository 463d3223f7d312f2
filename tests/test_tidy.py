"""results.csv: every number that a run's tables and figures hold is found in it again, with its condition."""

import math

import pandas as pd
import pytest
from conftest import ROOT
from test_latex import t1_to_t6
from test_tables import evaluated, one

from synthlib.results import rows, tables, tidy
from synthlib.results.cells import unrun

# Columns of numbers that are no results: counts, seeds, and what a number is of.
NO_RESULTS = {"replicate", "epoch", "step", "images_per_class", "guidance", "guidance_low", "guidance_high", "label"}


@pytest.fixture(scope="module")
def of_tables(tmp_path_factory):
    """T1 to T6 of a small run, name -> frame."""
    return {name: frame for name, (frame, _) in t1_to_t6(tmp_path_factory.mktemp("runs")).items()}


def condition(**given):
    return unrun("digits", "merged", "cnn", "eval") | {"split": "test", "images": "drawn", "init": "scratch"} | given


def figure_frames(root):
    """Of each kind of figure data a small frame, with the columns that the kit gives it."""
    read = rows.read_evaluations([evaluated(root, "merged", [7, 8, 9], dataset="own", measures=[3.0, 4.0, 5.25])])
    measures = pd.DataFrame(
        [["digits", "merged", "", 0, "recall", "pixels-v1", 0.5125, 0.4375, 0.5875, 50, "drawn"]],
        columns=[*rows.MEASURE_COLUMNS, "images"],
    )
    per_class = pd.DataFrame([condition(replicate=0) | {"class": "three", "accuracy_percent": 61.25}])
    curve = pd.DataFrame(
        [condition(n_train=150, images_per_class=15.0, n_steps=50, mean=63.5, low=60.25, high=66.75, n_replicates=3)]
    )
    history = pd.DataFrame(
        [
            condition(epoch=e, quantity="loss", mean=2.5 / e, lowest=2.25 / e, highest=2.75 / e, n_replicates=2)
            for e in (1, 2)
        ]
    ).drop(columns="evaluation_mode")
    gains = pd.DataFrame(
        [condition(base="base_class", merged="merged", base_percent=50.5, merged_percent=53.75, gain_points=3.25, gain_low=1.125,
                   gain_high=5.375, gain_method="paired t over 3 replicates", n_pairs=3) | {"class": "three"}]
    ).drop(columns=["trick", "setting"])  # fmt: skip
    correlation = pd.DataFrame([condition(measure="recall", feature_space="pixels-v1", n_conditions=6, correlation=0.8125,
                                          correlation_low=0.3125, correlation_high=0.9375, correlation_method="m")])  # fmt: skip
    places = pd.DataFrame({"set": ["real", "merged"], "label": [3, 4], "x": [1.5, -2.125], "y": [0.375, 7.0625]})
    return {"rows": read, "measures": measures, "per_class": per_class, "images": curve, "training": history,
            "gains": gains, "correlation": correlation, "map": places}  # fmt: skip


def numbers_of(cells: pd.DataFrame):
    """(row, column, number) of every result in a CSV: whatever reads as a number, but for counts and NO_RESULTS."""
    for place, row in enumerate(cells.to_dict("records")):
        for name, text in row.items():
            if name in NO_RESULTS or name == "n" or name.startswith("n_") or name.endswith(("_n_train", "_seed")):
                continue
            try:
                yield place, name, float(text)
            except ValueError:
                pass  # words


def test_every_number_of_every_table_and_figure_is_found_in_results_csv(of_tables, tmp_path):
    frames = of_tables | figure_frames(tmp_path / "b")
    parts = [tidy.tidy(name, f"{name}.csv", frame) for name, frame in frames.items()]
    tidy.results_csv(parts, {}).to_csv(tmp_path / "results.csv", index=False, float_format="%.6g")
    found = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False)
    looked_up = 0
    for name, frame in frames.items():
        path = tables.write_table(frame, tmp_path / name, "c", "n")[0]
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        mine = found[found["file"] == f"{name}.csv"]
        columns = [column for column in tidy.WHO if column in cells]
        of_row = mine.groupby(columns or ["file"])
        for place, column, number in numbers_of(cells):
            who = tuple(cells.iloc[place][columns]) or (f"{name}.csv",)
            lines = of_row.get_group(who)[["value", "low", "high", "published", "chance"]]
            stated = {float(text) for text in lines.to_numpy().ravel() if text.replace("not available", "")
                      and text.lstrip("-").replace(".", "", 1).replace("e-", "").isdigit()}  # fmt: skip
            assert any(math.isclose(number, other, rel_tol=1e-5) for other in stated), (name, place, column, number)
            looked_up += 1
    assert looked_up > 400


def test_an_estimate_has_its_interval_its_method_its_counts_and_its_published_value(of_tables):
    frame = of_tables["T1"]
    table = tidy.tidy("T1", "accuracy_by_trick.csv", frame)
    row = one(table, dataset="cifar10", trick="base_class", evaluation_mode="authors", quantity="accuracy_percent")
    theirs = one(frame, dataset="cifar10", trick="base_class", evaluation_mode="authors")
    assert (row["value"], row["low"], row["high"]) == tuple(theirs[["accuracy_percent", "ci_low", "ci_high"]])
    assert row["method"] == theirs["ci_method"] and row["result"] == "T1" and row["status"] == "run"
    assert (row["n_replicates"], row["n_train"], row["n_test"]) == (3, 100, 10)
    assert (row["published"], row["published_source"]) == ("60.5", "authors' README (2023-04-12 table)")
    ece = one(table, dataset="cifar10", trick="base_class", evaluation_mode="authors", quantity="ece_percent")
    assert ece["published"] == "" and ece["value"] == 3


def test_a_difference_has_both_intervals_and_its_p_values_are_lines_of_their_own(of_tables):
    table = tidy.tidy("T4", "claims.csv", of_tables["T4"])
    mine = table[(table["dataset"] == "digits") & (table["trick"] == "merged") & (table["evaluation_mode"] == "eval")]
    mine = mine[mine["architecture"] == "cnn"]
    assert mine["quantity"].tolist() == ["difference_points", "difference_points", "p", "p_holm"]
    assert mine["method"].str[:9].tolist() == ["paired t ", "crossed b", "paired t ", "paired t "]
    assert mine["method"].iloc[3].endswith("Holm over 4 claims") and set(mine["status"]) == {"undecided; equal n_train"}
    assert "baseline=base_class" in mine["where"].iloc[0] and "sign=above" in mine["where"].iloc[0]


def test_what_was_not_run_is_one_line_with_its_status(of_tables):
    table = tidy.tidy("T1", "t.csv", of_tables["T1"])
    row = one(table, trick="prompt_list", evaluation_mode="eval")
    assert (
        row["status"].startswith("not run: no list") and pd.isna(row["value"]) and row["quantity"] == "accuracy_percent"
    )
    best = one(table, trick="best tricks")
    assert best["published"] == "81" and best["status"].startswith("published only")


def test_other_columns_say_where_a_number_stands(tmp_path):
    frames = figure_frames(tmp_path)
    row = one(tidy.tidy("F8", "f.csv", frames["per_class"]))
    assert (row["where"], row["quantity"], row["value"], row["replicate"]) == (
        "class=three",
        "accuracy_percent",
        61.25,
        "0",
    )
    row = one(tidy.tidy("F4", "f.csv", frames["measures"]))
    assert row["where"] == "measure=recall; feature_space=pixels-v1; n=50"
    assert (row["value"], row["low"], row["high"], row["method"]) == (0.5125, 0.4375, 0.5875, "bootstrap over images")
    lines = tidy.tidy("F9", "f.csv", frames["training"])
    assert lines["quantity"].tolist() == ["loss", "loss"] and lines["where"].tolist() == ["epoch=1", "epoch=2"]
    assert lines["low"].tolist() == [2.25, 1.125] and set(lines["method"]) == {"lowest and highest replicate"}
    lines = tidy.tidy("F5", "f.csv", frames["map"])
    assert lines[["where", "quantity", "value"]].to_numpy().tolist()[:2] == [
        ["set=real; label=3", "x", 1.5], ["set=real; label=3", "y", 0.375]
    ]  # fmt: skip


def test_each_line_says_where_it_was_evaluated(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [7, 8]), evaluated(tmp_path, "merged", [8, 9], setting="guidance=3")]
    part = tidy.tidy(
        "T1",
        "t.csv",
        tables.accuracy_by_trick(
            rows.read_evaluations(dirs), rows.read_published(ROOT / "experiments" / "published.csv")
        ),
    )
    plain = {"run_dir": "papermill_runs/a", "commit": "beef"}
    table = tidy.results_csv(
        [part], {("digits", "merged", "cnn"): plain, ("digits", "merged+guidance=3", "cnn"): {"commit": "c0ffee"}}
    )
    assert list(table.columns) == [*tidy.COLUMNS, "run_dir", "commit"]
    assert set(table.loc[table["setting"] == "", "run_dir"]) == {"papermill_runs/a"}
    own = table[table["setting"] == "guidance=3"]
    assert set(own["commit"]) == {"c0ffee"} and set(own["run_dir"]) == {""}


def test_each_accuracy_has_its_chance_and_few_values_stand_with_their_line(of_tables, tmp_path):
    table = tidy.tidy("T2", "t.csv", of_tables["T2"])
    mine = table[
        (table["dataset"] == "digits") & (table["architecture"] == "cnn") & (table["evaluation_mode"] == "eval")
    ]
    assert mine["quantity"].tolist() == ["base_percent", "merged_percent", *["difference_points"] * 2, "p"]
    assert mine["values"].tolist() == ["50 40 60", "80 70 90", "30 30 30", "", ""]
    assert mine["covers_chance"].tolist() == ["yes", "no", "", "", ""]
    assert mine["chance"].dropna().tolist() == [50, 50]
    frames = figure_frames(tmp_path)
    parts = [tidy.tidy("F8", "f.csv", frames[name]) for name in ("gains", "per_class", "training")]
    table = tidy.results_csv(parts, {}, {"digits": 4})
    chance = dict(zip(table["quantity"], table["chance"], strict=True))
    assert chance["base_percent"] == chance["accuracy_percent"] == 25
    assert math.isnan(chance["gain_points"]) and math.isnan(chance["loss"])


def test_nothing_at_all_is_an_empty_frame_with_every_column():
    table = tidy.results_csv([tidy.tidy("T1", "t.csv", pd.DataFrame(columns=["trick", "accuracy_percent"]))], {})
    assert table.empty and list(table.columns) == tidy.COLUMNS


@pytest.mark.parametrize("name", ["T1", "T2", "T3", "T4", "T5", "T6"])
def test_no_line_of_a_table_is_said_twice(of_tables, name):
    table = tidy.tidy(name, "t.csv", of_tables[name])
    assert not table.duplicated().any() and len(table) > 5
