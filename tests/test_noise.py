"""Noise and guidance modes: ours, and the released script's order, checked against a loop written as theirs is."""

import numpy as np
import pytest
import torch

from synthlib.data.datasets import read_spec
from synthlib.generation.noise import CompvisNoise, initial_noise
from synthlib.generation.plan import group_rows, groups, n_rows, plan_rows
from synthlib.inputs import InputError

DIGITS = read_spec("digits")
SHAPE, STEPS = (4, 8, 8), 5


def as_the_script_draws(seed, iterations):
    """First latents [iterations, 2, *SHAPE] of one prompt: torch.manual_seed, then 1 + STEPS draws an iteration."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(iterations):
        found.append(torch.randn((2, *SHAPE), generator=generator))  # ddim_sampling: img = torch.randn(shape)
        for _ in range(STEPS):
            torch.randn((2, *SHAPE), generator=generator)  # p_sample_ddim: noise_like(x.shape), times sigma 0
    return torch.stack(found)


def test_compvis_noise_is_that_of_the_scripts_loop_in_whatever_order_it_is_asked_for():
    theirs = as_the_script_draws(64, 6)
    noise = CompvisNoise(64, SHAPE, STEPS, torch.device("cpu"))
    places = [(0, 0), (0, 1), (3, 1), (1, 0), (1, 1), (5, 0), (5, 0)]
    assert torch.equal(noise.at(places), torch.stack([theirs[i, slot] for i, slot in places]))


def test_each_image_has_noise_of_its_own_seed_only():
    both = initial_noise([3, 2**64 - 1], SHAPE)
    assert torch.equal(both[1:], initial_noise([2**64 - 1], SHAPE)) and not torch.equal(both[0], both[1])


def test_compvis_rows_pair_up_and_restart_with_each_prompt(settings):
    given = settings("01_generate", trick="multi_domain", noise="compvis", images_per_class=40, classes=["two", "six"])
    spec = read_spec("digits", ["two", "six"])
    rows = plan_rows(given, spec, 0, n_rows(given, spec)).to_pylist()
    # All prompts share their noise, as paper_facts says of the released code.
    assert {row["seed"] for row in rows} == {64}
    for row in rows[0::2]:
        assert (row["slot"], row["index"] % 2) == (0, 0)
    assert [row["prompt"] for row in rows[:4]] == ["a photo of a two"] * 2 + ["a drawing of a two"] * 2
    of_a_prompt = [(row["iteration"], row["slot"]) for row in rows if row["prompt"] == "a sketch of a six"]
    assert of_a_prompt == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_compvis_rows_of_a_plain_prompt_count_iterations_of_two(settings):
    given = settings("01_generate", trick="class_prompt", noise="compvis", images_per_class=5)
    rows = group_rows(groups(given, DIGITS)[0], given, DIGITS, 0, 6)
    assert rows["iteration"].to_pylist() == [0, 0, 1, 1, 2, 2] and rows["slot"].to_pylist() == [0, 1] * 3


def scales(settings, **given):
    given = settings("01_generate", trick="random_guidance", images_per_class=200, replicates=3, **given)
    rows = plan_rows(given, DIGITS, 0, n_rows(given, DIGITS))
    return rows["guidance_scale"].to_numpy().reshape(3, -1)


def test_integer_guidance_is_drawn_anew_for_each_image_from_all_integers(settings):
    found = scales(settings, guidance_draw="integer")
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [1, 2, 3, 4, 5] and counts.min() > 0.15 * found.size


def test_per_run_integer_is_one_number_a_replicate(settings):
    runs = [
        set(row.tolist()) for seed in range(8) for row in scales(settings, guidance_draw="per_run_integer", seed=seed)
    ]
    assert all(len(run) == 1 for run in runs)
    assert set().union(*runs) == {1, 2, 3, 4, 5}  # 24 runs


def test_guidance_of_other_tricks_is_untouched_by_the_way_it_is_drawn(settings):
    given = settings("01_generate", trick="base_class", guidance_draw="per_run_integer")
    assert set(plan_rows(given, DIGITS, 0, 50)["guidance_scale"].to_pylist()) == {7.5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"noise": "compviz"}, "did you mean 'compvis'"),
        ({"guidance_draw": "per_run"}, "did you mean 'per_run_integer'"),
        ({"guidance_draw": "integer", "min_scale": 1.2, "max_scale": 1.8}, "integer up to max_scale"),
        ({"resize": "32"}, "did you mean '32A'"),
        ({"precision": "fp16"}, "unknown precision"),
        ({"lossy_guidance_until": 1.5}, "lossy_guidance_until is 1.5"),
        ({"safety": "on"}, "unknown safety"),
        ({"noise": "compvis", "num_inference_steps": 30}, "divisor of 1000"),
        ({"seed": 2**63}, "below 2.*63"),
    ],
)
def test_unknown_modes_are_one_line(settings, given, said):
    with pytest.raises(InputError, match=said):
        settings("01_generate", **given)
