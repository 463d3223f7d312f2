"""Measures of generated sets: numbers one can check by hand, equal to torch-fidelity's, with intervals over images."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from test_redraw import make_set

from synthlib import receipts
from synthlib.data.real import load_real
from synthlib.data.shards import read_shards
from synthlib.evaluation import measure, resample, scores
from synthlib.evaluation.clip_zero_shot import Clip, Preparation
from synthlib.evaluation.diversity import pairwise_distance, prdc, vendi, vendi_per_class
from synthlib.evaluation.gaps import frechet_distance, kernel_distance
from synthlib.evaluation.measure import first_of_classes, measure_replicates
from synthlib.evaluation.referee import Judge
from synthlib.evaluation.resample import Images, draws, interval, measure_rows, score_row
from synthlib.inputs import InputError
from synthlib.results.rows import MEASURE_COLUMNS
from synthlib.training.replicates import chosen_images

pytestmark = pytest.mark.usefixtures("one_thread")


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(1)


def gaussian(n: int, dimensions: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Of the generated images alone


def test_vendi_of_k_equal_clusters_of_orthogonal_directions_is_k():
    for k in (1, 2, 5):
        clusters = 3 * torch.eye(8)[:k].repeat_interleave(4, dim=0)  # lengths do not count, directions do
        assert vendi(clusters) == pytest.approx(k)
        assert vendi(clusters.repeat(5, 1)) == pytest.approx(k)  # more rows than dimensions: the other Gram matrix


def test_vendi_weighs_clusters_by_size_and_leaves_blank_rows_out():
    three_to_one = torch.eye(4)[[0, 0, 0, 1]]
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert vendi(three_to_one) == pytest.approx(expected)
    assert vendi(torch.cat([three_to_one, torch.zeros(3, 4)])) == pytest.approx(expected)
    assert vendi(torch.zeros(3, 4)) == 1
    counts = torch.tensor([3, 1, 0, 0])
    assert vendi(torch.eye(4), counts) == pytest.approx(expected)


def test_vendi_per_class_looks_within_each_class():
    features, labels = torch.eye(4)[[0, 1, 2, 2]], torch.tensor([0, 0, 3, 3])
    assert vendi_per_class(features, labels) == {0: pytest.approx(2), 3: pytest.approx(1)}


def test_pairwise_distance_is_the_mean_over_pairs_of_a_class_then_over_classes():
    """0, 1 and 5 have distances 1, 4 and 5: mean 10/3. 7 and 9 have 2. A class of one image has no pair."""
    features, labels = points(0, 1, 5, 7, 9, 100), torch.tensor([0, 0, 0, 1, 1, 2])
    assert pairwise_distance(features, labels) == pytest.approx((10 / 3 + 2) / 2)
    assert math.isnan(pairwise_distance(points(1), torch.tensor([0])))


# Against real images


def test_precision_recall_density_coverage_of_points_on_a_line():
    """Real 0, 1, 2, 3 and generated 0, 0.5, 10: with k = 1 every real ball has radius 1.

    Generated balls: 0.5, 0.5 and 9.5 (10 reaches back to 0.5). 0 and 0.5 each lie in the balls of 0 and 1:
    precision 2/3, density (2 + 2 + 0) / 3. Real 0 and 1 lie in small generated balls, 1, 2 and 3 in the large one:
    recall 1. Real balls with a generated row in them are those of 0 and 1: coverage 1/2.
    """
    result = prdc(points(0, 1, 2, 3), points(0, 0.5, 10), k=1)
    assert result.precision == pytest.approx(2 / 3)
    assert result.density == pytest.approx(4 / 3)
    assert result.recall == 1
    assert result.coverage == 0.5


def test_recall_falls_with_collapse_and_precision_does_not():
    real = points(0, 1, 2, 3, 4, 5, 6, 7)
    collapsed = points(3.0, 3.1, 2.9, 3.05)  # k = 1: balls of radius 0.05, 0.05, 0.1 and 0.05 hold the real 3 only
    result = prdc(real, collapsed, k=1)
    assert result.precision == 1 and result.recall == 1 / 8
    same = prdc(real, real, k=1)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_the_number_of_neighbours_is_capped_by_the_smaller_set():
    assert prdc(points(0, 1, 2), points(0, 1), k=5) == prdc(points(0, 1, 2), points(0, 1), k=1)
    with pytest.raises(InputError, match="two or more"):
        prdc(points(0, 1, 2), points(0))


def standardised(n: int, dimensions: int, seed: int) -> torch.Tensor:
    """Rows whose mean is exactly 0 and whose covariance (n - 1) is exactly the identity."""
    rows = gaussian(n, dimensions, seed)
    q = torch.linalg.qr(rows - rows.mean(0)).Q
    return q * math.sqrt(n - 1)


def test_fid_of_gaussians_on_a_line_is_the_squared_difference_of_means_and_of_deviations():
    # -1 and 1 have mean 0 and variance 2; 3 and 9 have mean 6 and variance 18: 36 + (sqrt(2) - sqrt(18))^2 = 36 + 8
    assert frechet_distance(points(-1, 1), points(3, 9)) == pytest.approx(44)
    assert frechet_distance(points(-1, 1), points(-1, 1)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [3, 40])  # hardly more rows than dimensions, and many
def test_fid_of_gaussians_with_the_same_axes_adds_up_over_the_axes(n):
    """Means (1, 2) and (4, 6), deviations (1, 3) and (2, 5): 9 + 16 + 1 + 4 = 30."""
    ours = standardised(n, 2, 0) * torch.tensor([1.0, 3]) + torch.tensor([1.0, 2])
    theirs = standardised(n + 5, 2, 1) * torch.tensor([2.0, 5]) + torch.tensor([4.0, 6])
    assert frechet_distance(ours, theirs) == pytest.approx(30)
    assert frechet_distance(theirs, ours) == pytest.approx(30)


def test_kid_of_two_points_each_by_hand():
    """Real (1, 0), (0, 1); generated (1, 1), (-1, 1). With D = 2 the kernel is (x.y / 2 + 1)^3.

    Between the two real: 1. Between the two generated: 1. Across: x.y = 1, -1, 1, 1, so 3.375 three times and 0.125.
    KID = 1 + 1 - 2 (3 * 3.375 + 0.125) / 4 = -3.125.
    """
    real, generated = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[1.0, 1], [-1, 1]])
    assert kernel_distance(real, generated) == pytest.approx(-3.125)


@pytest.mark.parametrize("dimensions", [12, 90])  # fewer and more than images
def test_fid_kid_precision_and_recall_are_torch_fidelity_s(dimensions):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, generated = gaussian(60, dimensions, 0), 1.2 * gaussian(60, dimensions, 1) + 0.1
    statistics = [fid_features_to_statistics(x) for x in (real, generated)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(real, generated) == pytest.approx(theirs, rel=1e-5)
    kid = kid_features_to_metric(
        real, generated, kid_subsets=1, kid_subset_size=60, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=0, verbose=False,
    )  # fmt: skip
    assert kernel_distance(real, generated) == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-9)
    # its first set is the generated one
    precision, recall = calculate_precision_recall_full(generated, real, neighborhood=5)
    ours = prdc(real, generated, k=5)
    assert (ours.precision, ours.recall) == (pytest.approx(precision, abs=1e-6), pytest.approx(recall, abs=1e-6))


# Resamples


ALL = (*resample.WITHOUT_REAL, *resample.AGAINST_REAL)


def test_a_resample_counts_for_what_its_rows_written_out_would():
    """Every measure of counts is the measure of the repeated rows themselves."""
    ours, theirs, labels = gaussian(12, 3, 0), gaussian(10, 3, 1), torch.arange(12) % 2
    draw = draws(labels, 10, 2)[1]
    assert (draw.generated == 0).any() and (draw.real > 1).any()  # else nothing is tested
    held = resample.Features(ours, labels, theirs)
    counted = resample._values(ALL, held, draw)
    some, real = (counts.repeat_interleave(counts).numel() for counts in (draw.generated, draw.real))
    assert (some, real) == (12, 10)
    rows = torch.arange(12).repeat_interleave(draw.generated)
    written = resample.Features(ours[rows], labels[rows], theirs.repeat_interleave(draw.real, dim=0))
    expected = resample._values(ALL, written, resample.Draw())
    assert counted == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}


def test_draws_stay_within_classes_and_are_the_same_each_time():
    labels = torch.tensor([0] * 5 + [1] * 3)
    for draw, again in zip(draws(labels, 4, 10), draws(labels, 4, 10), strict=True):
        assert draw.generated[:5].sum() == 5 and draw.generated[5:].sum() == 3 and draw.real.sum() == 4
        assert torch.equal(draw.generated, again.generated) and torch.equal(draw.real, again.real)
    assert len({tuple(draw.generated.tolist()) for draw in draws(labels, 4, 10)}) > 5
    with pytest.raises(InputError, match="bootstraps is 1"):
        draws(labels, 4, 1)


def test_an_interval_is_the_estimate_and_twice_1_96_standard_errors():
    # 1, 2, 3 have a standard deviation of 1; their mean is not the estimate
    assert interval(10, [1, 2, 3]) == (pytest.approx(10 - 1.96), pytest.approx(10 + 1.96))
    assert interval(10, []) == (None, None)


def test_the_bootstrap_s_standard_error_of_a_mean_is_that_of_the_formula():
    scored = torch.tensor([0.0, 100.0]).repeat(200)
    row = score_row("agreement", scored, torch.zeros(400, dtype=torch.int64), IMAGES, "glyphs", bootstraps=400)
    half = (row["high"] - row["low"]) / 2
    assert row["value"] == 50 and half == pytest.approx(1.96 * 50 / math.sqrt(400), rel=0.15)


IMAGES = Images("digits", "merged", "guidance=3", 0)
WHO = {"dataset": "digits", "trick": "merged", "setting": "guidance=3", "replicate": 0}


def test_measure_rows_are_rows_of_measures_csv():
    features, labels = torch.eye(4)[[0, 1, 2, 2]], torch.tensor([0, 0, 1, 1])
    rows = measure_rows(["vendi_per_class", "recall"], features, labels, features, IMAGES, "pixels-v1")
    none = {"low": None, "high": None, "n": 4}
    assert rows == [
        {**WHO, "measure": "vendi_per_class", "feature_space": "pixels-v1", "value": 1.5, **none},
        {**WHO, "measure": "recall", "feature_space": "pixels-v1", "value": 1.0, **none},
    ]
    assert list(rows[0]) == measure.COLUMNS == MEASURE_COLUMNS
    with pytest.raises(InputError, match="did you mean 'recall'"):
        measure_rows(["recal"], features, labels, features, IMAGES, "pixels-v1")
    with pytest.raises(InputError, match="fid need real images"):
        measure_rows(["vendi", "fid"], features, labels, None, IMAGES, "pixels-v1")


def test_every_measure_has_an_interval_around_it_and_repeats_exactly():
    ours, theirs, labels = gaussian(40, 5, 0), gaussian(40, 5, 1), torch.arange(40) % 4
    rows = measure_rows(ALL, ours, labels, theirs, IMAGES, "s", bootstraps=20)
    assert [row["measure"] for row in rows] == list(ALL)
    assert all(row["low"] < row["value"] < row["high"] for row in rows)
    assert rows == measure_rows(ALL, ours, labels, theirs, IMAGES, "s", bootstraps=20)


def test_600_images_and_50_bootstraps_take_seconds():
    ours, theirs, labels = gaussian(600, 128, 0), gaussian(600, 128, 1), torch.arange(600) % 10
    start = time.process_time()
    names = ["vendi_per_class", "recall", "precision", "density", "coverage", "kid", "fid"]
    measure_rows(names, ours, labels, theirs, IMAGES, "s", bootstraps=50)
    assert time.process_time() - start < 8  # 1.2 s where it was written


# Scores of single images


def test_agreement_is_the_share_whose_drawn_class_the_judge_sees(drawn):
    """The judge says seven to all: 100 for each seven, 0 for each three; its classes stand in another order."""
    images = read_shards(drawn)
    judge = Judge("always seven", ["seven", "three"], lambda x: torch.tensor([[2.0, 1]]).expand(len(x), 2))
    found = scores.agreement(images, judge)
    assert images.classes == ["three", "seven"]
    assert found.tolist() == [100 if label == 1 else 0 for label in images.labels.tolist()]
    with pytest.raises(InputError, match="unknown class of the judge 'three'"):
        scores.agreement(images, Judge("no three", ["seven", "eight"], judge.logits))


class Planes(torch.nn.Module):
    """A CLIP of two dimensions: an image is (its mean, 0); a text its length's (cosine, sine) in tenths of a turn."""

    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))

    def encode_image(self, images):
        return torch.stack([images.mean((1, 2, 3)), torch.zeros(len(images))], dim=1)

    def encode_text(self, lengths):
        turns = 2 * math.pi * lengths / 60
        return torch.stack([turns.cos(), turns.sin()], dim=1)


def test_clip_score_is_a_hundred_times_the_cosine_with_the_image_s_own_prompt(drawn):
    """Every image lies along (1, 0), a prompt of n letters at n sixtieths of a turn: 100 cos, and 0 where that is less."""
    images = read_shards(drawn)
    preparation = Preparation(32, (0, 0, 0), (1, 1, 1), "bilinear", True)
    tokenize = lambda texts: torch.tensor([len(text) for text in texts])  # noqa: E731
    clip = Clip(Planes(), tokenize, preparation, "planes", "none", "", False)
    lengths = [len(prompt) for prompt in images.column("prompt")]
    expected = [max(0, 100 * math.cos(2 * math.pi * n / 60)) for n in lengths]
    assert len(set(lengths)) > 3 and 0 in expected
    assert scores.clip_scores(images, clip).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_clip_whose_weights_are_damaged_gives_no_number(drawn, value):
    from synthlib.evaluation.clip_zero_shot import class_embeddings, image_logits

    images = read_shards(drawn)
    preparation = Preparation(32, (0, 0, 0), (1, 1, 1), "bilinear", True)
    tokenize = lambda texts: torch.tensor([float(len(text)) for text in texts])  # noqa: E731
    clip = Clip(network := Planes(), tokenize, preparation, "planes", "none", "", False)
    embeddings = class_embeddings(clip, ["cat", "bird"], ["a {}"])
    network.logit_scale.data.fill_(value)
    with pytest.raises(InputError, match="not finite"):
        image_logits(clip, embeddings, images.images)
    network.encode_text = lambda lengths: torch.full((len(lengths), 2), value)
    for asked in (lambda: scores.clip_scores(images, clip), lambda: class_embeddings(clip, ["cat"], ["a {}"])):
        with pytest.raises(InputError, match="not finite"):
            asked()


def test_a_clip_score_without_weights_is_a_line_and_no_row(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    images = read_shards(drawn)
    assert scores.score_images("clip_score", images, "digits", ["pixels-v1"], "cpu") == {}
    assert "not run: clip_score in clip-vit-b-32-openai-v1: weights absent" in capsys.readouterr().out
    assert scores.score_images("agreement", images, "cifar10", [], "cpu") == {}
    assert "`synthlib baseline clip --dataset cifar10` fetches them" in capsys.readouterr().out
    assert list(scores.score_images("agreement", images, "digits", [], "cpu")) == ["glyphs"]


# A step's files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished set of merged images of three and seven, six of each class in each of two replicates."""
    return make_set(tmp_path_factory.mktemp("set"), trick="merged", images_per_class=6, replicates=2, seed=3)


def evaluate_settings(settings, drawn, **given):
    given = {"bootstraps": 5, "classes": ["three", "seven"], "generated_dir": str(drawn)} | given
    given = {"trained_dir": str(drawn / "nothing was trained")} | given
    return settings("03_eval", device="cpu", **given)


def test_measures_csv_has_a_row_for_each_measure_space_and_replicate(settings, drawn, tmp_path):
    chosen = evaluate_settings(
        settings, drawn, setting="guidance=3", measures=["vendi", "fid", "agreement"],
        feature_spaces=["pixels-v1", "pocket-referee-v1"],
    )  # fmt: skip
    files, frame = measure_replicates(chosen, tmp_path)
    assert files == [tmp_path / "measures.csv"] and list(frame.columns) == MEASURE_COLUMNS
    assert frame.groupby(["measure", "feature_space"], sort=False)["replicate"].agg(list).to_dict() == {
        ("vendi", "pixels-v1"): [0, 1], ("fid", "pixels-v1"): [0, 1], ("vendi", "pocket-referee-v1"): [0, 1],
        ("fid", "pocket-referee-v1"): [0, 1], ("agreement", "glyphs"): [0, 1],
    }  # fmt: skip
    assert set(frame["setting"]) == {"guidance=3"} and set(frame["n"]) == {12}
    assert (frame["low"] <= frame["value"]).all() and (frame["value"] <= frame["high"]).all()
    read = pd.read_csv(files[0])
    assert read["value"].tolist() == frame["value"].tolist()
    assert measure_replicates(chosen, tmp_path)[1].equals(frame)


@pytest.mark.parametrize(("few", "n"), [({"images_per_class": 2}, 4), ({"unused_images": 5, "seed": 3}, 7)])
def test_what_is_measured_is_what_was_learned_from(settings, drawn, tmp_path, few, n):
    """A training with some of the six images of each of two classes: their measures, not those of all that were drawn."""
    train = settings("02_train", trick="merged", generated_dir=str(drawn), **few)
    receipts.begin("02_train", train).finish([])
    chosen = evaluate_settings(
        settings, drawn, measures=["vendi"], feature_spaces=["pixels-v1"], trained_dir=train.run_dir
    )
    _, frame = measure_replicates(chosen, tmp_path)
    images = read_shards(drawn)
    for number in (0, 1):
        learned = chosen_images(images.replicate(number), train, number, train.seed + number).images
        row = frame[frame["replicate"] == number].iloc[0]
        assert row["n"] == n and row["value"] == pytest.approx(vendi(measure.extract_features(learned, "pixels-v1")))


def test_unknown_measures_and_spaces_are_refused_before_anything_is_read(settings, drawn, tmp_path):
    nowhere = {"generated_dir": str(tmp_path / "nothing")}
    for given, said in (
        ({"measures": ["vendy"]}, "did you mean 'vendi'"),
        ({"feature_spaces": ["pixel-v1"]}, "did you mean 'pixels-v1'"),
        ({"feature_spaces": ["pixels-v1"], "keep_features": True}, "other than pixels-v1"),
    ):
        with pytest.raises(InputError, match=said):
            measure_replicates(evaluate_settings(settings, drawn, **given, **nowhere), tmp_path)


def test_nothing_measured_leaves_no_file(settings, drawn, tmp_path, capsys):
    (tmp_path / "measures.csv").write_text("of an earlier run")
    files, frame = measure_replicates(evaluate_settings(settings, drawn, measures=[]), tmp_path)
    assert files == [] and frame.empty and not (tmp_path / "measures.csv").exists()
    assert "No measures asked for" in capsys.readouterr().out


def test_kept_features_are_the_first_of_each_class_of_the_first_replicate_and_of_the_pool(settings, drawn, tmp_path):
    chosen = evaluate_settings(
        settings, drawn, measures=[], keep_features=True, feature_spaces=["pixels-v1", "pocket-referee-v1"]
    )
    files, _ = measure_replicates(chosen, tmp_path)
    assert files == [tmp_path / "features.safetensors"]
    kept = safetensors.torch.load_file(files[0])
    pool = load_real("digits", "pool", classes=["three", "seven"])
    most = [min(60, int((pool.labels == label).sum())) for label in (0, 1)]
    assert kept["generated"].shape == (12, 64) and kept["generated"].dtype == torch.float16
    assert kept["labels"].bincount().tolist() == [6, 6] and kept["labels"].dtype == torch.int64
    assert kept["real"].shape == (sum(most), 64) and kept["real_labels"].bincount().tolist() == most
    images = read_shards(drawn).replicate(0)
    expected = measure.extract_features(images.images, "pocket-referee-v1").half()
    assert torch.equal(kept["generated"], expected) and torch.equal(kept["labels"], images.labels)


def test_the_first_of_each_class_go_by_index_not_by_place():
    labels, index = np.array([0, 0, 0, 1, 1, 0]), np.array([5, 1, 3, 0, 2, 1])
    assert first_of_classes(labels, index, 2).tolist() == [1, 3, 4, 5]
    assert first_of_classes(labels, index, 2, np.array([1, 0, 1, 1, 1, 0], bool)).tolist() == [0, 2, 3, 4]


def test_of_a_very_large_set_the_first_images_are_measured_and_n_says_so(
    settings, drawn, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(measure, "MOST", 8)
    _, frame = measure_replicates(evaluate_settings(settings, drawn, measures=["vendi", "recall"]), tmp_path)
    assert set(frame["n"]) == {8} and "8 images of each replicate are measured" in capsys.readouterr().out


def test_a_data_set_has_a_feature_space_of_its_own_unless_one_is_named(settings):
    named = settings("03_eval", dataset="digits", feature_spaces=["pixels-v1"])
    assert named.feature_spaces == ["pixels-v1"]
    assert settings("03_eval", dataset="digits").feature_spaces == ["pocket-referee-v1"]
    assert settings("03_eval", dataset="cifar10").feature_spaces == ["efficientnet-lite0-v1"]


def test_fewer_images_of_a_set_that_no_plan_drew_are_not_its_first_files():
    """They may be sorted by prompt; those of a plan are taken by index, and fewer are always among more."""
    import pyarrow as pa

    from synthlib.data.sets import SyntheticSet

    n = 1000
    rows = {"index": np.arange(n), "replicate": np.zeros(n, np.int64), "seed": pa.nulls(n, pa.uint64())}
    given = SyntheticSet(torch.zeros(n, 3, 1, 1), torch.zeros(n, dtype=torch.int64), ["cat"], pa.table(rows))
    few, more = (given.replicate(0, count).column("index") for count in (50, 100))
    assert set(few) < set(more) and 300 < few.mean() < 700
    planned = pa.table(rows | {"seed": np.arange(n, dtype=np.uint64)})
    drawn = SyntheticSet(given.images, given.labels, given.classes, planned)
    assert drawn.replicate(0, 50).column("index").tolist() == list(range(50))
