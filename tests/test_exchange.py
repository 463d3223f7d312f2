"""Sets go out and come back: class folders, Hugging Face's data sets, packed .npz; others' images come in and train."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from processes import Gate, exit_code, forked
from test_describe import flat, write_set

from synthlib import cli, receipts
from synthlib.data.classes import match_classes
from synthlib.data.datasets import read_spec
from synthlib.data.exports import export_folder, export_huggingface, export_npz
from synthlib.data.imports import import_set, read_picture
from synthlib.data.real import load_real
from synthlib.data.shards import load_shards, read_shards, set_files
from synthlib.data.sources import open_source
from synthlib.generation.generate import generate, open_plan
from synthlib.inputs import InputError

CIFAKE = (
    Path(os.environ.get("SYNTHLIB_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "cifake_sd14_15k.npz"
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small drawn set: the folder of its step, three classes in an order that is not the alphabet's."""
    from synthlib.runs.experiment import complete
    from synthlib.settings import SETTINGS

    folder = tmp_path_factory.mktemp("drawn") / "digits_merged"
    given = {"run_dir": str(folder), "classes": ["three", "one", "two"], "trick": "merged", "images_per_class": 4}
    given |= {"num_inference_steps": 2, "shard_rows": 5, "replicates": 2, "batch_size": 4}
    settings = SETTINGS["01_generate"](**complete("01_generate", given))
    step = receipts.begin("01_generate", settings)
    step.finish(generate(open_plan(settings)))
    return folder


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_folder(folder, classes, mode=None):
    """<class>/<n>.png of 6 x 6 pixels, whose values tell class and number; returns {relative path: pixels}."""
    made = {}
    for label, (name, count) in enumerate(classes.items()):
        for number in range(count):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            made[f"{name}/{number}.png"] = pixels = np.full((6, 6, 3), (10 * label, number, 7), np.uint8)
            image = Image.fromarray(pixels)
            (image.convert(mode) if mode else image).save(path)
    return made


def by_pixels(images):
    """(class, pixels) of each image of a set, in an order that does not depend on the set's."""
    names = [images.classes[label] for label in images.labels]
    return sorted(zip(names, [image.numpy().tobytes() for image in images.images], strict=True))


# --- exports, and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "eurosat", "huggingface", "npz"])
def test_a_set_that_goes_out_and_comes_back_has_equal_pixels_and_labels(drawn, tmp_path, kind):
    out = tmp_path / ("set.npz" if kind == "npz" else "set")
    assert cli.main(["export", str(drawn), str(out), "--to", kind]) == 0
    rows_come_too = kind in ("huggingface", "npz")
    import_set(open_source(out), tmp_path / "back", trick="merged" if rows_come_too else "unknown")
    before, after = read_shards(drawn), read_shards(tmp_path / "back")
    assert len(before.labels) == 24 and by_pixels(before) == by_pixels(after)
    if rows_come_too:  # these carry the rows: all comes back, in order
        assert before.classes == after.classes and (before.labels == after.labels).all()
        assert set(after.rows.column_names) == set(before.rows.column_names)
        for name in before.rows.column_names:
            assert before.rows[name].to_pylist() == after.rows[name].to_pylist(), name
    else:  # here the class names do, by the alphabet
        assert after.classes == ["one", "three", "two"] and after.rows["prompt"].null_count == 24


def test_torchvision_and_a_loader_like_the_authors_read_the_folders(drawn, tmp_path):
    from torchvision.datasets import ImageFolder

    export_folder(set_files(drawn), tmp_path / "out")
    images = read_shards(drawn)
    read = ImageFolder(tmp_path / "out")
    assert read.classes == ["one", "three", "two"] and len(read) == 24
    theirs = []  # class folders listed, each file of them opened by its path, as in a hand-written Dataset
    for number, name in enumerate(sorted(os.listdir(tmp_path / "out"))):
        for file in sorted(os.listdir(tmp_path / "out" / name)):
            assert file.endswith(".png")
            theirs.append((Image.open(tmp_path / "out" / name / file).convert("RGB"), number))
    assert [label for _, label in theirs] == read.targets
    found = sorted((read.classes[label], np.asarray(image).transpose(2, 0, 1).tobytes()) for image, label in read)
    assert found == by_pixels(images)
    assert found == sorted((read.classes[n], np.asarray(i).transpose(2, 0, 1).tobytes()) for i, n in theirs)


def test_the_table_beside_the_folders_has_each_images_prompt(drawn, tmp_path):
    export_folder(set_files(drawn), tmp_path / "out")
    rows = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert rows.num_rows == 24 and all((tmp_path / "out" / file).is_file() for file in rows["file"].to_pylist())
    assert rows["prompt"].to_pylist() == read_shards(drawn).rows["prompt"].to_pylist()


def test_torchvisions_eurosat_reads_the_eurosat_layout(drawn, tmp_path):
    from torchvision.datasets import EuroSAT

    export_folder(set_files(drawn), tmp_path / "out", "eurosat/2750")
    assert EuroSAT(tmp_path / "out").classes == ["one", "three", "two"] and len(EuroSAT(tmp_path / "out")) == 24


def test_hugging_face_reads_names_in_the_order_of_labels(drawn, tmp_path):
    from datasets import load_dataset

    receipt = receipts.read_receipt(drawn)
    export_huggingface(set_files(drawn), tmp_path / "digits", receipt)
    for source in ([str(tmp_path / "digits")], ["parquet"]):  # the export, and the shards where they lie
        files = {} if len(source[0]) > 7 else {"data_files": [str(file) for file in set_files(drawn)]}
        read = load_dataset(*source, split="train", cache_dir=str(tmp_path / "cache"), **files)
        assert read.features["label"].names == ["three", "one", "two"]
        images = read_shards(drawn)
        assert read["label"] == images.labels.tolist() and read["prompt"] == images.rows["prompt"].to_pylist()
        pixels = np.stack([np.asarray(image) for image in read["image"]])
        assert (pixels == images.images.permute(0, 2, 3, 1).numpy()).all()


def test_the_card_says_prompts_counts_licence_use_and_checksums(drawn, tmp_path):
    from huggingface_hub import DatasetCard

    export_huggingface(set_files(drawn), tmp_path / "digits", receipts.read_receipt(drawn))
    card = DatasetCard.load(tmp_path / "digits" / "README.md")
    assert card.data.license == "mit" and card.data.task_categories == ["image-classification"]
    assert "- class_prompt: 3 prompts: `three`, `one`, `two`" in card.text
    assert "`a photo of a three`" in card.text and "| 1 | one | 8 |" in card.text
    assert "Intended use" in card.text and "guidance scale: 1." in card.text
    for file in sorted((tmp_path / "digits" / "data").iterdir()):
        assert f"| {file.name} | {receipts.digests.sha256_file(file)} |" in card.text


def test_the_card_shows_names_and_prompts_letter_for_letter(tmp_path):
    names = ["$5_$|<b>", "one `two`"]
    files = write_set(tmp_path / "set", [flat(1), flat(2)], names, names, prompt=[f"a {name}" for name in names])
    export_huggingface(files, tmp_path / "out", None)
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"| 0 | \$5_\$\|\<b> | 1 |" in card and r"| 1 | one \`two\` | 1 |" in card
    assert r"`a $5_$|<b>`, a one \`two\`" in card


@pytest.mark.parametrize("licence", ["", "cc-by-4.0"])
def test_a_card_never_guesses_a_licence_or_prompts(tmp_path, licence):
    write_folder(tmp_path / "others", {"a": 2, "b": 2})
    files = import_set(open_source(tmp_path / "others"), tmp_path / "set")
    export_huggingface(files, tmp_path / "out", receipts.read_receipt(tmp_path / "set"), licence)
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        f"license: {licence or 'unknown'}" in text and "prompts unknown" in text and "guidance scale: unknown" in text
    )
    assert ("Find out what the licence" in text) == (not licence)


def test_a_packed_npz_reads_with_numpy_and_pillow_alone(drawn, tmp_path):
    export_npz(set_files(drawn), tmp_path / "set.npz")
    packed = np.load(tmp_path / "set.npz", allow_pickle=False)
    images, start = read_shards(drawn), packed["offsets"]
    assert [str(name) for name in packed["class_names"]] == images.classes
    for i in range(24):
        image = Image.open(io.BytesIO(packed["encoded"][start[i] : start[i + 1]].tobytes()))
        assert (np.asarray(image).transpose(2, 0, 1) == images.images[i].numpy()).all()
    assert packed["labels"].tolist() == images.labels.tolist()


@pytest.mark.parametrize("kind", ["folder", "huggingface", "npz"])
def test_an_export_never_mixes_with_what_is_there(drawn, tmp_path, capsys, kind):
    out = tmp_path / ("out.npz" if kind == "npz" else "out")
    out.write_text("mine") if kind == "npz" else write_folder(out, {"dog": 1})
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["export", str(drawn), str(out), "--to", kind]) == 2
    assert "is there already" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


def test_an_export_that_is_cut_off_leaves_nothing(drawn, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synthlib.data.exports.shutil.copyfile", full)
    with pytest.raises(InputError, match="No space left"):
        export_huggingface(set_files(drawn), tmp_path / "out", None)
    assert not list(tmp_path.iterdir())


KINDS = {"folder": ["out", "out.csv"], "eurosat": ["out", "out.csv"], "huggingface": ["out"], "npz": ["out.npz"]}


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_exports_into_one_place_one_is_refused_and_the_other_whole(drawn, tmp_path, monkeypatch, capsys, kind):
    from synthlib.data import exports

    out, real = tmp_path / KINDS[kind][0], exports.progress
    gate = Gate()

    def waits(*given, **named):
        gate.wait()
        return real(*given, **named)

    command = ["export", str(drawn), str(out), "--to", kind]
    monkeypatch.setattr(exports, "progress", waits)
    other = forked(lambda: cli.main(command))
    gate.reached()
    monkeypatch.setattr(exports, "progress", real)
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert f"process {other}" in said and said.count("\n") == 1
    gate.let_go()
    assert exit_code(other) == 0
    assert len(open_source(out).items) == 24 and sorted(os.listdir(tmp_path)) == KINDS[kind]


@pytest.mark.parametrize(
    ("kind", "renames"), [("folder", 0), ("folder", 1), ("eurosat", 1), ("huggingface", 0), ("npz", 0)]
)
@pytest.mark.parametrize("begun", [True, False])
def test_an_export_that_was_killed_goes_on_by_the_same_command(drawn, tmp_path, monkeypatch, kind, renames, begun):
    """Killed after so many renames, before the next; or, not `begun`, before the first image."""
    from synthlib.data import exports

    def killed_at(name, left):
        real = getattr(os, name)

        def rename(*given):
            if not left:
                os._exit(9)
            left.pop()
            return real(*given)

        monkeypatch.setattr(os, name, rename)

    def killed():
        if begun:
            left = [1] * renames
            killed_at("replace", left)
            killed_at("rename", left)
        else:
            monkeypatch.setattr(exports, "progress", lambda *_, **__: os._exit(9))
        return cli.main(command)

    out = tmp_path / KINDS[kind][0]
    command = ["export", str(drawn), str(out), "--to", kind]
    assert exit_code(forked(killed)) == 9 and not out.exists()
    assert cli.main(command) == 0
    assert len(open_source(out).items) == 24 and sorted(os.listdir(tmp_path)) == KINDS[kind]


def test_images_that_vanish_while_they_are_written_are_missed(drawn, tmp_path, monkeypatch, capsys):
    from synthlib.data import exports

    def tidied(*given, **named):
        yield from progress(*given, **named)
        next(tmp_path.glob(".out.*/one/*.png")).unlink()

    progress = exports.progress
    monkeypatch.setattr(exports, "progress", tidied)
    assert cli.main(["export", str(drawn), str(tmp_path / "out"), "--to", "folder"]) == 2
    assert "23 of 24 images" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a" * 230, "\u0926" * 80, "a\nb", "a\tb", "a/b", "..", " a", "a\u00a0", "a_\u0065\u0301"]
)
def test_a_class_that_can_name_no_folder_is_refused_before_anything_is_made(tmp_path, capsys, name):
    outdir = tmp_path / "out"
    words = ["--classes", "a", "a \u00e9", name, "--trick", "class_prompt", "--outdir", str(outdir)]
    assert cli.main(["generate", *words, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "class" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
    images = [encoded(np.zeros((6, 6, 3), np.uint8))] * 2
    names = np.array(["a \u00e9", "a", name])
    np.savez(tmp_path / "others.npz", encoded=np.frombuffer(b"".join(images), np.uint8), labels=np.array([0, 2]),
             offsets=np.cumsum([0, *map(len, images)]), class_names=names)  # fmt: skip
    assert cli.main(["import", str(tmp_path / "others.npz"), str(tmp_path / "set")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "set").exists()


def test_the_longest_class_name_gets_its_files(tmp_path):
    name = "\u0926" * 65
    write_folder(tmp_path / "mine", {name: 2, "b": 1})
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert export_folder(files, tmp_path / "out") == 3 and len(list((tmp_path / "out" / name).iterdir())) == 2


# --- imports ----------------------------------------------------------------------------------------------------------


def test_an_image_folder_becomes_a_set_with_unknown_prompts(tmp_path):
    made = write_folder(tmp_path / "mine", {"cat": 3, "dog": 2})
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    images = load_shards(files)
    assert images.classes == ["cat", "dog"] and images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.rows["file"].to_pylist() == list(made)
    assert all((image.permute(1, 2, 0).numpy() == made[file]).all()
               for image, file in zip(images.images, images.rows["file"].to_pylist(), strict=True))  # fmt: skip
    for unknown in ("prompt", "domain", "guidance_scale", "seed", "flagged"):
        assert images.rows[unknown].null_count == 5
    assert set(images.rows["trick"].to_pylist()) == {"unknown"} and images.column("index").tolist() == [0, 1, 2, 0, 1]
    assert len(set(images.rows["image_id"].to_pylist())) == 5
    assert pq.read_table(files[0])["image"][0].as_py()["bytes"] == (tmp_path / "mine/cat/0.png").read_bytes()


def test_an_imported_set_trains_a_classifier(tmp_path, settings):
    from synthlib.training.replicates import train_replicates

    write_folder(tmp_path / "mine", {"cat": 6, "dog": 6})
    import_set(open_source(tmp_path / "mine"), tmp_path / "set", trick="random_scale", size=32)
    given = {"dataset": "own", "trick": "random_guidance", "generated_dir": str(tmp_path / "set"), "epochs": 1}
    step = receipts.begin("02_train", training := settings("02_train", **given))
    paths, history = train_replicates(read_shards(training.generated_dir), training, step.folder)
    step.finish(paths)
    assert history["epoch"] == [1] and receipts.state("02_train", step.parameters) == "done"
    with pytest.raises(InputError, match="has trick 'random_guidance'; expected 'merged'.*run `synthlib import` again"):
        receipts.begin("02_train", settings("02_train", **given | {"trick": "merged"}))


def test_an_imported_set_is_tested_and_its_rows_say_that_it_was_given(tmp_path, settings):
    from synthlib.data.real import load_real
    from synthlib.evaluation.replicates import evaluate_replicates
    from synthlib.training.replicates import train_replicates

    real = load_real("digits", "pool")
    folder = tmp_path / "mine"
    for number, (image, label) in enumerate(zip(real.images[:200], real.labels, strict=False)):
        place = folder / real.classes[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    rows = []
    for name in ("one", "two"):  # two sets that are not the same
        import_set(open_source(folder), tmp_path / name, "digits")
        given = {"trick": "unknown", "generated_dir": str(tmp_path / name)}
        training = settings("02_train", epochs=1, run_dir=str(tmp_path / f"{name}-02"), **given)
        step = receipts.begin("02_train", training)
        step.finish(train_replicates(read_shards(training.generated_dir), training, step.folder)[0])
        given |= {"trained_dir": str(tmp_path / f"{name}-02"), "run_dir": str(tmp_path / f"{name}-03")}
        step = receipts.begin("03_eval", testing := settings("03_eval", measures=[], shuffles=1, **given))
        files, found = evaluate_replicates(load_real("digits", "test"), testing, step.folder)
        step.finish(files)
        rows.append(found.iloc[0])
        next(folder.rglob("*.png")).unlink()
    assert [row["trick"] for row in rows] == ["unknown"] * 2
    assert all(row["generation_seed"].startswith("given ") for row in rows)
    assert rows[0]["generation_seed"] != rows[1]["generation_seed"]


@pytest.mark.parametrize("trick", ["unknown", "class_prompt"])
def test_what_nobody_knows_how_it_was_drawn_is_a_condition_of_its_own(settings, trick):
    assert settings("02_train", trick=trick).trick == settings("03_eval", trick=trick).trick == trick
    with pytest.raises(InputError, match="unknown trick"):
        settings("01_generate", trick="unknown")


@pytest.mark.parametrize(
    ("found", "known", "said"),
    [
        (["Annual Crop", "sea_lake"], ["AnnualCrop", "SeaLake"], None),
        (["cat", "dog"], ["dog", "cat"], None),
        (["cafe\u0301", "C++", "Ｋ"], ["caf\u00e9", "c++", "k"], None),  # Unicode forms
        (["a", "A", "b c"], ["A", "a", "b_c"], None),  # equal names first
        (["Sea", "River"], ["river", "SeaLake"], "only there: Sea; missing there: SeaLake"),  # not of EuroSAT
        (["दिन", "x"], ["दान", "x"], "only there: दिन; missing there: दान"),  # day, gift: vowel signs tell them apart
        (["C++", "x"], ["C", "x"], "only there: C.*; missing there: C"),
        (["c", "c."], ["C", "C#"], r"alike but for case, spaces or punctuation \(c and c\.\)"),
        (["ca fe", "ca_fe"], ["cafe"], "alike but for"),
        (["cat"], ["dog", "cat"], "only there: none; missing there: dog"),
        (["cat", "dog", "cow"], ["dog", "cat"], "only there: cow; missing there: none"),
        ([f"c{i}" for i in range(30)], ["dog"], "c9 and 20 more; missing there: dog"),
        (["cat", "Cat"], ["cat"], "has 2 classes"),
    ],
)
def test_classes_match_by_name_or_both_lists_are_told(found, known, said):
    if said is None:
        matched = match_classes(found, known, "theirs", "ours")
        assert list(matched) == found and set(matched.values()) == set(known)
        assert all(matched[name] == name for name in set(found) & set(known))
        return
    with pytest.raises(InputError, match=said) as caught:
        match_classes(found, known, "theirs", "ours")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("folder", ["Sea", "sea", "Sea Lake"])
def test_a_folder_sea_is_eurosats_sealake_and_that_is_said(tmp_path, capsys, folder):
    names = [folder if name == "SeaLake" else name for name in read_spec("eurosat").classes]
    write_folder(tmp_path / "theirs", dict.fromkeys(names, 2))
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "set"), "--dataset", "eurosat"]) == 0
    assert (f"its class {folder} is taken for SeaLake" in capsys.readouterr().out) == (folder != "Sea Lake")
    images = read_shards(tmp_path / "set")
    red = images.images[:, 0, 0, 0].tolist()
    assert [red[i] for i, label in enumerate(images.labels) if images.classes[label] == "SeaLake"] == [90, 90]
    write_folder(tmp_path / "theirs", {"Ocean": 1})
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "other"), "--dataset", "eurosat"]) == 2
    assert "only there: Ocean" in capsys.readouterr().err


def test_classes_alike_are_told_and_stay_apart(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"A": 1, "a": 2, "C": 1, "C#": 1})
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    images = load_shards(files)
    assert "(A and a; C and C#); each is taken for a class of its own" in capsys.readouterr().out
    assert images.classes == ["A", "C", "C#", "a"] and images.labels.tolist() == [0, 1, 2, 3, 3]
    with pytest.raises(InputError, match="capitals"):  # one folder, where file systems do not tell A from a
        export_folder(files, tmp_path / "out")


def test_labels_are_the_data_sets_not_the_alphabets(tmp_path):
    folder = tmp_path / "eurosat" / "2750"
    write_folder(
        folder, dict.fromkeys(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], 1)
    )
    images = load_shards(import_set(open_source(tmp_path), tmp_path / "set", "digits"))
    assert images.classes[:3] == ["zero", "one", "two"] and images.labels.tolist() == list(range(10))
    assert images.images[:, 0, 0, 0].tolist() == [10 * n for n in range(10)]  # written in that order


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1"])
def test_other_pixels_than_rgb_become_rgb_as_torchvision_reads_them(tmp_path, capsys, mode):
    from torchvision.datasets import ImageFolder

    write_folder(tmp_path / "mine", {"a": 2, "b": 1}, mode)
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert f"3 images were PNG {mode} and became PNG RGB." in capsys.readouterr().out
    read = np.stack([np.asarray(image) for image, _ in ImageFolder(tmp_path / "mine")])
    assert (load_shards(files).images.permute(0, 2, 3, 1).numpy() == read).all()
    stored = Image.open(io.BytesIO(pq.read_table(files[0])["image"][0].as_py()["bytes"]))
    assert (stored.mode, stored.format) == ("RGB", "PNG")


def test_pixels_that_were_see_through_are_told_of():
    pixels = np.full((4, 4, 4), 200, np.uint8)
    assert read_picture(encoded(pixels), "x").converted == "were PNG RGBA with transparent pixels and became PNG RGB"
    pixels[..., 3] = 255
    assert read_picture(encoded(pixels), "x").converted == "were PNG RGBA and became PNG RGB"


def test_jpegs_keep_their_bytes(tmp_path):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    data = encoded(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8), "JPEG")
    (tmp_path / "mine" / "a" / "x.JPG").write_bytes(data)
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    stored = pq.read_table(files[0])["image"][0].as_py()
    assert stored["bytes"] == data and stored["path"].endswith(".jpg")
    export_folder(files, tmp_path / "out")  # PNGs, of the same pixels
    (written,) = (tmp_path / "out").rglob("*.png")
    assert (np.asarray(Image.open(written)) == np.asarray(Image.open(io.BytesIO(data)))).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_photos_are_turned_upright_and_counted(tmp_path, capsys, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    (tmp_path / "mine" / "a").mkdir(parents=True)
    for orientation in range(10):  # 2 to 8 turn or mirror
        (exif := Image.Exif())[274] = orientation
        file = tmp_path / "mine" / "a" / f"{orientation}.{kind.lower()}"
        Image.fromarray(pixels).save(file, kind, exif=exif)
    Image.fromarray(pixels).save(file.with_stem("damaged"), kind, exif=b"Exif\0\0no note at all")
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set")]) == 0
    assert "7 images were turned upright" in capsys.readouterr().out
    images = read_shards(tmp_path / "set")
    shas = images.rows["pixels_sha256"].to_pylist()
    for name, image, sha in zip(images.rows["file"].to_pylist(), images.images, shas, strict=True):
        with Image.open(tmp_path / "mine" / name) as theirs:
            upright = theirs if "damaged" in name else ImageOps.exif_transpose(theirs)
            upright = np.asarray(upright.convert("RGB"))
        assert (image.permute(1, 2, 0).numpy() == upright).all(), name
        assert sha == receipts.digests.sha256_bytes(upright.tobytes())
    real = load_real("own", "test", str(tmp_path / "mine"))  # the same pixels, and told too
    assert torch.equal(real.images, images.images) and "7 images were turned upright" in capsys.readouterr().out


def test_a_phones_photo_has_its_upright_size(tmp_path):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (exif := Image.Exif())[274] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "mine" / "a" / "0.jpg", exif=exif)
    Image.new("RGB", (8, 16)).save(tmp_path / "mine" / "a" / "1.jpg")
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert load_shards(files).images.shape == (2, 3, 16, 8)


def test_images_of_several_sizes_are_refused_or_made_one(tmp_path):
    write_folder(tmp_path / "mine", {"a": 2})
    (tmp_path / "mine" / "a" / "wide.png").write_bytes(encoded(np.zeros((6, 10, 3), np.uint8)))
    with pytest.raises(
        InputError, match=r"6 x 6 \(a/0.png\) and of 10 x 6 \(a/wide.png\); expected one size: give size,"
    ):
        import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert not list((tmp_path / "set").glob("[!.]*"))  # nothing that counts
    images = load_shards(import_set(open_source(tmp_path / "mine"), tmp_path / "set", size=8)).images
    assert images.shape == (3, 3, 8, 8)


def test_pixels_of_more_than_8_bits_are_not_cut_off_in_silence(tmp_path):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "mine" / "a" / "0.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        import_set(open_source(tmp_path / "mine"), tmp_path / "set")


def test_files_that_are_left_out_are_told(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"a": 1})
    for name in ("b.gif", "c.gif", "readme.txt"):
        (tmp_path / "mine" / "a" / name).write_bytes(b"x")
    open_source(tmp_path / "mine")
    assert "3 files are of no kind that is read, and are left out: 2 .gif, 1 .txt." in capsys.readouterr().out


@pytest.mark.parametrize("file", ["thesis.tex", "a/0.png", "other.parquet"])
def test_an_import_never_mixes_with_what_is_there(tmp_path, file):
    write_folder(tmp_path / "mine", {"a": 1})
    (tmp_path / "set" / file).parent.mkdir(parents=True)
    (tmp_path / "set" / file).write_bytes(b"mine")
    with pytest.raises(InputError, match="holds something else"):
        import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert [path for path in (tmp_path / "set").rglob("[!.]*") if path.is_file()] == [tmp_path / "set" / file]


def test_the_same_import_again_changes_nothing(tmp_path):
    write_folder(tmp_path / "mine", {"a": 2})
    import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    before = (tmp_path / "set" / "receipt.json").read_bytes()
    import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert (tmp_path / "set" / "receipt.json").read_bytes() == before


def test_a_set_that_is_being_drawn_is_not_yet_one(tmp_path, capsys):
    (tmp_path / ".out.synthlib").mkdir()
    (tmp_path / ".out.synthlib" / "plan.json").write_text("{}")
    for part in ("", "part-00000-x.parquet"):
        (tmp_path / ".out.synthlib" / part).touch() if part else None
        assert cli.main(["describe", str(tmp_path / "out")]) == 2
        assert "no finished shard yet" in capsys.readouterr().err


def test_a_broken_image_is_named_and_nothing_is_left(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"a": 2})
    (tmp_path / "mine" / "a" / "0.png").write_bytes((tmp_path / "mine" / "a" / "0.png").read_bytes()[:50])
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    assert "a/0.png of mine is no whole image" in said and len(said.splitlines()) == 1
    assert not list((tmp_path / "set").glob("[!.]*"))
    with pytest.raises(InputError, match=r"x is no whole image \(of no kind that is known\)"):
        read_picture(b"not an image", "x")


def test_an_import_that_was_killed_is_done_again_and_others_sets_are_safe(tmp_path, drawn):
    write_folder(tmp_path / "mine", {"a": 2, "b": 1})
    files = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    bytes_before = files[0].read_bytes()
    (tmp_path / "set" / "receipt.json").unlink()  # as if killed before its end
    files[0].write_bytes(b"half")
    (tmp_path / "set" / ".importing").mkdir()
    (tmp_path / "set" / ".importing" / "shard-00000.parquet").write_bytes(b"half")
    import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    assert files[0].read_bytes() == bytes_before
    before = {path: path.read_bytes() for path in drawn.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="holds something else"):
        import_set(open_source(tmp_path / "mine"), drawn)
    assert {path: path.read_bytes() for path in drawn.iterdir() if path.is_file() and path.name in
            {p.name for p in before}} == before  # fmt: skip


def test_an_import_that_fails_leaves_the_set_that_was_there(tmp_path):
    write_folder(tmp_path / "mine", {"a": 2, "b": 1})
    import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    before = {path: path.read_bytes() for path in (tmp_path / "set").glob("[!.]*")}
    (tmp_path / "mine" / "b" / "0.png").write_bytes(b"junk")
    with pytest.raises(InputError, match="b/0.png of mine is no whole image"):
        import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    write_folder(tmp_path / "other" / "mine", {"a": 3})  # of the same name, and yet another set
    with pytest.raises(InputError, match="holds something else"):
        import_set(open_source(tmp_path / "other" / "mine"), tmp_path / "set")
    assert {path: path.read_bytes() for path in (tmp_path / "set").glob("[!.]*")} == before
    assert len(read_shards(tmp_path / "set").labels) == 3


def test_an_import_does_not_take_the_place_of_another_step(tmp_path):
    write_folder(tmp_path / "mine", {"a": 2})
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "receipt.json").write_text('{"notebook": "02_train"}')
    with pytest.raises(InputError, match="holds something else"):
        import_set(open_source(tmp_path / "mine"), tmp_path / "step")
    assert (tmp_path / "step" / "receipt.json").read_text() == '{"notebook": "02_train"}'


def test_a_set_of_ours_says_itself_by_which_trick_it_was_drawn(drawn, tmp_path):
    export_npz(set_files(drawn), tmp_path / "set.npz")
    for trick in ("unknown", "base_class"):  # merged, or merged_full: its rows are those of both
        with pytest.raises(InputError, match="rows of set say class_prompt, .* expected merged or merged_full"):
            import_set(open_source(tmp_path / "set.npz"), tmp_path / "back", trick=trick)
    import_set(open_source(tmp_path / "set.npz"), tmp_path / "back", trick="merged_full")
    assert receipts.read_receipt(tmp_path / "back")["parameters"]["trick"] == "merged_full"


def test_names_that_a_stranger_made_up_never_leave_the_folder(drawn, tmp_path):
    (tmp_path / "theirs").mkdir()
    for number, bad in enumerate(["../../evil", "a/b", ".hidden", "x\ny", ""]):
        table = pq.read_table(set_files(drawn)[0])
        ids = pa.array([bad, *table["image_id"].to_pylist()[1:]])
        file = tmp_path / "theirs" / f"{number}.parquet"
        pq.write_table(table.set_column(table.column_names.index("image_id"), "image_id", ids), file)
        with pytest.raises(InputError, match="not unique, or no file names"):
            import_set(open_source(file), tmp_path / "set")
        with pytest.raises(InputError, match="cannot name a file"):
            export_folder([file], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"theirs", "set"}


def test_an_export_loses_no_image_whose_id_is_there_twice(drawn, tmp_path):
    with pytest.raises(InputError, match="is there twice"):
        export_folder([*set_files(drawn), set_files(drawn)[0]], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_through_a_link_leaves_no_table_without_its_images(drawn, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to("there")
    with pytest.raises(InputError, match="is there already"):
        export_folder(set_files(drawn), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "out"}


def test_an_export_spares_a_table_of_ones_own(drawn, tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(InputError, match="out.csv is there already"):
        export_folder(set_files(drawn), tmp_path / "out")
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_an_exported_set_goes_out_again_and_an_unfinished_one_does_not(drawn, tmp_path, capsys):
    export_huggingface(set_files(drawn), tmp_path / "hub", None)
    assert cli.main(["export", str(tmp_path / "hub"), str(tmp_path / "again"), "--to", "huggingface"]) == 0
    write_folder(tmp_path / "mine", {"a": 2})
    import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    (tmp_path / "set" / "receipt.json").unlink()
    assert cli.main(["export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "folder"]) == 2
    assert "is not finished" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_splits_are_never_mixed_or_taken_for_classes(drawn, tmp_path):
    export_huggingface(set_files(drawn), tmp_path / "hub", None)
    (tmp_path / "hub" / "data" / "test-00000-of-00001.parquet").write_bytes(set_files(drawn)[0].read_bytes())
    with pytest.raises(InputError, match="holds the splits test, train"):
        open_source(tmp_path / "hub")
    write_folder(tmp_path / "both" / "train", {"a": 1})
    write_folder(tmp_path / "both" / "test", {"a": 1})
    with pytest.raises(InputError, match="holds the splits test, train; expected classes"):
        open_source(tmp_path / "both")
    write_folder(tmp_path / "both" / "unlabelled", {"a": 1})
    with pytest.raises(InputError, match="holds the splits test, train; expected classes"):
        open_source(tmp_path / "both")


@pytest.mark.parametrize(
    "names", [("train", "test"), ("train_0", "dev_0"), ("Train-0", "Test-0"), ("pets-train", "pets-validation")]
)
def test_splits_are_known_however_their_files_are_named(tmp_path, names):
    for name in names:
        parquet(tmp_path / f"{name}.parquet", {"image": IMAGE, "label": PETS}, image=pictures(1, 2), label=[0, 1])
    with pytest.raises(InputError, match="holds the splits"):
        open_source(tmp_path)


def test_a_file_made_anew_is_read_anew(tmp_path):
    for value in (1, 2):
        parquet(tmp_path / "a.parquet", {"image": IMAGE, "label": PETS}, image=pictures(value, 9), label=[0, 1])
        image = Image.open(io.BytesIO(open_source(tmp_path / "a.parquet").items[0].read()))
        assert np.asarray(image)[0, 0, 0] == value


def test_classes_of_ones_own_may_have_any_names(tmp_path):
    write_folder(tmp_path / "mine", {"+": 1, "-": 1, "A": 1, "a b": 1, "Ä ö": 1, "猫": 1})
    images = load_shards(import_set(open_source(tmp_path / "mine"), tmp_path / "set"))
    assert images.classes == ["+", "-", "A", "a b", "Ä ö", "猫"]
    assert export_folder(set_files(tmp_path / "set"), tmp_path / "out") == 6
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(images.classes)


def packed(path, **changed):
    one = encoded(np.zeros((4, 4, 3), np.uint8))
    arrays = {"encoded": np.frombuffer(one * 2, np.uint8), "offsets": np.array([0, len(one), 2 * len(one)])}
    arrays |= {"labels": np.array([0, 1]), "class_names": np.array(["a", "b"])} | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": None}, "cannot be read as a packed .npz"),
        ({"labels": np.array([0, 2])}, "labels from 0 to 2; expected 0 to 1"),
        ({"labels": np.array([0])}, "do not fit together"),
        ({"offsets": np.array([0, 10, 10**9])}, "do not fit together"),
        ({"offsets": np.array([10, 0, 20])}, "do not fit together"),
        ({"class_names": np.array([{}], object)}, "cannot be read as a packed .npz"),  # would need pickle
        ({"offsets": np.array([0, 10, 20])}, "0 of set is no whole image"),
        ({"offsets": np.array([0.0, 10.0, 20.0])}, "do not fit together"),
        ({"labels": np.array([0.0, 1.0])}, "do not fit together"),
        ({"labels": np.array([[0], [1]])}, "do not fit together"),
        ({"labels": np.array(0)}, "do not fit together"),
        ({"class_names": np.array("a")}, "cannot be read as a packed .npz"),
        ({"class_names": np.array([b"a", b"b"])}, "class_names of type"),
        ({"class_names": np.array([["a", "b"]]), "labels": np.array([0, 0])}, "class_names of type"),
        ({"class_names": np.array([0.5, 1.5])}, "class_names of type"),
        ({"class_names": np.array(["cat", "cat"])}, "the class 'cat' twice"),
        ({"class_names": np.array(["caf\u00e9", "cafe\u0301"])}, "two classes that read the same"),
        ({"class_names": np.array(["a b", "a_b"])}, "two classes that read the same"),
        ({"labels": np.array([0, -1])}, "labels from -1 to 0"),
    ],
)
def test_a_packed_npz_that_is_none_is_one_line(tmp_path, changed, said):
    with pytest.raises(InputError, match=said) as caught:
        import_set(open_source(packed(tmp_path / "set.npz", **changed)), tmp_path / "set")
    assert len(str(caught.value).splitlines()) == 1


def test_any_labelled_parquet_of_hugging_faces_comes_in(tmp_path):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    pixels = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2, 3)]
    features = Features({"img": ImageFeature(), "fine_label": ClassLabel(names=["z", "a"])})
    given = {"img": [{"bytes": encoded(p), "path": None} for p in pixels], "fine_label": [1, 0, 1]}
    Dataset.from_dict(given, features).to_parquet(tmp_path / "them.parquet")
    images = load_shards(import_set(open_source(tmp_path / "them.parquet"), tmp_path / "set"))
    assert images.classes == ["z", "a"] and images.labels.tolist() == [1, 0, 1]
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 3] and images.column("index").tolist() == [0, 0, 1]


IMAGE, LABEL, TEXT = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["a"]}, {"dtype": "string", "_type": "Value"}
PETS = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def parquet(path, features, **columns):
    """A Parquet file with what it tells Hugging Face's `datasets` of its columns."""
    path.parent.mkdir(exist_ok=True)
    told = json.dumps({"info": {"features": features}}) if features else "{}"
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": told}), path)


def pictures(*values):
    return [{"bytes": encoded(np.full((4, 4, 3), value, np.uint8)), "path": None} for value in values]


def test_each_parquet_file_counts_by_its_own_class_list(tmp_path):
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        told = {"image": IMAGE, "label": {"_type": "ClassLabel", "names": names}}
        parquet(
            tmp_path / "them" / f"train-{number}.parquet",
            told,
            image=pictures(1, 2),
            label=[names.index("cat"), names.index("dog")],
        )
    images = load_shards(import_set(open_source(tmp_path / "them"), tmp_path / "set"))
    assert images.classes == ["cat", "dog"] and images.labels.tolist() == [0, 1, 0, 1]
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 1, 2]
    assert load_real("own", "test", str(tmp_path / "them")).labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("told", "columns", "said"),
    [
        (
            {"label": {"_type": "ClassLabel", "names": ["cat", "eel"]}},
            {"label": [0]},
            "only there: eel; missing there: dog",
        ),
        ({"label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}}, {"label": [0]}, "only there: eel"),
        ({"label": {"_type": "ClassLabel", "names": ["cat"]}}, {"label": [0]}, "missing there: dog"),
        ({"label": {"_type": "ClassLabel", "names": ["cat", "cat"]}}, {"label": [0]}, "the class 'cat' twice"),
        ({"label": {"_type": "ClassLabel", "names": [0, 1]}}, {"label": [0]}, "no class names"),
        ({"label": {"dtype": "int64", "_type": "Value"}}, {"label": [0]}, "no class names for its column 'label'"),
        ({"label": PETS}, {"label": [-1]}, "labels such as -1; expected 0 to 1"),
        ({"label": PETS}, {"label": [2]}, "labels such as 2"),
        ({"label": PETS}, {"label": [None]}, "labels"),
        ({"label": PETS}, {"label": [0.0]}, "labels of type double"),
        ({"label": PETS}, {"label": ["0"]}, "labels of type string"),
        ({"label": PETS}, {"label": [True]}, "labels of type bool"),
        (
            {"label": PETS, "class": TEXT},
            {"label": [1], "class": ["cat"]},
            "column class says 'cat', its label 1 is 'dog'",
        ),
        ({"photo": IMAGE, "label": PETS}, {"label": [0]}, "no column 'image'"),
    ],
)
def test_files_that_do_not_mean_the_same_by_a_label_are_refused(tmp_path, capsys, told, columns, said):
    parquet(tmp_path / "them" / "0.parquet", {"image": IMAGE, "label": PETS}, image=pictures(1), label=[0])
    name = "photo" if "photo" in told else "image"
    parquet(tmp_path / "them" / "1.parquet", {name: IMAGE} | told, **{name: pictures(2)} | columns)
    assert cli.main(["import", str(tmp_path / "them"), str(tmp_path / "set")]) == 2
    told = capsys.readouterr().err
    assert said in told and "1.parquet" in told and len(told.splitlines()) == 1


def test_a_column_class_that_is_about_something_else_is_left_alone(tmp_path):
    told = {"image": IMAGE, "label": PETS, "class": TEXT}
    parquet(tmp_path / "them.parquet", told, image=pictures(1, 2), label=[0, 1], **{"class": ["mammal", "mammal"]})
    assert load_shards(import_set(open_source(tmp_path / "them.parquet"), tmp_path / "set")).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "given", "taken", "said"),
    [
        (
            ["img"],
            {"coarse_label": PETS, "fine_label": PETS},
            "",
            "fine_label",
            "columns coarse_label, fine_label; fine_label is taken",
        ),
        (["image"], {"fine_label": PETS, "label": PETS}, "", "label", "label is taken"),
        (["image"], {"coarse_label": PETS, "fine_label": PETS}, "coarse_label", "coarse_label", ""),
        (["image"], {"species": PETS}, "", "species", ""),
        (["thumbnail", "image"], {"label": PETS}, "", "label", "columns thumbnail, image; image is taken"),
        (["image"], {"genus": PETS, "species": PETS}, "species", "species", ""),
        (["image"], {"genus": PETS, "species": PETS}, "", None, "label columns genus, species; expected one"),
        (["image"], {"domain": PETS, "label": TEXT}, "", None, "domain, label (which has no class names)"),
        (["image"], {"quality": PETS, "class": TEXT}, "", None, "quality, class (which has no class names)"),
        (["image"], {"quality": PETS, "target": TEXT}, "quality", "quality", ""),
        (["image"], {"genus": PETS, "species": PETS}, "specie", None, "did you mean 'species'"),
        (["image"], {"label": PETS}, "image", None, "Known: label"),
        (["photo", "mask"], {"label": PETS}, "", None, "image columns photo, mask; expected one"),
    ],
)
def test_of_several_columns_the_clear_one_is_taken_and_that_is_said(
    tmp_path, capsys, images, labels, given, taken, said
):
    columns = {name: pictures(*(2 if name == "thumbnail" else 1,) * 2) for name in images}
    columns |= {name: ["x", "y"] if kind is TEXT else [name == taken] * 2 for name, kind in labels.items()}
    columns = {
        name: [int(v) for v in value] if isinstance(value[0], bool) else value for name, value in columns.items()
    }
    parquet(tmp_path / "them.parquet", dict.fromkeys(images, IMAGE) | labels, **columns)
    command = ["import", str(tmp_path / "them.parquet"), str(tmp_path / "set")]
    assert cli.main([*command, "--label_column", given] if given else command) == (0 if taken else 2)
    told = capsys.readouterr()
    assert said in (told.out if taken else told.err)
    if taken:
        assert ("is taken" in told.out) == bool(said)
        found = read_shards(tmp_path / "set")
        assert found.labels.tolist() == [1, 1] and found.images[:, 0, 0, 0].tolist() == [1, 1]
    else:
        assert len(told.err.splitlines()) == 1


def test_a_label_column_of_what_has_no_columns_is_one_line(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"a": 1})
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set"), "--label_column", "label"]) == 2
    assert "expected none" in capsys.readouterr().err


def test_a_packed_sets_rows_must_fit_its_labels(drawn, tmp_path):
    export_npz(set_files(drawn), tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz") as theirs:
        arrays = dict(theirs)
    arrays["class_names"] = arrays["class_names"][::-1]
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(InputError, match="rows whose class or label is not its images'"):
        open_source(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"x": [1]}, None),
        ({"x": [1]}, {"image": {"_type": "Image"}, "label": LABEL}),
        ({"image": [{"bytes": b"x"}], "label": [0]}, {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}),
        ({"image": [{"bytes": b"x"}], "label": [0]}, "not JSON"),
        ({"image": [None], "label": [0]}, {"image": {"_type": "Image"}, "label": LABEL}),
        ({"image": [{"bytes": b"x"}], "label": [-1]}, {"image": {"_type": "Image"}, "label": LABEL}),
        ({"image": [{"bytes": b"x"}], "label": [None]}, {"image": {"_type": "Image"}, "label": LABEL}),
    ],
)
def test_a_parquet_that_is_no_labelled_image_set_is_one_line(tmp_path, columns, features):
    told = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
    table = pa.table(columns)
    pq.write_table(
        table.replace_schema_metadata({"huggingface": told}) if features else table, tmp_path / "them.parquet"
    )
    with pytest.raises(InputError) as caught:
        import_set(open_source(tmp_path / "them.parquet"), tmp_path / "set")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("data", [b"", b"PK\3\4 garbage", b"\x93NUMPY garbage", b"<html>"])
@pytest.mark.parametrize("name", ["x.npz", "x.parquet", "x.tar.gz"])
def test_garbage_is_one_line(tmp_path, capsys, name, data):
    (tmp_path / name).write_bytes(data)
    assert cli.main(["import", str(tmp_path / name), str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "01_generate" not in said and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--size", "-5"], "size is -5"),
        (["--trick", "typo"], "unknown --trick"),
        (["--dataset", "typo"], "unknown data set"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, given, said):
    write_folder(tmp_path / "mine", {"a": 1})
    (tmp_path / "mine" / "a" / "gone.png").symlink_to("nowhere")
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set"), *given]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set")]) == 2
    assert "cannot read a/gone.png of mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no images"),
        ({"a/x.txt": b"x"}, "holds no images"),
        ({"x.png": b"x", "a/y.png": b"x"}, "x.png in .* lies in no class folder"),
        ({"x.png": b"x"}, "x.png in .* lies in no class folder"),
    ],
)
def test_a_folder_without_classes_is_one_line(tmp_path, files, said):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "file.txt"])
def test_what_is_no_source_is_one_line(tmp_path, name):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="expected class folders of images, a .tar.gz"):
        open_source(tmp_path / name)


def test_hidden_files_and_macs_leftovers_are_no_images(tmp_path):
    write_folder(tmp_path, {"a": 1})
    for name in (".hidden/x.png", "__MACOSX/a/0.png", "a/._0.png", "a/.DS_Store", ".ipynb_checkpoints/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [item.file for item in open_source(tmp_path).items] == ["a/0.png"]


def test_a_reader_of_duplicates_is_told_file_names(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"a": 2, "b": 1})
    (tmp_path / "mine" / "b" / "again.png").write_bytes((tmp_path / "mine" / "a" / "1.png").read_bytes())
    assert cli.main(["import", str(tmp_path / "mine"), str(tmp_path / "set")]) == 0
    assert "a/1.png = b/again.png" in " ".join(capsys.readouterr().out.split())  # lines are wrapped


def test_a_set_that_was_drawn_here_is_better_taken_as_it_is(drawn, tmp_path, capsys):
    export_folder(set_files(drawn), tmp_path / "out")
    (tmp_path / ".out.synthlib").symlink_to(drawn)
    assert cli.main(["import", str(tmp_path / "out"), str(tmp_path / "set")]) == 0
    assert "out was drawn here" in capsys.readouterr().out


def test_looking_at_a_damaged_set_says_so_and_changes_nothing(tmp_path, capsys):
    write_folder(tmp_path / "mine", {"a": 2})
    (file,) = import_set(open_source(tmp_path / "mine"), tmp_path / "set")
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    before = sorted(tmp_path.rglob("*"))
    for command in (["describe"], ["export", str(tmp_path / "out"), "--to", "folder"]):
        assert cli.main([command[0], str(tmp_path / "set"), *command[1:]]) == 2
        assert "shard-00000.parquet is missing or damaged" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_a_set_is_told_how_to_become_one(tmp_path, capsys):
    write_folder(tmp_path, {"a": 1})
    for command in (
        ["describe", str(tmp_path)],
        ["export", str(tmp_path), "x", "--to", "npz"],
        ["redraw", str(tmp_path), "a"],
    ):
        assert cli.main(command) == 2
        assert "bring others in with `synthlib import`" in capsys.readouterr().err


# --- real images, made elsewhere --------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(not CIFAKE.is_file(), reason=f"no {CIFAKE.name} in $SYNTHLIB_TEST_DATA")
def test_the_cifake_images_come_in_and_show_what_is_known_of_them(tmp_path):
    command = [sys.executable, "-m", "synthlib.cli", "import", str(CIFAKE), "set", "--dataset", "cifar10"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-m", "synthlib.cli", "describe", "set", "--json", "told.json"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    told = json.loads((tmp_path / "told.json").read_text())
    assert "32 x 32 JPEG: 15000" in said and re.search("prompts +unknown", said)
    assert set(told["classes"].values()) == {1500} and list(told["classes"])[:2] == ["airplane", "automobile"]
    with np.load(CIFAKE) as theirs:
        first = int(np.flatnonzero(theirs["labels"] == 0)[0])
        one = theirs["encoded"][theirs["offsets"][first] : theirs["offsets"][first + 1]].tobytes()
    stored = pq.read_table(tmp_path / "set" / "shard-00000.parquet").slice(0, 1).to_pylist()[0]
    assert (stored["image"]["bytes"], stored["class"], stored["file"]) == (one, "airplane", str(first))
    assert told["duplicates"]["groups"] == 0 and told["black"] == 0 and told["prompts"] == 0
    assert Image.open(tmp_path / "set_contact_sheet.png").width > 500
