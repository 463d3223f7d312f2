"""The plan's promises: rows are functions of their own place, and merged is made of its sources' rows."""

import numpy as np
import pytest

from synthlib.data.datasets import read_spec
from synthlib.generation.plan import group_rows, groups, n_rows, plan_rows, splitmix64
from synthlib.generation.prompts import prompts_of, sources
from synthlib.inputs import InputError

DIGITS = read_spec("digits")


def whole(settings):
    return plan_rows(settings, DIGITS, 0, n_rows(settings, DIGITS))


def test_splitmix64_gives_the_published_sequence():
    # The first outputs of the reference implementation for seed 1234567: each call adds the golden gamma.
    gamma = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + gamma * np.arange(3, dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_prompts_are_the_papers(settings):
    def prompts(trick, classes=("zero",)):
        return prompts_of(read_spec("digits", list(classes)), trick, 30)

    assert prompts("base_class") == ["an image of a zero"]
    assert prompts("class_prompt") == ["zero"]
    assert prompts("random_guidance") == ["an image of zero"]
    assert prompts("multi_domain")[:2] == ["a photo of a zero", "a drawing of a zero"]
    assert len(prompts("multi_domain")) == 10
    assert len(prompts("merged")) == 12


def test_underscores_become_spaces():
    assert prompts_of(read_spec("own", ["fire_truck"]), "class_prompt", 1) == ["fire truck"]


def test_domain_is_index_modulo_domains_and_guidance_is_fixed(settings):
    rows = whole(settings("01_generate", trick="multi_domain", images_per_class=12, classes=["two"]))
    domains = rows["domain"].to_pylist()
    assert domains[:10] == list(DIGITS.domains) and domains[10:] == list(DIGITS.domains[:2]) * 1 + domains[12:]
    assert set(rows["guidance_scale"].to_pylist()) == {7.5}


def test_random_guidance_is_uniform_per_image(settings):
    given = settings("01_generate", trick="random_guidance", images_per_class=400, min_scale=2, max_scale=4)
    scales = whole(given)["guidance_scale"].to_numpy()
    assert scales.min() >= 2 and scales.max() <= 4 and len(set(scales.tolist())) > 3900
    assert abs(scales.mean() - 3) < 0.05 and abs(scales.std() - 2 / np.sqrt(12)) < 0.03


def test_domain_guidance_has_the_prompts_of_multi_domain_and_guidance_of_its_own_that_is_drawn(settings):
    given = {"images_per_class": 20, "min_scale": 2, "max_scale": 4}
    both, domains, guidance = (
        whole(settings("01_generate", trick=trick, **given))
        for trick in ("domain_guidance", "multi_domain", "random_guidance")
    )
    assert both["prompt"].equals(domains["prompt"]) and both["domain"].equals(domains["domain"])
    assert set(both["trick"].to_pylist()) == {"domain_guidance"}
    scales = both["guidance_scale"].to_numpy()
    assert 2 <= scales.min() < 2.1 and 3.9 < scales.max() <= 4 and len(set(scales.tolist())) == 200
    assert set(scales.tolist()).isdisjoint(guidance["guidance_scale"].to_pylist())
    assert set(both["seed"].to_pylist()).isdisjoint(domains["seed"].to_pylist() + guidance["seed"].to_pylist())
    integers = whole(settings("01_generate", trick="domain_guidance", guidance_draw="integer", **given))
    assert set(integers["guidance_scale"].to_pylist()) == {2, 3, 4}


def test_every_image_has_a_seed_and_id_of_its_own(settings):
    seen, ids = [], []
    for trick in ("base_class", "class_prompt", "multi_domain", "random_guidance", "domain_guidance"):
        rows = whole(settings("01_generate", trick=trick, images_per_class=50, replicates=2))
        seen += rows["seed"].to_pylist()
        ids += rows["image_id"].to_pylist()
    assert len(set(seen)) == len(seen) == len(set(ids)) == 5 * 2 * 10 * 50


def test_a_row_does_not_depend_on_how_many_others_there_are(settings):
    few = whole(settings("01_generate", trick="random_guidance", images_per_class=3))
    many = whole(settings("01_generate", trick="random_guidance", images_per_class=8, replicates=2)).to_pylist()
    assert all(row in many for row in few.to_pylist())


def test_experiment_seed_and_replicate_change_the_seeds(settings):
    def seeds(**given):
        return whole(settings("01_generate", trick="base_class", images_per_class=2, **given))["seed"].to_pylist()

    assert set(seeds()).isdisjoint(seeds(seed=65))
    both = seeds(replicates=2)
    assert both[:20] == seeds() and set(both[20:]).isdisjoint(both[:20])


@pytest.mark.parametrize(
    ("n", "expected"),
    [(30, (10, 10, 10)), (10, (4, 3, 3)), (11, (4, 4, 3)), (1, (1,))],
)
def test_merged_takes_a_third_of_each_part_and_its_remainder_in_order(n, expected):
    assert sources("merged", n) == dict(
        zip(("class_prompt", "multi_domain", "random_guidance"), expected, strict=False)
    )


def test_merged_rows_are_their_sources_rows_and_merged_full_has_all(settings):
    merged = whole(settings("01_generate", trick="merged", images_per_class=9))
    full = whole(settings("01_generate", trick="merged_full", images_per_class=9)).to_pylist()
    parts = [whole(settings("01_generate", trick=t, images_per_class=9)).to_pylist() for t in sources("merged", 9)]
    assert len(merged) == 90 and len(full) == 270
    assert full == sum(parts, [])
    assert all(row in full for row in merged.to_pylist())
    assert merged["index"].to_pylist().count(2) == 30 and max(merged["index"].to_pylist()) == 2


def test_a_slice_of_the_plan_is_that_part_of_the_whole(settings):
    given = settings("01_generate", trick="merged", images_per_class=7, replicates=2)
    assert plan_rows(given, DIGITS, 33, 101).equals(whole(given).slice(33, 68))


def test_rows_beyond_the_count_fill_the_last_block(settings):
    given = settings("01_generate", trick="base_class", images_per_class=5)
    group = groups(given, DIGITS)[0]
    more = group_rows(group, settings("01_generate", trick="base_class", images_per_class=9), DIGITS, 0, 9)
    assert group_rows(group, given, DIGITS, 0, 9).equals(more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trick": "multi_domian"}, "did you mean 'multi_domain'"),
        ({"images_per_class": -1}, "images_per_class is -1"),
        ({"guidance_scale": -2.0}, "guidance_scale is -2.0"),
        ({"min_scale": 6.0}, "at most max_scale"),
        ({"image_per_class": 3}, "did you mean 'images_per_class'"),
        ({"seed": "x"}, "seed is 'x'"),
    ],
)
def test_wrong_settings_are_one_line(settings, given, said):
    with pytest.raises(InputError) as error:
        settings("01_generate", **given)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digit",), "did you mean 'digits'"),
        (("digits", ["sevn"]), "did you mean 'seven'"),
        (("digits", [], ["phto"]), "did you mean 'photo'"),
        (("own", []), "empty"),
        (("own", ["a/b"]), "slashes"),
    ],
)
def test_unknown_dataset_class_or_domain_names_the_nearest(arguments, said):
    with pytest.raises(InputError, match=said):
        read_spec(*arguments)
