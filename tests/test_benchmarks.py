"""The benchmarks print what they promise, whatever the timings; the document on hours and storage adds up."""

import json
import math
import os
import re
import runpy
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from synthlib.data.datasets import read_spec
from synthlib.generation.plan import n_rows
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import plan_steps
from synthlib.settings import GenerateSettings

FOLDER = ROOT / "benchmarks"
DOCUMENT = (ROOT / "docs" / "hours_and_storage.md").read_text(encoding="utf-8")
RESULTS = {file.stem: json.loads(file.read_text()) for file in sorted((FOLDER / "results").glob("*.json"))}


@pytest.fixture
def run(monkeypatch, capfd):
    """run("bench_plan", "--rows", "1000"): what the script prints with --json, as an object; the rest goes to stderr."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def start(name, *given):
        monkeypatch.setattr(sys, "argv", [name, *given, "--json"])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return json.loads(capfd.readouterr().out)

    yield start
    torch.set_num_threads(threads)


def check_described(result, name):
    assert result["benchmark"] == name and result["settings"] and re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["hardware"]["cpu"] and result["hardware"]["cores"] >= 1 and "gpu" in result["hardware"]
    assert {"python", "torch", "diffusers"} <= result["versions"].keys()


def check_positive(*values):
    assert all(math.isfinite(value) and value > 0 for value in values), values


def check_spread(found, n):
    check_positive(found["min"], found["median"], found["max"])
    assert found["min"] <= found["median"] <= found["max"] and found["n"] == n


def test_the_sampler_benchmark_compares_the_same_work(run):
    result = run(
        "bench_sampler", "--batch", "5", "--steps", "2", "--repeats", "2", "--threads", "1", "--loop-images", "1"
    )
    check_described(result, "bench_sampler")
    ratios = ("ratio_vs_batched", "ratio_vs_loop", "ratio_one_fifth_guidance_1")
    check_positive(*(result[name] for name in ratios))
    for found in (*result["images_per_second"].values(), *(result["ratios"][name] for name in ratios)):
        check_spread(found, 2)
    assert set(result["images_per_second"]) == {
        "ours", "pipeline_batched", "pipeline_loop", "ours_one_fifth_guidance_1"
    }  # fmt: skip
    # five images, two passes each, against one of them with one pass
    assert result["expected_ratio_one_fifth_guidance_1"] == pytest.approx(10 / 9, rel=1e-4)
    assert result["largest_difference_to_pipeline"] <= 1
    assert "1 images" in " ".join(result["notes"])


def test_the_plan_benchmark_gives_each_size_a_process_of_its_own(run):
    result = run("bench_plan", "--rows", "2000", "1000", "--repeats", "1")
    check_described(result, "bench_plan")
    assert [size["rows"] for size in result["sizes"]] == [1000, 2000]
    for size in result["sizes"]:
        assert size["shards"] == size["rows"] // 1000
        check_positive(*(size[name] for name in ("seconds", "rows_per_second", "peak_mb", "seconds_per_million_rows")))
        check_spread(size["spread"]["seconds"], 1)
        assert 0 <= size["peak_over_start_mb"] < size["peak_mb"]
    check_positive(result["rows_per_second"], result["peak_mb"], result["cost_per_row_ratio"])


def test_the_gpu_benchmark_runs_as_a_toy_and_says_so(run):
    result = run("bench_sd15_gpu", "--toy", "--steps", "2", "--batches", "1", "2", "--repeats", "1", "--no-compile")
    check_described(result, "bench_sd15_gpu")
    assert result["toy"] is True and result["limit"].startswith("Toy networks")
    assert [(row["variant"], row["batch"]) for row in result["rows"]] == [
        ("autocast", 2), ("half", 2), ("eager", 1), ("eager", 2)
    ]  # fmt: skip
    for row in result["rows"]:
        check_spread(row["spread"], 1)
        check_positive(row["images_per_second"], row["split_seconds"]["unet"], row["split_seconds"]["vae"])
        assert row["share_of_peak"] is None and row["tflop_per_second"] is None
    check_positive(result["ratio_vs_authors_setting"], result["ratio_vs_half_batch_2"])
    assert result["best"]["images_per_second"] == max(row["images_per_second"] for row in result["rows"][2:])


def test_without_a_gpu_the_gpu_benchmark_refuses_in_one_line():
    command = [sys.executable, str(FOLDER / "bench_sd15_gpu.py"), "--json"]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout == ""
    assert "--toy" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("Tesla T4", 65),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_is_the_cards_own_or_unknown(card, peak, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    assert runpy.run_path(str(FOLDER / "bench_sd15_gpu.py"))["peak_of"](card) == peak


def test_the_loader_benchmark_compares_the_same_images(run):
    result = run("bench_loader", "--images", "70", "--repeats", "2", "--device", "cpu")
    check_described(result, "bench_loader")
    assert result["settings"]["device"] == "cpu" and result["settings"]["num_workers"] == 0
    check_positive(result["seconds_to_decode_once"], result["png_bytes"], result["ratio_of_fastest"])
    for name in ("ratio_vs_per_item", "ratio_over_50_epochs_with_decoding"):
        check_spread(result["ratios"][name], 2)
        assert result[name] == result["ratios"][name]["median"]
    assert result["ratio_over_50_epochs_with_decoding"] < result["ratio_vs_per_item"]
    for name in ("ours", "per_item"):
        seconds, speed = result["seconds"][name], result["images_per_second"][name]
        check_spread(seconds, 2)
        assert speed["max"] == pytest.approx(70 / seconds["min"], rel=1e-3)
    # crops of the same images, normalised alike: as bright and as varied, up to chance
    assert result["mean_and_std_of_batches"]["ours"] == pytest.approx(
        result["mean_and_std_of_batches"]["per_item"], abs=0.15
    )


def test_the_training_benchmark_sets_our_loop_against_the_bare_step(run):
    given = ("--architectures", "mobilenet_v3_small", "resnet", "--steps", "2", "--rounds", "2", "--batch", "4")
    result = run("bench_train", *given, "--device", "cpu")
    check_described(result, "bench_train")
    assert result["settings"]["clock"] == "cpu"
    assert result["settings"]["steps_per_epoch"] == {"mobilenet_v3_small": 2, "resnet": 2}
    assert set(result["overhead_percent"]) == set(result["architectures"]) == {"mobilenet_v3_small", "resnet"}
    for name, row in result["architectures"].items():
        assert row["precision"] == "float32" and result["overhead_percent"][name] == row["overheads"]["cpu"]["median"]
        for clock, over in row["overheads"].items():
            ours, bare = (row["ms_per_step"][clock][kind] for kind in ("ours", "bare"))
            check_spread(ours, 2)
            check_spread(bare, 3)
            # no spell of ours is further from the bare ones than the extremes of both
            least, most = (100 * (a / b - 1) for a, b in ((ours["min"], bare["max"]), (ours["max"], bare["min"])))
            assert over["n"] == 2 and least - 0.1 <= over["min"] <= over["median"] <= over["max"] <= most + 0.1
            assert row["fastest"][clock] == pytest.approx(100 * (ours["min"] / bare["min"] - 1), abs=0.1)


def test_an_overhead_is_against_the_bare_steps_before_and_after(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    overheads = runpy.run_path(str(FOLDER / "bench_train.py"))["overheads"]
    assert overheads([1.0, 2.2, 3.0, 4.0, 5.0]) == pytest.approx([10, 0])  # bare, ours, bare, ours, bare


@pytest.mark.parametrize("name", ["bench_loader", "bench_train"])
def test_without_a_gpu_a_benchmark_asked_for_one_says_so_in_one_line(name):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--json", "--device", "cuda"]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout == ""
    assert "torch finds no GPU" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.realdata
def test_the_storage_benchmark_counts_whole_shards(run):
    result = run("bench_storage", "--images", "40", "--rows", "20")
    check_described(result, "bench_storage")
    for pixels, found in result["sizes"].items():
        assert (found["n"], found["shards"], found["pixels"]) == (40, 2, [int(pixels)] * 2)
        assert 0 < found["png_bytes"] < found["shard_bytes"]
        assert 0.8 * 32768 < found["latents_bytes"] < 1.05 * 32768


@pytest.mark.browser
def test_the_page_benchmark_opens_a_page_beside_a_blank_one(run, tmp_path):
    (tmp_path / "report.html").write_text("<!DOCTYPE html><title>x</title><p>" + 1000 * "x ")
    result = run("bench_page", "--page", str(tmp_path / "report.html"), "--repeats", "2")
    check_described(result, "bench_page")
    assert result["page_mb"] == pytest.approx((tmp_path / "report.html").stat().st_size / 1e6, rel=0.01)
    for name in ("desk", "phone"):
        check_spread(result["seconds"][f"page, {name}"], 2)
        check_spread(result["page_over_blank"][name], 2)


@pytest.mark.runs
def test_the_engine_benchmark_counts_every_part_and_step(run):
    result = run("bench_engine", "--shards", "2", "--steps", "6", "--repeats", "1")
    check_described(result, "bench_engine")
    check_spread(result["parts"]["notebook_seconds"], 2)
    assert result["parts"]["seconds_in_all"] >= result["parts"]["seconds_until_the_last"] > 0
    check_spread(result["done"]["seconds"], 1)
    assert result["done"]["steps"] == 3 * 3 + 1  # guidance 1 and 1.01, and the random one; figures


def test_every_benchmark_has_a_result_whose_figures_the_page_shows():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {result["benchmark"] for result in RESULTS.values()} == {
        file.stem for file in [*FOLDER.glob("bench_*.py"), *FOLDER.glob("simulate_*.py")]
    }
    for name, result in RESULTS.items():
        check_described(result, result["benchmark"])
        assert f"results/{name}.json" in page and "/" not in json.dumps(result["settings"])
    sampler, plan = RESULTS["bench_sampler_cpu2"], RESULTS["bench_plan_cpu2"]
    for ratio in ("ratio_vs_batched", "ratio_vs_loop", "ratio_one_fifth_guidance_1"):
        found = sampler["ratios"][ratio]
        assert f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})" in page, ratio
    loader, train = RESULTS["bench_loader_cpu1"], RESULTS["bench_train_cpu1"]
    for name, found in loader["ratios"].items():
        assert f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})" in page, name
    for name, row in train["architectures"].items():
        cpu, wall = (row["overheads"][clock] for clock in ("cpu", "wall"))
        shown = [f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})" for found in (cpu, wall)]
        assert f"| {name} | {row['steps_per_epoch']} | {' | '.join(shown)} |" in page
    for size in plan["sizes"]:
        assert f"| {size['rows']:,} | {size['seconds']:.2f} | {size['rows_per_second'] / 1e6:.2f} |" in page
    opened = RESULTS["bench_page"]
    for name in ("desk", "phone"):
        found, ratio = opened["seconds"][f"page, {name}"], opened["page_over_blank"][name]
        assert f"| {name} | {found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f}) |" in page
        assert f"| {ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f}) |" in page
    engine = RESULTS["bench_engine"]
    assert (
        engine["settings"]["shards"] == 64 and engine["parts"]["overhead_seconds_a_part"] <= 3
    )  # what the kit promises
    assert engine["done"]["steps"] >= 500 and engine["done"]["seconds"]["median"] < 20
    parts, done = engine["parts"], engine["done"]
    own, looked = parts["notebook_seconds"], done["seconds"]
    assert (
        f"| {engine['settings']['shards']} parts | {own['median']:.1f} ({own['min']:.1f} to {own['max']:.1f}) | "
        in page
    )
    assert f"| {parts['overhead_seconds_a_part']:.1f} |" in page
    assert f"{done['steps']} steps are seen to be done in {looked['median']:.1f} s ({looked['min']:.1f} to" in page
    assert "No GPU was at hand" in page and RESULTS["bench_sd15_gpu_toy_cpu"]["toy"] is True


def table(heading):
    """The rows of the first table below a heading of the document: first cell -> other cells, by the table's header."""
    lines = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def number(text):
    return float(text.replace(",", ""))


def counts(experiment):
    """Data set -> (images a trick, images drawn, images kept) of an experiment's plan, and "all"."""
    found = {}
    for step in plan_steps(read_experiment(experiment)):
        if step.notebook == "01_generate":
            settings = GenerateSettings(**step.parameters)
            n = n_rows(settings, read_spec(settings.dataset, settings.classes, settings.domains))
            _, drawn, kept = found.get(settings.dataset, (n, 0, 0))
            found[settings.dataset] = (n, drawn + (0 if settings.reuse_dirs else n), kept + n)
    return found | {"all": (None, *(sum(row[i] for row in found.values()) for i in (1, 2)))}


def test_the_document_counts_the_images_that_the_experiment_plans():
    stated, planned = table("Images"), counts("paper")
    assert stated.keys() == planned.keys()
    for name, (a_trick, drawn, kept) in planned.items():
        assert (number(stated[name]["drawn"]), number(stated[name]["kept"])) == (drawn, kept)
        assert a_trick is None or number(stated[name]["images a trick"]) == a_trick


def test_the_documents_throughputs_are_scaled_from_what_is_published():
    steps = {
        step.parameters["num_inference_steps"]
        for step in plan_steps(read_experiment("paper"))
        if step.notebook == "01_generate"
    }
    stated = table("Throughput")
    assert steps == {40} and list(stated) == ["T4", "A100", "H100", "H100, our goal"]
    for card, row in stated.items():
        if "goal" in card:
            assert "not measured" in row["source"] and row["iterations/s"] == ""
        else:
            assert number(row["images/s"]) == pytest.approx(number(row["iterations/s"]) * number(row["batch"]) / 40)
            assert re.search(r"scaled from .*\[(\w|-)+\]$", row["source"])
            assert f"[{row['source'].rsplit('[', 1)[1]}: https://" in DOCUMENT


def hours(images, images_per_second):
    found = images / images_per_second / 3600
    return f"{found:.0f}" if found >= 100 else f"{found:.1f}"


def test_the_documents_hours_follow_from_counts_and_throughputs():
    speeds = {card: number(row["images/s"]) for card, row in table("Throughput").items()}
    planned = counts("paper")
    for name, row in table("Hours").items():
        assert row == {card: hours(planned[name][1], speed) for card, speed in speeds.items()}
    assert f"all takes {hours(planned['all'][1], 1.79 * 4 / 40)} hours" in DOCUMENT


def test_the_documents_storage_follows_from_the_measured_bytes():
    measured, planned = RESULTS["bench_storage"]["sizes"], counts("paper")
    total = 0.0
    for name, row in table("Storage").items():
        kept = planned[name][2]
        assert number(row["kept"]) == kept
        if name != "all":
            found = measured[row["pixels"]]
            assert number(row["PNG bytes"]) == pytest.approx(found["png_bytes"], abs=0.51)
            assert number(row["bytes in a shard"]) == pytest.approx(found["shard_bytes"], abs=0.51)
            size = kept * found["shard_bytes"] / 1e9
            total += size
        else:
            size = total
        assert (row["GB"], row["GB with latents"]) == (f"{size:.2f}", f"{size + kept * 32768 / 1e9:.1f}")
    assert f"so {planned['all'][2] * 512 * 512 * 3 / 1e9:.0f} GB" in DOCUMENT


def test_the_documents_line_on_colab_follows_from_its_experiment():
    _, drawn, kept = counts("colab")["cifar10"]
    text = " ".join(DOCUMENT.split("\n## Colab\n")[1].split())
    assert f"draws {drawn:,} images" in text and f"keeps {kept:,}" in text
    assert f"{hours(drawn, 0.203)} hours on a T4 at 0.203 images/s, {hours(drawn, 0.179)} at 0.179" in text
    assert f"{kept * RESULTS['bench_storage']['sizes']['32']['shard_bytes'] / 1e9:.3f} GB" in text
