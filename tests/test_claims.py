"""T4: the signs to test, on runs whose differences, p values and verdicts can be worked out by hand."""

import json
import runpy
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_tables import evaluated, one

from synthlib.inputs import InputError
from synthlib.results import claims, rows

COMMITTED = ROOT / "experiments" / "claims.yaml"


def claim(trick, sign="above", dataset="digits"):
    return {"dataset": dataset, "trick": trick, "baseline": "base_class", "sign": sign, "source": "made up"}


def table_of(dirs, *of, **given):
    return claims.claims_table(rows.read_evaluations(dirs), rows.read_correct(dirs), pd.DataFrame(of), **given)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_verdict_needs_the_sign_and_a_small_p_and_not_above_swaps_the_two():
    points = [5, -5, 5, 0, 5]
    p = [0.001, 0.001, 0.9, 0.001, np.nan]
    assert claims.verdicts(points, p, ["above"] * 5)[1] == ["held", "not held", "undecided", "undecided", "undecided"]
    swapped = claims.verdicts(points, p, ["not_above"] * 5)[1]
    assert swapped == ["not held", "held", "undecided", "undecided", "undecided"]


def test_a_p_value_that_would_do_alone_does_not_do_in_a_family_of_four():
    assert claims.verdicts([3], [0.02], ["above"])[1] == ["held"]
    adjusted, said = claims.verdicts([3, 3, 3, 3], [0.02, 0.5, 0.6, 0.7], ["above"] * 4)
    assert adjusted[0] == pytest.approx(0.08) and said == ["undecided"] * 4
    # a claim without a test is not one of the family: 0.02 * 2
    assert claims.verdicts([3, 3, 0], [0.02, 0.5, np.nan], ["above"] * 3)[1][0] == "held"


def test_a_claim_of_no_known_sign_is_refused():
    with pytest.raises(InputError, match="unknown sign 'below'"):
        claims.verdicts([1], [0.5], ["below"])
    with pytest.raises(InputError, match="expected one a claim"):
        claims.verdicts([1, 2], [0.5], ["above"])


# --- the committed claims ---------------------------------------------------------------------------------------------


def test_the_committed_claims_are_the_signs_of_what_is_hosted():
    table = claims.read_claims(COMMITTED)
    above = {d: set(g.loc[g["sign"] == "above", "trick"]) for d, g in table.groupby("dataset")}
    below = {d: set(g.loc[g["sign"] == "not_above", "trick"]) for d, g in table.groupby("dataset")}
    assert above == {
        "cifar10": {"class_prompt", "multi_domain", "random_guidance", "merged"},
        "cifar100": {"multi_domain", "random_guidance", "merged"},
        "eurosat": {"random_guidance", "merged"},
        "digits": {"class_prompt", "multi_domain", "random_guidance", "merged"},
    }
    assert below == {
        "cifar10": set(), "cifar100": {"class_prompt"}, "eurosat": {"class_prompt", "multi_domain"}, "digits": set()
    }  # fmt: skip
    signs = table[table["sign"].isin(claims.SIGNS)]
    assert set(signs["baseline"]) == {"base_class"} and signs["source"].str.contains("inferred|miniature's own").all()


def test_what_the_abstract_states_is_a_claim_for_each_data_set_of_the_paper():
    table = claims.read_claims(COMMITTED)
    stated = table[~table["sign"].isin(claims.SIGNS) & (table["dataset"] != "digits")]
    assert set(zip(stated["dataset"], stated["trick"], stated["sign"], stated["baseline"], strict=True)) == {
        (dataset, "merged", *what)
        for dataset in ("cifar10", "cifar100", "eurosat")
        for what in (("above_in_all", "base_class"), ("comparable_to", "CLIP RN50"))
    }
    assert stated["source"].str.contains("stated in the abstract").all() and stated["source"].str.contains("ours").all()


def test_the_claims_agree_with_what_the_authors_host():
    from synthlib.data.hosted import hosted_name

    for row in claims.read_claims(COMMITTED).itertuples():
        if row.dataset != "digits" and row.sign in claims.SIGNS:
            assert bool(hosted_name(row.dataset, row.trick)) == (row.sign == "above"), row


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digits: [{trick: merged, baseline: base_class, sign: above}]", "expected trick, baseline, sign, source"),
        ("digits: [{trick: merge, baseline: base_class, sign: above, source: s}]", "did you mean 'merged'"),
        ("digits: [{trick: merged, baseline: base_class, sign: more, source: s}]", "unknown sign"),
    ],
)
def test_a_claim_that_is_not_whole_is_one_line(tmp_path, text, said):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        claims.read_claims(tmp_path / "claims.yaml")


# --- the table --------------------------------------------------------------------------------------------------------


def test_each_claim_has_its_paired_difference_holms_p_and_a_verdict_by_the_rule(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 4, 6]), evaluated(tmp_path, "class_prompt", [6, 6, 9])]
    dirs += [evaluated(tmp_path, "merged", [8, 7, 9])]
    table = table_of(dirs, claim("class_prompt"), claim("merged"))
    row = one(table, trick="class_prompt", evaluation_mode="eval")
    # differences 10, 20, 30: mean 20, half = 4.30265 * 10 / sqrt(3), p = 0.07418 as in test_statistics
    assert row["difference_points"] == 20 and row["difference_low"] == pytest.approx(20 - 24.8414, abs=1e-3)
    assert row["p"] == pytest.approx(0.07418, abs=1e-5)
    # merged: 30 in every pair, so p is 0; the larger of two is adjusted by 1
    assert (row["p_holm"], row["verdict"]) == (pytest.approx(0.07418, abs=1e-5), "undecided")
    row = one(table, trick="merged", evaluation_mode="eval")
    assert (row["difference_points"], row["p_holm"], row["verdict"]) == (30, 0, "undecided")  # no spread is no test
    assert row[["n_pairs", "n_test", "n_train", "baseline_n_train", "n_claims"]].tolist() == [3, 10, 100, 100, 2]
    assert row["bootstrap_low"] <= 30 <= row["bootstrap_high"] and "3 replicates x 10" in row["bootstrap_method"]
    assert set(table["evaluation_mode"]) == {"eval", "authors"} and set(table["source"]) == {"made up"}


def test_a_claim_of_not_above_is_held_by_what_is_below(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [8, 9, 9]), evaluated(tmp_path, "class_prompt", [6, 6, 7])]
    assert set(table_of(dirs, claim("class_prompt", "not_above"))["verdict"]) == {"held"}
    assert set(table_of(dirs, claim("class_prompt"))["verdict"]) == {"not held"}


def test_families_are_of_one_architecture_and_mode(tmp_path):
    # alone in its family, p = 0 stays what it is; five claims of the others do not change it
    dirs = [evaluated(tmp_path, t, hits, architecture=a) for a in ("cnn", "vit")
            for t, hits in (("base_class", [5, 4, 6]), ("merged", [6, 6, 9]))]  # fmt: skip
    table = table_of(dirs, claim("merged"))
    assert len(table) == 4 and table.loc[table["evaluation_mode"] == "eval", "p_holm"].to_numpy() == pytest.approx(
        [0.07418, 0.07418], abs=1e-5
    )
    assert set(table["n_claims"]) == {1}


def test_one_replicate_is_undecided_whatever_it_shows(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [0]), evaluated(tmp_path, "merged", [10], bonus=0)]
    row = one(table_of(dirs, claim("merged")), evaluation_mode="eval")
    # ten images to none: McNemar's p is 2 / 2^10, but it speaks of these two networks only
    assert row["difference_points"] == 100 and row["p"] == pytest.approx(2 / 1024)
    assert row["verdict"] == "undecided" and pd.isna(row["p_holm"]) and row["status"].startswith("one replicate")


def test_unequal_n_train_is_said(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6]), evaluated(tmp_path, "merged", [7, 9], n_train=300)]
    table = table_of(dirs, claim("merged"))
    assert set(table["status"]) == {"unequal n_train (100 and 300)"}
    assert claims.claims_view(table)["remark"].tolist() == ["unequal n_train (100 and 300)"] * 2


def test_what_was_not_run_says_so_and_counts_in_no_family(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 4, 6]), evaluated(tmp_path, "merged", [6, 6, 9])]
    wanted = [("digits", "multi_domain", "cnn"), ("digits", "merged", "vit"), ("eurosat", "merged", "cnn")]
    why = {("digits", "multi_domain", "cnn"): "not hosted", ("digits", "merged", "vit"): "needs a GPU"}
    table = table_of(
        dirs, claim("multi_domain"), claim("merged"), claim("merged", dataset="eurosat"),
        claim("merged", dataset="cifar10"), wanted=wanted, why_not_run=why,
    )  # fmt: skip
    eval_mode = table[table["evaluation_mode"] == "eval"]
    assert one(eval_mode, trick="merged", architecture="cnn", dataset="digits")["p_holm"] == pytest.approx(
        0.07418, abs=1e-5
    )
    row = one(eval_mode, trick="multi_domain", architecture="cnn")
    assert row["verdict"] == row["status"] == "not run: multi domain: not hosted"
    assert "merged: needs a GPU" in one(eval_mode, trick="merged", architecture="vit")["status"]
    missing = one(eval_mode, dataset="eurosat")
    assert missing["status"] == "not run: no evaluated folder was given for base class and merged"
    assert "cifar10" not in set(table["dataset"])  # neither run nor wanted
    assert claims.claims_view(table)["verdict"].tolist().count("not run") == 2 * 4


def test_a_setting_of_its_own_and_real_images_are_no_part_of_a_claim(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6]), evaluated(tmp_path, "merged", [7, 8])]
    dirs += [evaluated(tmp_path, "random_guidance", [1, 1], setting="guidance=3")]
    dirs += [evaluated(tmp_path, "real", [9, 9], images="real")]
    table = table_of(dirs, claim("random_guidance"), claim("merged"))
    assert len(table) == 4 and set(table["images"]) == {"drawn"}
    assert Counter(table["verdict"].str[:7]) == {"not run": 2, "undecid": 2}


def in_all(tmp_path, **hits):
    """The row of the claim that merged is above base class in all, eval mode; hits: architecture -> of base, of merged."""
    dirs = [
        evaluated(tmp_path, trick, right, architecture=name)
        for name, sides in hits.items()
        for trick, right in zip(("base_class", "merged"), sides, strict=True)
        if right
    ]
    table = table_of(dirs, claim("merged"), claim("merged", "above_in_all"), wanted=[("digits", "merged", "vit")])
    return one(table, sign="above_in_all", evaluation_mode="eval"), table


UP, DOWN, LEVEL = ([2, 2, 3, 2], [8, 8, 9, 9]), ([8, 8, 9, 9], [2, 2, 3, 2]), ([5, 4, 6, 5], [6, 4, 5, 6])


@pytest.mark.parametrize(
    ("hits", "verdict", "least"),
    [
        ({"cnn": UP, "vit": UP}, "held", 62.5),
        ({"cnn": UP, "vit": LEVEL}, "undecided", 2.5),
        ({"cnn": UP, "vit": DOWN}, "not held", -62.5),
        ({"cnn": UP}, "undecided", 62.5),  # of one architecture
        ({"cnn": UP, "vit": ([5], [9])}, "undecided", 40),  # of one replicate
        ({"cnn": UP, "vit": ([5, 5], [])}, "undecided", 62.5),
    ],
)
def test_model_agnostic_is_above_in_every_architecture_that_was_run(tmp_path, hits, verdict, least):
    row, table = in_all(tmp_path, **hits)
    assert (row["verdict"], row["difference_points"], row["architecture"]) == (verdict, pytest.approx(least), "all")
    whole = sum(bool(merged) for _, merged in hits.values())
    assert (f"of {whole} architectures" if whole > 1 else "one architecture, cnn") in row["status"]
    single = table[table["sign"] == "above"]
    assert set(single["n_claims"].dropna()) <= {0, 1}  # it is in no family of theirs
    assert "merged above base class in all architectures" in set(claims.claims_view(table)["claim"])


def test_model_agnostic_of_nothing_says_why(tmp_path):
    dirs = [evaluated(tmp_path, "base_class", [5, 6])]
    row = one(table_of(dirs, claim("merged", "above_in_all")), evaluation_mode="eval")
    assert row["verdict"].startswith("not run") and "merged" in row["status"]


CLIP = {"dataset": "digits", "trick": "merged", "baseline": "CLIP RN50", "sign": "comparable_to", "source": "made up"}


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(50, "held"), (84, "held"), (85, "undecided"), (100, "undecided"), (101, "not held"), (None, "not run")],
)
def test_comparable_to_clip_is_at_most_the_margin_below_what_is_published(tmp_path, value, verdict):
    dirs = [evaluated(tmp_path, "merged", [9, 9, 8, 9]), evaluated(tmp_path, "base_class", [5, 5, 6, 5])]
    published = pd.DataFrame({"dataset": ["digits", "cifar10"], "method": "CLIP zero-shot", "classifier": "CLIP RN50",
                              "accuracy_percent": [value, 75.6], "source": "a table"})  # fmt: skip
    table = table_of(dirs, CLIP, claim("merged"), published=published.tail(1 if value is None else 2))
    row = one(table, sign="comparable_to", evaluation_mode="eval")
    assert row["verdict"].startswith(verdict) and set(table.loc[table["sign"] == "above", "n_claims"]) == {1}
    if value is None:
        assert "no accuracy of CLIP RN50 is published" in row["status"]
    else:  # 87.5 % [79.5, 95.5], of four replicates
        assert (
            row["difference_points"] == pytest.approx(87.5 - value)
            and f"minus {value:.1f}, published (a table)" in row["status"]
        )
        assert row["difference_low"] == pytest.approx(79.54 - value, abs=0.01) and row["n_pairs"] == 4


def test_replicates_that_are_all_alike_are_no_test_beside_clip(tmp_path):
    dirs = [evaluated(tmp_path, "merged", [9, 9]), evaluated(tmp_path, "base_class", [5, 6])]
    published = pd.DataFrame({"dataset": ["digits"], "method": "CLIP zero-shot", "classifier": "CLIP RN50",
                              "accuracy_percent": 50.0, "source": "a table"})  # fmt: skip
    row = one(table_of(dirs, CLIP, published=published), sign="comparable_to", evaluation_mode="eval")
    assert row["verdict"] == "undecided" and row["difference_points"] > 0


# --- how often a verdict is wrong -------------------------------------------------------------------------------------


@pytest.fixture
def simulate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks" / "simulate_verdicts.py"))


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [5, 8])
@pytest.mark.parametrize("sd", [1, 3, 6])
def test_equal_accuracies_are_taken_for_a_gain_in_five_of_a_hundred_families_at_most(simulate, sd, replicates):
    found = simulate["simulate"](sd=sd, replicates=replicates, effect=0, repeats=1000, seed=1)
    tolerated = 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 1000)
    assert found["family"]["rate"] <= tolerated and found["claim"]["rate"] <= tolerated
    assert found["claim_alone"]["rate"] <= tolerated
    assert found["family"]["n"] == 1000 and found["claim"]["n"] == 4000


def test_a_true_gain_of_five_points_is_found_where_replicates_differ_little(simulate):
    found = simulate["simulate"](sd=1, replicates=5, effect=5, repeats=40, seed=1)
    assert found["claim"]["rate"] > 0.5
    assert found["mean_difference"] == pytest.approx(5, abs=0.6)  # 160 differences, sd of each mean below 1.5


def test_the_simulations_replicates_vary_as_they_were_told(simulate):
    logits, labels = simulate["logits_of"](np.random.default_rng(0), np.full((300, 8), 60.0) + [[0.0]], 0.0)
    assert logits.shape[:2] == (300, 8) and logits.shape[3] == 10 and logits.shape[2] == len(labels) == 1197
    accuracy = 100 * (logits.argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(60, abs=0.5)


def test_the_committed_simulation_is_of_a_thousand_families_each(simulate):
    result = json.loads((ROOT / "benchmarks" / "results" / "simulate_verdicts.json").read_text())
    assert [(row["sd_points"], row["replicates"]) for row in result["rows"]] == [
        (s, r) for s in (1, 3, 6) for r in (5, 8)
    ]
    assert all(row["equal"]["family"]["n"] == 1000 for row in result["rows"])
    assert result["hardware"]["cpu"]
    false = [100 * row["equal"]["family"]["rate"] for row in result["rows"]]
    power = [100 * row["gain"]["claim"]["rate"] for row in result["rows"]]
    document = (ROOT / "benchmarks" / "README.md").read_text()
    assert f'{min(false):.1f} to {max(false):.1f} % of families have a false "held"' in document
    assert f"gains of 5 points {min(power):.0f} to {max(power):.0f} % are found" in document
