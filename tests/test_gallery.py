"""The gallery: each picture with the prompt, guidance and seed of its own row; mistakes that can be counted by hand."""

import base64
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from synthlib import digests
from synthlib.data.shards import encode_png, shard_bytes
from synthlib.evaluation.evaluate import Logits, logits_bytes
from synthlib.page import gallery
from synthlib.page.gallery import galleries, mistakes
from synthlib.training.checkpoint import model_bytes

PETS = ["cat", "cow", "dog"]
SEED = 2**63 + 2**11 + 1  # no float64 holds it


def flat(value, side=8):
    return np.full((side, side, 3), value, np.uint8)


def pixels(picture):
    """What a browser would show, uint8 [H, W, 3]."""
    kind, data = picture.src.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


def grey(picture):
    (value,) = np.unique(pixels(picture))
    return int(value)


def finish(folder, notebook, parameters):
    """The receipt of all that lies in a folder."""
    made = {
        path.name: {"bytes": path.stat().st_size, "sha256": digests.sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.name != "receipt.json"
    }
    receipt = {"notebook": notebook, "parameters": parameters, "inputs": {}, "code": "", "outputs": made}
    receipt |= {"recorded": {}}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    return str(folder)


def drawn(
    folder, trick="base_class", classes=PETS, each=4, dataset="own", notebook="01_generate", encode=None, **columns
):
    """A finished set: `each` images of each class, the grey of image i is i; `columns` take the place of drawn ones."""
    folder.mkdir()
    n = each * len(classes)
    names = [name for name in classes for _ in range(each)]
    given = {
        "image_id": [f"{trick}-{place}" for place in range(n)],
        "label": pa.array([classes.index(name) for name in names], pa.int64()),
        "prompt": [f"{trick} of a {name}, {place}" for place, name in enumerate(names)],
        "trick": [trick] * n,
        "guidance_scale": pa.array([1.3 + place for place in range(n)], pa.float32()),
        "seed": pa.array([SEED + place for place in range(n)], pa.uint64()),
        "replicate": pa.array([0] * n, pa.int64()),
        "index": pa.array(list(range(each)) * len(classes), pa.int64()),
    }
    rows = pa.table({name: column for name, column in (given | columns).items() if column is not None})
    images = [(encode or encode_png)(flat(place)) for place in range(n)]
    for first in range(0, n, 5):  # shards that cut classes in two
        part = rows.slice(first, 5)
        file = folder / f"shard-{first:05d}.parquet"
        file.write_bytes(shard_bytes(part, images[first : first + 5], list(classes)))
    return finish(folder, notebook, {"dataset": dataset, "trick": trick})


@pytest.fixture
def real_dir(tmp_path):
    """Four real images of each of three classes; the grey of image i is 100 + i."""
    for place in range(12):
        file = tmp_path / "real" / PETS[place // 4] / f"{place:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(flat(100 + place)).save(file)
    return tmp_path / "real"


@pytest.fixture
def evaluated(tmp_path, settings, real_dir):
    """evaluated(name, probabilities [N, C], labels, ...): a finished 03_eval folder, and its 02_train folder."""

    def make(name, probabilities=None, labels=None, classes=PETS, files=("logits-r0",), **given):
        labels = np.repeat(np.arange(len(classes)), 4) if labels is None else np.asarray(labels)
        probabilities = np.eye(len(classes)) * 0.8 + 0.1 if probabilities is None else np.asarray(probabilities)
        values = torch.tensor(np.log(probabilities if len(probabilities) == len(labels) else probabilities[labels]))
        trained, folder = tmp_path / f"{name}-trained", tmp_path / name
        given = {"dataset": "own", "real_dir": str(real_dir), "trick": "base_class", "architecture": "resnet"} | given
        given["classes"] = classes
        given = settings("03_eval", trained_dir=str(trained), measures=[], run_dir=str(folder), **given)
        for path in (trained, folder):
            path.mkdir()
        record = {"transform": "resized_crop", "image_size": 8, "normalisation": "none"}
        (trained / "model-r0.safetensors").write_bytes(model_bytes({"weight": torch.zeros(1)}, record))
        finish(trained, "02_train", {})
        worst = Logits(-values.float(), -values.float()[None], torch.arange(len(labels))[None], torch.tensor(labels))
        best = Logits(values.float(), worst.authors, worst.order, worst.labels)
        for file in files:
            data = logits_bytes(best if file == files[-1] else worst)
            (folder / f"{file}.safetensors").write_bytes(data)
        (folder / "classes.json").write_text(json.dumps(classes))
        return finish(folder, "03_eval", asdict(given))

    return make


# --- galleries --------------------------------------------------------------------------------------------------------


def test_each_picture_has_the_prompt_guidance_and_seed_of_its_own_row(tmp_path):
    found = galleries([drawn(tmp_path / "set")], [])[0]
    assert found.columns == ["base class"] and [row.class_name for row in found.rows] == PETS
    assert [[grey(picture) for picture in row.cells[0]] for row in found.rows] == [[0, 3], [4, 7], [8, 11]]
    for picture in (picture for row in found.rows for picture in row.cells[0]):
        place = grey(picture)
        class_name = PETS[place // 4]
        assert picture.prompt == f"base_class of a {class_name}, {place}" and picture.name == f"base_class-{place}"
        assert picture.seed == SEED + place and type(picture.seed) is int and picture.seed > 2**63
        assert picture.guidance == round(1.3 + place, 4)  # not the 1.2999999523 of a float32
        assert picture.alt == f"drawn: {class_name}, base class, prompt '{picture.prompt}'"


def test_pictures_are_spread_over_a_set_and_of_its_first_replicate(tmp_path):
    replicate = pa.array(([0] * 6 + [1] * 2) * 3, pa.int64())
    folder = drawn(tmp_path / "set", each=8, replicate=replicate)
    greys = [[grey(picture) for picture in row.cells[0]] for row in galleries([folder], [], per_cell=3)[0].rows]
    assert greys == [[0, 2, 5], [8, 10, 13], [16, 18, 21]]
    assert [len(row.cells[0]) for row in galleries([folder], [], per_cell=9)[0].rows] == [6, 6, 6]


def test_real_images_come_first_and_tricks_follow_as_given(tmp_path, evaluated):
    sets = [drawn(tmp_path / trick, trick) for trick in ("multi_domain", "base_class", "merged_full")]
    (found,) = galleries(sets, [evaluated("tested")])
    assert found.columns == ["real", "multi domain", "base class", "merged, full (3n images)"]
    assert (found.dataset, found.n_classes, found.remark) == ("own", 3, "")
    for place, row in enumerate(found.rows):
        real, *synthetic = row.cells
        assert [grey(picture) for picture in real] == [100 + 4 * place, 103 + 4 * place]
        assert [picture.alt for picture in real] == [f"real: {row.class_name}"] * 2
        assert {(picture.prompt, picture.guidance, picture.seed) for picture in real} == {("", None, None)}
        assert real[0].name == f"{row.class_name}/{4 * place:02d}.png"
        prompts = [cell[0].prompt.partition(" of ")[0] for cell in synthetic]
        assert prompts == ["multi_domain", "base_class", "merged_full"]


def test_real_images_are_matched_by_class_name(tmp_path, evaluated):
    folders = [drawn(tmp_path / "one", classes=["dog", "cat"]), drawn(tmp_path / "two", "merged", classes=PETS)]
    (found,) = galleries(folders, [evaluated("tested")], per_cell=1)
    assert [row.class_name for row in found.rows] == ["dog", "cat"]
    assert [[grey(picture) for cell in row.cells for picture in cell] for row in found.rows] == [
        [108, 0, 8],
        [100, 4, 0],
    ]


def test_a_class_that_a_set_has_not_has_an_empty_cell(tmp_path, evaluated):
    folders = [drawn(tmp_path / "one", classes=[*PETS, "owl"]), drawn(tmp_path / "two", "merged", classes=["cow"])]
    found = galleries(folders, [evaluated("tested")])[0]
    assert [[len(cell) for cell in row.cells] for row in found.rows] == [[2, 2, 0], [2, 2, 2], [2, 2, 0], [0, 2, 0]]
    apart = drawn(tmp_path / "three", "random_guidance", classes=["hen"])
    found = galleries([*folders, apart], [])[0]
    assert found.columns == ["base class", "merged"] and "random guidance is not shown: " in found.remark


def test_ten_of_twelve_classes_are_shown(tmp_path):
    classes = [f"class {number}" for number in range(12)]
    (found,) = galleries([drawn(tmp_path / "set", classes=classes, each=1)], [])
    numbers = [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert [row.class_name for row in found.rows] == [classes[number] for number in numbers]
    assert [grey(row.cells[0][0]) for row in found.rows] == numbers
    assert found.n_classes == 12 and found.remark.startswith("10 of 12 classes; ")


@pytest.mark.parametrize("missing", [pa.nulls(12, pa.string()), None])
def test_a_set_of_others_has_no_prompt_guidance_or_seed(tmp_path, missing):
    nothing = {"prompt": missing, "guidance_scale": missing, "seed": missing}
    if missing is not None:
        nothing |= {"guidance_scale": pa.nulls(12, pa.float32()), "seed": pa.nulls(12, pa.uint64())}
    folder = drawn(tmp_path / "set", "unknown", notebook="import", **nothing)
    picture = galleries([folder], [])[0].rows[1].cells[0][1]
    assert (picture.prompt, picture.guidance, picture.seed) == ("", None, None)
    assert (picture.alt, picture.name, grey(picture)) == ("imported: cow, unknown", "unknown-7", 7)


def test_a_jpeg_is_shown_as_it_decodes(tmp_path):
    def jpeg(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        return file.getvalue()

    found = galleries([drawn(tmp_path / "set", notebook="download", encode=jpeg)], [])[0]
    picture = found.rows[2].cells[0][1]
    assert np.array_equal(pixels(picture), np.asarray(Image.open(io.BytesIO(jpeg(flat(11))))))
    assert picture.alt.startswith("hosted: dog, ")


def test_a_set_that_is_missing_or_damaged_leaves_the_others(tmp_path, evaluated):
    whole, damaged = drawn(tmp_path / "whole"), drawn(tmp_path / "damaged", "class_prompt")
    (Path(damaged) / "shard-00005.parquet").write_bytes(b"cut short")
    missing = str(tmp_path / "missing")
    (found,) = galleries([damaged, missing, whole], [evaluated("tested")])
    assert found.columns == ["real", "base class"] and all(len(row.cells) == 2 for row in found.rows)
    first, second = found.remark.split("; not shown: ")
    assert first.startswith("class prompt is not shown: ") and "shard-00005.parquet" in first
    assert second == f"{missing}, where no run is finished"


def test_nothing_that_can_be_shown_is_said_not_raised(tmp_path, evaluated):
    missing = str(tmp_path / "missing")
    (found,) = galleries([missing], [])
    assert (found.dataset, found.columns, found.rows) == ("", [], []) and missing in found.remark
    assert galleries([], []) == []
    damaged = drawn(tmp_path / "damaged")
    (Path(damaged) / "shard-00000.parquet").unlink()
    (found,) = galleries([damaged, damaged], [evaluated("tested")])
    assert found.columns == ["real"] and [row.class_name for row in found.rows] == PETS
    assert "base class is not shown: " in found.remark


def test_without_real_images_the_remark_says_why(tmp_path, evaluated):
    folder = drawn(tmp_path / "set")
    other = evaluated(
        "other", dataset="cifar10", real_dir="", probabilities=np.eye(10) * 0.8 + 0.1, classes=list("0123456789")
    )
    (found,) = galleries([folder], [other])
    assert found.columns == ["base class"]
    assert found.remark.startswith("real images are not shown: no evaluated condition of own")
    lost = evaluated("lost", real_dir=str(tmp_path / "nowhere"))
    assert "nowhere" in galleries([folder], [lost])[0].remark
    assert galleries([folder], [lost, evaluated("tested")])[0].columns == ["real", "base class"]
    untrained = evaluated("untrained")
    (tmp_path / "untrained-trained" / "receipt.json").unlink()
    (found,) = galleries([folder], [untrained])
    assert found.columns == ["base class"] and "no checkpoint in " in found.remark


def test_each_data_set_has_its_own_gallery(tmp_path):
    folders = [drawn(tmp_path / str(n), dataset=dataset) for n, dataset in enumerate(("own", "digits", "own"))]
    assert [found.dataset for found in galleries(folders, [])] == ["own", "digits"]


def test_two_sets_of_one_trick_are_told_apart(tmp_path):
    folders = [
        drawn(tmp_path / name, "random_guidance") for name in ("own-random_guidance", "own-random_guidance+guidance=2")
    ]
    assert galleries(folders, [])[0].columns == ["random guidance", "random guidance, guidance=2"]


def test_a_large_image_is_scaled_down_and_a_small_one_is_not(tmp_path):
    def wide(image):
        half = np.full((256, 512, 3), image[0, 0], np.uint8)
        half[:, 256:] = 200
        return encode_png(half)

    (found,) = galleries([drawn(tmp_path / "large", encode=wide)], [])
    picture = pixels(found.rows[1].cells[0][0])
    assert picture.shape == (64, 128, 3) and set(picture[:, :60].flat) == {4} and set(picture[:, 68:].flat) == {200}
    (found,) = galleries([drawn(tmp_path / "small")], [])
    assert pixels(found.rows[1].cells[0][0]).shape == (8, 8, 3)


def test_names_are_passed_through_unescaped(tmp_path):
    prompt = pa.array(["<script>alert(1)</script> & 'more'"] * 4)
    (found,) = galleries([drawn(tmp_path / "set", classes=["<b>three</b>"], prompt=prompt)], [])
    assert found.rows[0].class_name == "<b>three</b>" and found.rows[0].cells[0][0].prompt == prompt[0].as_py()
    assert found.rows[0].cells[0][0].alt.startswith("drawn: <b>three</b>, base class")


def test_no_more_is_read_than_is_shown(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gallery, "_src", lambda image: seen.append(image) or "")
    monkeypatch.setattr("synthlib.data.shards.decode_image", lambda data: seen.append(data) or flat(0))
    galleries([drawn(tmp_path / "set", each=50)], [])
    assert len(seen) == 2 * 2 * 3


# --- mistakes ---------------------------------------------------------------------------------------------------------

# Four test images of each class. Wrong: 1 (cat for cow), 2 (cat for dog), 5 (cow for dog), 8 (dog for cat).
GUESSES = np.array(
    [
        [0.98, 0.01, 0.01],
        [0.3, 0.6, 0.1],
        [0.05, 0.05, 0.9],
        [0.4, 0.3, 0.3],
        [0.1, 0.8, 0.1],
        [0.25, 0.2, 0.55],
        [0.1, 0.8, 0.1],
        [0.005, 0.99, 0.005],
        [0.75, 0.15, 0.1],
        [0.1, 0.1, 0.8],
        [0.1, 0.1, 0.8],
        [0.1, 0.1, 0.8],
    ]
)


def test_mistakes_are_those_counted_by_hand(evaluated):
    folder = evaluated("tested", GUESSES)
    (found,) = mistakes([folder])
    assert (found.dataset, found.n_mistakes, found.n_test, found.folder) == ("own", 4, 12, folder)
    assert found.classifier == "base class, resnet, replicate 0, eval mode" and found.remark == ""
    said = [(grey(one.picture) - 100, one.true, one.predicted) for one in found.most]
    assert said == [(2, "cat", "dog"), (8, "dog", "cat"), (1, "cat", "cow"), (5, "cow", "dog")]
    assert [one.confidence_percent for one in found.most] == pytest.approx([90, 75, 60, 55], abs=1e-4)
    assert [one.true_percent for one in found.most] == pytest.approx([5, 10, 30, 20], abs=1e-4)
    assert found.most[0].picture.alt == "real: cat" and found.most[0].picture.name == "cat/02.png"


def test_the_most_and_the_least_confident_are_the_ends_of_one_order(evaluated):
    (found,) = mistakes([evaluated("tested", GUESSES)], n=2)
    assert [grey(one.picture) - 100 for one in found.most] == [2, 8]
    assert [one.confidence_percent for one in found.least] == pytest.approx([55, 60], abs=1e-4)
    assert [grey(one.picture) - 100 for one in found.least] == [5, 1]
    assert [one.predicted for one in found.least] == ["dog", "cow"]


def test_ties_go_by_the_order_of_the_test_set(evaluated):
    same = np.tile([0.25, 0.5, 0.25], (12, 1))  # every cat and dog is taken for a cow, all alike
    (found,) = mistakes([evaluated("tested", same)], n=3)
    assert [grey(one.picture) - 100 for one in found.most] == [0, 1, 2]
    assert [grey(one.picture) - 100 for one in found.least] == [0, 1, 2]
    assert found.n_mistakes == 8 and len({one.confidence_percent for one in found.most}) == 1


def test_merged_without_a_setting_is_chosen_over_others(evaluated):
    folders = [
        evaluated("base", GUESSES),
        evaluated("odd", GUESSES, trick="merged", setting="guidance=3"),
        evaluated("small", GUESSES, trick="merged", architecture="vit"),
        evaluated("merged", GUESSES, trick="merged"),
    ]
    (found,) = mistakes(folders)
    assert found.folder == folders[2] and found.classifier == "merged, vit, replicate 0, eval mode"
    (found,) = mistakes(folders[1::-1])
    assert found.folder == folders[1] and found.classifier == "merged, guidance=3, resnet, replicate 0, eval mode"
    (found,) = mistakes(folders[:2])
    assert found.folder == folders[0]


def test_logits_chosen_on_the_test_set_are_never_read(evaluated):
    (found,) = mistakes([evaluated("tested", GUESSES, files=("logits-best-r0", "logits-r0"))])
    assert found.n_mistakes == 4 and grey(found.most[0].picture) == 102
    (found,) = mistakes([evaluated("only best", GUESSES, files=("logits-best-r0",))])
    assert (found.most, found.least, found.n_test) == ([], [], 0) and "no logits of a last checkpoint" in found.remark


def test_a_subset_of_classes_keeps_names_and_images_together(evaluated):
    guesses = [[0.9, 0.1]] * 8  # all are taken for dogs
    labels = [1] * 4 + [0] * 4  # files are read cat by cat, then dog by dog
    (found,) = mistakes([evaluated("tested", guesses, labels, classes=["dog", "cat"])])
    said = [(grey(one.picture) - 100, one.picture.alt, one.true, one.predicted) for one in found.most]
    assert said == [(place, "real: cat", "cat", "dog") for place in range(4)] and found.n_test == 8


def test_images_that_were_not_tested_are_not_shown(evaluated):
    (found,) = mistakes([evaluated("tested", GUESSES, labels=np.tile([0, 1, 2], 4))])  # as many, in another order
    assert found.most == found.least == [] and "they are not the 12 that were tested" in found.remark


def test_real_images_that_are_not_there_are_said_not_raised(tmp_path, evaluated):
    (found,) = mistakes([evaluated("lost", GUESSES, real_dir=str(tmp_path / "nowhere"))])
    assert (found.most, found.least, found.n_mistakes, found.n_test) == ([], [], 4, 12) and "nowhere" in found.remark
    folder = evaluated("grown", GUESSES)
    Image.fromarray(flat(7)).save(tmp_path / "real" / "dog" / "more.png")
    (found,) = mistakes([folder])
    assert (found.most, found.least, found.n_mistakes) == ([], [], 4)
    assert "13 real images are there, and they are not the 12 that were tested" in found.remark


def test_damaged_logits_are_said_not_raised(evaluated, tmp_path):
    folder = evaluated("tested", GUESSES)
    (tmp_path / "tested" / "logits-r0.safetensors").write_bytes(b"cut short")
    (found,) = mistakes([folder, str(tmp_path / "missing")])
    assert (found.most, found.least, found.n_test) == ([], [], 0) and "missing or damaged" in found.remark
    assert mistakes([str(tmp_path / "missing")]) == []


def test_a_classifier_without_a_mistake_says_so(evaluated):
    (found,) = mistakes([evaluated("tested")])
    assert (found.most, found.least, found.n_mistakes, found.n_test) == ([], [], 0, 12)
    assert found.remark == "none of 12 test images was taken for another class"
