"""Real images: the right picture under the right label, and nothing that is trained on is ever tested on."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthlib import digests
from synthlib.data.datasets import read_spec
from synthlib.data.downloads import REAL
from synthlib.data.readers import in_eurosat_pool
from synthlib.data.real import DOWNLOADED, load_real, real_training_set
from synthlib.data.sets import ImageSet
from synthlib.evaluation.predict import require_classes
from synthlib.inputs import InputError

REAL_IMAGES = Path(os.environ.get("SYNTHLIB_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PACKED = {"cifar10": "cifar10_real_test_5k", "cifar100": "cifar100_real_test_1k", "eurosat": "eurosat_real_1500"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of downloaded data sets, empty."""
    monkeypatch.setenv("SYNTHLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def write(path, pixel, size=(8, 8)):
    """One image of a single colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(int(value) for value in pixel)).save(path)


def colours(real):
    """The colour in the middle of each image, [N][3]."""
    return real.images[:, :, real.images.shape[2] // 2, real.images.shape[3] // 2].tolist()


def one_line(error, *parts):
    said = str(error.value)
    assert "\n" not in said and all(part in said for part in parts), said


@pytest.mark.parametrize("receipt", ["photos/receipt.json", ".photos.synthlib/receipt.json"])
def test_generated_images_are_not_taken_for_real_ones(receipt, tmp_path):
    write(tmp_path / "photos" / "cat" / "0.png", (1, 2, 3))
    assert len(load_real("own", "test", str(tmp_path / "photos")).labels) == 1
    parts = {"parameters": {}, "inputs": {}, "outputs": {}, "code": "", "recorded": {}}
    (tmp_path / receipt).parent.mkdir(exist_ok=True)
    (tmp_path / receipt).write_text(json.dumps(parts | {"notebook": "01_generate"}))
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path / "photos"))
    one_line(error, "photos", "real_dir")


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_once_into_pool_and_test():
    from sklearn.datasets import load_digits

    pool, test = load_real("digits", "pool"), load_real("digits", "test")
    assert (len(pool.labels), len(test.labels)) == (600, 1197)
    assert set(pool.ids).isdisjoint(test.ids) and len({*pool.ids, *test.ids}) == 1797
    assert pool.classes == "zero one two three four five six seven eight nine".split()
    assert load_real("digits", "rest") is test
    theirs = load_digits()
    for part in (pool, test):
        place = [int(name.split("-")[1]) for name in part.ids]
        assert part.labels.tolist() == theirs.target[place].tolist()
        ink = 1 - part.images[:, 0].float() / 255
        small = torch.nn.functional.avg_pool2d(ink[:, :, :], 4)[:, 1:7, 1:7]  # roughly where the 8 x 8 file has it
        assert np.corrcoef(small.flatten().numpy(), theirs.images[place][:, 1:7, 1:7].flatten())[0, 1] > 0.8


def test_digits_are_dark_ink_on_white_paper_32_by_32_rgb():
    images = load_real("digits", "test").images
    assert images.shape[1:] == (3, 32, 32) and images.dtype == torch.uint8
    assert (images[:, :, :2] == 255).all() and (images[:, :, :, -2:] == 255).all()  # the margin
    assert images.amin(dim=(1, 2, 3)).float().mean() < 10


def test_a_subset_of_classes_has_its_own_images_with_labels_in_its_order():
    whole, some = load_real("digits", "test"), load_real("digits", "test", classes=["seven", "three"])
    assert some.classes == ["seven", "three"] and set(some.labels.tolist()) == {0, 1}
    assert len(some.labels) == int(((whole.labels == 3) | (whole.labels == 7)).sum())
    for image, label, name in zip(some.images, some.labels.tolist(), some.ids, strict=True):
        before = whole.ids.index(name)
        assert whole.labels[before] == [7, 3][label] and torch.equal(whole.images[before], image)


def test_unknown_names_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError) as error:
        load_real("digits", "test", classes=["sevn"])
    one_line(error, "'sevn'", "did you mean 'seven'?")
    with pytest.raises(InputError, match="did you mean 'digits'"):
        load_real("digit", "test")
    with pytest.raises(InputError, match="did you mean 'test'"):
        load_real("digits", "tets")
    write(tmp_path / "cat/1.png", (1, 1, 1))
    write(tmp_path / "dog/1.png", (1, 1, 1))
    with pytest.raises(InputError, match="did you mean 'cat'"):
        load_real("own", "test", str(tmp_path), classes=["dog", "cart"])


# --- CIFAR ------------------------------------------------------------------------------------------------------------


def write_cifar(folder, monkeypatch, dataset="cifar10", classes=None):
    """A tiny CIFAR: image i of a file has red 10 x label, green i, blue the file's number; labels run backwards."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, dataset.upper())
    classes = classes or list(read_spec(dataset).classes)
    train, test = [name for name, _ in kind.train_list], [name for name, _ in kind.test_list]
    content, n = {}, len(classes)
    for number, name in enumerate(train + test):
        labels = list(range(n))[::-1]
        data = np.zeros((n, 3, 32, 32), np.uint8)
        data += np.array([[min(10 * k, 255), i, number] for i, k in enumerate(labels)], np.uint8)[:, :, None, None]
        data[:, :, 0, 31] = 255  # the corner at the top right, white
        key = "labels" if dataset == "cifar10" else "fine_labels"
        content[name] = {"data": data.reshape(n, -1), key: labels}
    content[kind.meta["filename"]] = {kind.meta["key"]: classes}
    md5 = {}
    for name, value in content.items():
        path = folder / kind.base_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data := pickle.dumps(value, protocol=2))
        md5[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[name, md5[name]] for name in train])
    monkeypatch.setattr(kind, "test_list", [[name, md5[name]] for name in test])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5[kind.meta["filename"]]})
    return folder / kind.base_folder


@pytest.mark.parametrize(("dataset", "n", "files"), [("cifar10", 10, 5), ("cifar100", 100, 1)])
def test_cifars_training_split_is_the_pool_and_its_test_split_the_test(home, monkeypatch, dataset, n, files):
    batches = write_cifar(home / dataset, monkeypatch, dataset)
    pool, test = load_real(dataset, "pool"), load_real(dataset, "test")
    assert pool.classes == list(read_spec(dataset).classes)
    assert pool.labels.tolist() == list(range(n))[::-1] * files and pool.images.shape == (n * files, 3, 32, 32)
    assert colours(pool) == [[min(10 * (n - 1 - i), 255), i, number] for number in range(files) for i in range(n)]
    assert colours(test) == [[min(10 * (n - 1 - i), 255), i, files] for i in range(n)]
    assert test.ids[1] == f"{dataset}-test-00001" and set(pool.ids).isdisjoint(test.ids)
    assert test.in_file_order and load_real(dataset, "test", classes=pool.classes[:3]).in_file_order
    assert torch.equal(load_real(dataset, "rest").images, test.images)
    assert torch.equal(load_real(dataset, "test", str(batches.parent)).images, test.images)
    assert torch.equal(load_real(dataset, "test", str(batches)).images, test.images)


def test_cifar_images_are_upright_and_rgb(home, monkeypatch):
    batches = write_cifar(home / "cifar10", monkeypatch)
    import torchvision.datasets

    theirs = torchvision.datasets.CIFAR10(batches.parent, train=False)
    ours = load_real("cifar10", "test").images[3]
    assert np.array_equal(np.asarray(theirs[3][0]).transpose(2, 0, 1), ours.numpy())
    assert (ours[:, 0, 31] == 255).all() and (ours[:, 31, 0] < 255).all()


def test_labels_follow_the_class_names_where_a_source_orders_them_otherwise(home, monkeypatch):
    names = list(read_spec("cifar10").classes)
    write_cifar(home / "cifar10", monkeypatch, classes=["Truck", *names[1:-1], "AIRPLANE"])
    test = load_real("cifar10", "test")
    assert test.classes == names
    red = [colour[0] for colour in colours(test)]
    assert test.labels.tolist() == [{0: 9, 90: 0}.get(value, value // 10) for value in red]


def test_the_corrupt_file_of_cifar_is_named(home, monkeypatch):
    batches = write_cifar(home / "cifar10", monkeypatch)
    good = (batches / "data_batch_3").read_bytes()
    (batches / "data_batch_3").write_bytes(good[:-10])
    with pytest.raises(InputError) as error:
        load_real("cifar10", "test")
    md5 = hashlib.md5(good).hexdigest()
    one_line(error, "data_batch_3", f"md5 is {hashlib.md5(good[:-10]).hexdigest()}", md5, "`synthlib download cifar10`")
    (batches / "data_batch_3").write_bytes(good)
    (batches / "batches.meta").unlink()
    with pytest.raises(InputError) as error:
        load_real("cifar10", "test")
    one_line(error, "lacks its file", "batches.meta", "`synthlib download cifar10`")


@pytest.mark.parametrize("dataset", DOWNLOADED)
def test_a_data_set_that_is_not_there_says_how_to_get_it(home, dataset):
    assert DOWNLOADED == REAL
    for given in ("", str(home / "nowhere")):
        with pytest.raises(InputError) as error:
            load_real(dataset, "test", given)
        one_line(error, f"`synthlib download {dataset}`")


# --- EuroSAT ----------------------------------------------------------------------------------------------------------


def write_eurosat(place, numbers, classes=None, suffix="jpg"):
    """JPEG files in class folders, red 20 x label, green the number."""
    for label, name in enumerate(read_spec("eurosat").classes):
        if classes is None or name in classes:
            for number in numbers:
                write(place / name / f"{name}_{number}.{suffix}", (20 * label, number, 99), (16, 16))


def test_eurosats_pool_is_a_fifth_of_each_class_as_anyone_can_recompute():
    counts = dict.fromkeys(read_spec("eurosat").classes, 3000) | {"Pasture": 2000}
    counts |= dict.fromkeys(("Highway", "Industrial", "PermanentCrop", "River"), 2500)
    assert sum(counts.values()) == 27_000
    pool = {c: [i for i in range(1, n + 1) if in_eurosat_pool(f"{c}/{c}_{i}.jpg")] for c, n in counts.items()}
    assert sum(map(len, pool.values())) == 5422
    assert all(0.188 <= len(pool[name]) / counts[name] <= 0.2113 for name in counts)
    assert pool["AnnualCrop"][:5] == [3, 5, 10, 23, 27]  # printf ... | sha256sum: from 00 to 32


@pytest.mark.parametrize("inner", ["eurosat/2750", "2750", "."])
def test_eurosat_is_tested_on_all_and_its_pool_and_rest_share_nothing(home, inner):
    write_eurosat(home / "eurosat" / inner, range(1, 31))
    test, pool, rest = (load_real("eurosat", split) for split in ("test", "pool", "rest"))
    assert len(test.ids) == len(set(test.ids)) == 300
    assert set(pool.ids) | set(rest.ids) == set(test.ids) and set(pool.ids).isdisjoint(rest.ids)
    names = list(read_spec("eurosat").classes)
    for part in (test, pool, rest):
        assert part.classes == names
        for colour, label, image_id in zip(colours(part), part.labels.tolist(), part.ids, strict=True):
            number = int(image_id.split("_")[1])
            assert image_id == f"eurosat-{names[label]}_{number}"
            assert np.abs(np.subtract(colour, (20 * label, number, 99))).max() <= 3  # JPEG
            if part is not test:
                assert in_eurosat_pool(f"{names[label]}/{names[label]}_{number}.jpg") == (part is pool)


def test_a_part_of_eurosat_has_the_members_of_the_whole(tmp_path):
    write_eurosat(tmp_path / "whole", range(1, 41))
    write_eurosat(tmp_path / "part", range(5, 25), suffix="png")
    write_eurosat(tmp_path / "few", range(1, 41), ["River", "Forest"])
    pool = set(load_real("eurosat", "pool", str(tmp_path / "whole")).ids)
    part = load_real("eurosat", "test", str(tmp_path / "part")).ids
    assert set(load_real("eurosat", "pool", str(tmp_path / "part")).ids) == pool & set(part)
    few = load_real("eurosat", "pool", str(tmp_path / "few"), classes=["River", "Forest"])
    assert few.classes == ["River", "Forest"] and {name.split("-")[1].split("_")[0] for name in few.ids} == set(
        few.classes
    )
    assert set(few.ids) == {name for name in pool if "River" in name or "Forest" in name}


@pytest.mark.parametrize("file", ["Sea", "SeaLake"])
def test_a_folder_sea_of_eurosat_is_sealake_in_the_same_pool(tmp_path, capsys, file):
    write_eurosat(tmp_path, range(1, 21))
    before = {split: load_real("eurosat", split, str(tmp_path)) for split in ("pool", "rest", "test")}
    (tmp_path / "SeaLake").rename(tmp_path / "Sea")
    for path in (tmp_path / "Sea").iterdir():
        path.rename(path.with_name(path.name.replace("SeaLake", file)))
    for split, real in before.items():
        found = load_real("eurosat", split, str(tmp_path))
        assert found.classes == real.classes and set(found.ids) == set(real.ids)
        assert dict(zip(found.ids, found.labels.tolist(), strict=True)) == dict(
            zip(real.ids, real.labels.tolist(), strict=True)
        )
        assert "its class Sea is taken for SeaLake" in capsys.readouterr().out


def test_eurosat_without_file_names_has_no_pool(tmp_path):
    write_eurosat(tmp_path / "named", (1, 2))
    pack(tmp_path / "named", tmp_path / "packed.npz")
    test = load_real("eurosat", "test", str(tmp_path / "packed.npz"))
    assert len(test.ids) == 20 and [round(colour[0] / 20) for colour in colours(test)] == test.labels.tolist()
    for split in ("pool", "rest"):  # what could be in the pool must not be tested as the rest
        with pytest.raises(InputError) as error:
            load_real("eurosat", split, str(tmp_path / "packed.npz"))
        one_line(error, f"no {split!r}", "AnnualCrop_12.jpg", "`synthlib download eurosat`")
    write(tmp_path / "named/River/River_2.png", (1, 1, 1))
    with pytest.raises(InputError, match="River_2 twice"):
        load_real("eurosat", "test", str(tmp_path / "named"))


# --- folders and packed files -----------------------------------------------------------------------------------------


def pack(folder, file, labels=None):
    """Class folders as a packed .npz, classes in reverse order."""
    classes = sorted((path.name for path in folder.iterdir()), reverse=True)
    files = [(path, k) for k, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    encoded = [path.read_bytes() for path, _ in files]
    arrays = {"encoded": np.frombuffer(b"".join(encoded), np.uint8), "labels": labels or [k for _, k in files]}
    np.savez(file, offsets=np.cumsum([0, *map(len, encoded)]), class_names=classes, **arrays)


def test_ones_own_folder_is_all_test_with_classes_by_folder(tmp_path):
    for label, name in enumerate(("bee", "ant", "cow")):
        for number in range(3):
            write(tmp_path / "mine" / name / f"{number}.png", (50 * label, number, 7))
    real = load_real("own", "test", str(tmp_path / "mine"))
    assert real.classes == ["ant", "bee", "cow"] and real.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert colours(real) == [[red, number, 7] for red in (50, 0, 100) for number in range(3)]
    assert real.ids[:4] == ["ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png"]
    assert torch.equal(load_real("own", "rest", str(tmp_path / "mine")).images, real.images)
    some = load_real("own", "test", str(tmp_path / "mine"), classes=["Cow", "ant"])
    assert some.classes == ["Cow", "ant"] and some.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert [colour[0] for colour in colours(some)] == [50] * 3 + [100] * 3
    pack(tmp_path / "mine", tmp_path / "packed.npz")
    packed = load_real("own", "test", str(tmp_path / "packed.npz"))
    assert packed.classes == ["cow", "bee", "ant"] and packed.ids[0] == "packed-00000"
    assert [colour[0] for colour in colours(packed)] == [100] * 3 + [0] * 3 + [50] * 3
    for place in ("mine", "packed.npz"):
        with pytest.raises(InputError) as error:
            load_real("own", "pool", str(tmp_path / place))
        one_line(error, "has no pool", "train/")
    with pytest.raises(InputError) as error:
        load_real("own", "test")
    one_line(error, "real_dir")


def test_classes_match_in_any_unicode_form_and_vowel_signs_count(tmp_path):
    names = ["café", "दिन", "दान"]  # day and gift differ in vowel signs
    for form in ("NFC", "NFD"):
        for label, name in enumerate(names):
            write(tmp_path / form / unicodedata.normalize(form, name) / "0.png", (50 * label, 0, 0))
    for form in ("NFC", "NFD"):
        asked = [unicodedata.normalize(form, name) for name in names[::-1]]
        for place in ("NFC", "NFD"):
            real = load_real("own", "test", str(tmp_path / place), classes=asked)
            assert real.classes == asked
            assert sorted(zip(real.labels.tolist(), colours(real), strict=True)) == [
                (label, [100 - 50 * label, 0, 0]) for label in range(3)
            ]
    nfc, nfd = (load_real("own", "test", str(tmp_path / form)) for form in ("NFC", "NFD"))
    require_classes(nfc.classes, nfd, "a checkpoint")  # of names sorted alike
    with pytest.raises(InputError, match="unknown class"):
        load_real("own", "test", str(tmp_path / "NFC"), classes=["cafe", "दिन"])
    write(tmp_path / "NFC" / unicodedata.normalize("NFD", "café") / "0.png", (1, 1, 1))
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path / "NFC"))
    one_line(error, "two classes that read the same", "'caf\\xe9'")


def test_equal_names_count_before_names_alike(tmp_path):
    for label, name in enumerate(("A", "a", "b_c")):
        write(tmp_path / name / "0.png", (50 * label, 0, 0))
    real = load_real("own", "test", str(tmp_path), classes=["B c", "a"])
    assert real.classes == ["B c", "a"] and [(50 * (2 - label)) for label in real.labels] == [
        red for red, _, _ in colours(real)
    ]


@pytest.mark.parametrize("test_name", ["test", "val", "Validation"])
def test_train_and_test_folders_are_pool_and_test(tmp_path, test_name):
    for name, red in (("train", 10), (test_name, 20)):
        for label, class_name in enumerate(("ant", "bee")):
            write(tmp_path / name / class_name / "0.png", (red, label, 0))
    pool, test = load_real("own", "pool", str(tmp_path)), load_real("own", "test", str(tmp_path))
    assert (colours(pool), colours(test)) == ([[10, 0, 0], [10, 1, 0]], [[20, 0, 0], [20, 1, 0]])
    assert set(pool.ids).isdisjoint(test.ids) and colours(load_real("own", "rest", str(tmp_path))) == colours(test)
    write(tmp_path / "train/cat/0.png", (0, 0, 0))
    with pytest.raises(InputError) as error:  # labels of the two would not mean the same
        load_real("own", "pool", str(tmp_path))
    one_line(error, "only there: cat")


def test_a_lone_train_folder_is_never_tested_on(tmp_path):
    write(tmp_path / "train/ant/0.png", (1, 1, 1))
    write(tmp_path / "train/bee/0.png", (1, 1, 1))
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path))
    one_line(error, "has no test", "only train/")
    assert len(load_real("own", "pool", str(tmp_path)).ids) == 2


def test_images_of_several_sizes_are_cropped_and_resized_only_if_asked(tmp_path):
    for name, size in (("a", (20, 10)), ("b", (20, 10)), ("c", (8, 16))):
        path = tmp_path / "ant" / f"{name}.png"
        write(path, (0, 0, 255), size)
        with Image.open(path) as image:
            image.load()
        middle = (5, 0, 15, 10) if size == (20, 10) else (0, 4, 8, 12)
        image.paste((255, 0, 0), middle)  # the central square, all that shall be seen
        image.save(path)
    write(tmp_path / "bee/d.png", (0, 255, 0), (30, 30))
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path))
    one_line(error, "20 x 10 (ant/a.png)", "expected squares", "image_size")
    real = load_real("own", "test", str(tmp_path), image_size=6)
    assert real.images.shape == (4, 3, 6, 6)
    red, green = torch.tensor([255, 0, 0]), torch.tensor([0, 255, 0])
    assert all((image[:, 1:5, 1:5].permute(1, 2, 0) == red).all() for image in real.images[:3])
    assert (real.images[:3, 0] > 220).all()  # at the cut the filter sees a little of what lies beyond
    assert (real.images[3].permute(1, 2, 0) == green).all()
    (tmp_path / "ant/c.png").unlink()
    (tmp_path / "bee/d.png").unlink()
    write(tmp_path / "bee/d.png", (0, 255, 0), (20, 10))
    alike = load_real("own", "test", str(tmp_path), image_size=6)
    assert alike.images.shape == (3, 3, 6, 6)  # one size, but no squares
    for number, side in enumerate((8, 8, 9)):
        write(tmp_path / "squares" / "ant" / f"{number}.png", (1, 1, 1), (side, side))
    write(tmp_path / "squares" / "bee" / "0.png", (1, 1, 1), (8, 8))
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path / "squares"))
    one_line(error, "8 x 8 (ant/0.png)", "9 x 9 (ant/2.png)", "image_size")
    (tmp_path / "squares/ant/2.png").unlink()
    assert load_real("own", "test", str(tmp_path / "squares"), image_size=6).images.shape == (3, 3, 8, 8)  # as they are


def test_classes_that_do_not_match_are_told_with_both_lists(tmp_path):
    for name in ("airplane", "zebra"):
        write(tmp_path / name / "0.png", (1, 1, 1))
    with pytest.raises(InputError) as error:
        load_real("cifar10", "test", str(tmp_path))
    one_line(error, "only there: zebra", "missing there: automobile, bird")
    assert load_real("cifar10", "test", str(tmp_path), classes=["airplane"]).labels.tolist() == [0]
    with pytest.raises(InputError, match="missing there: bird"):
        load_real("cifar10", "test", str(tmp_path), classes=["bird", "airplane"])


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "ant/0.png", (1, 1, 1))
    write(tmp_path / "bee/1.jpg", (1, 1, 1), (64, 64))
    whole = (tmp_path / "bee/1.jpg").read_bytes()
    (tmp_path / "bee/1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path))
    one_line(error, "bee/1.jpg", "no whole image")


def test_packed_labels_out_of_range_and_cut_files_are_refused(tmp_path):
    write(tmp_path / "mine/ant/0.png", (1, 1, 1))
    write(tmp_path / "mine/bee/0.png", (1, 1, 1))
    pack(tmp_path / "mine", tmp_path / "bad.npz", labels=[0, 2])
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path / "bad.npz"))
    one_line(error, "labels from 0 to 2", "expected 0 to 1")
    pack(tmp_path / "mine", tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-40])
    with pytest.raises(InputError) as error:
        load_real("own", "test", str(tmp_path / "cut.npz"))
    one_line(error, "cut.npz cannot be read")


def test_grey_and_transparent_images_become_rgb(tmp_path):
    (tmp_path / "ant").mkdir()
    Image.new("L", (8, 8), 40).save(tmp_path / "ant/0.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 128)).save(tmp_path / "ant/1.png")
    Image.new("P", (8, 8)).save(tmp_path / "ant/2.png")
    write(tmp_path / "bee/0.png", (1, 1, 1))
    assert colours(load_real("own", "test", str(tmp_path)))[:3] == [[40] * 3, [1, 2, 3], [0] * 3]


# --- training sets of real images -------------------------------------------------------------------------------------


def test_the_whole_pool_is_one_replicate():
    pool, whole = load_real("digits", "pool"), real_training_set("digits", replicates=3, seed=5)
    assert len(whole.labels) == 600 and set(whole.column("replicate").tolist()) == {0}
    assert sorted(whole.rows["image_id"].to_pylist()) == sorted(pool.ids)
    for label, count in enumerate(pool.labels.bincount().tolist()):
        assert whole.column("index")[whole.labels == label].tolist() == list(range(count))
    assert_are_real(whole, pool)


def assert_are_real(images, pool: ImageSet):
    for image, label, row in zip(images.images, images.labels.tolist(), images.rows.to_pylist(), strict=True):
        place = pool.ids.index(row["image_id"])
        assert torch.equal(image, pool.images[place]) and row["label"] == label
        assert images.classes[label] == row["class"] == pool.classes[pool.labels[place]]


def test_few_shot_replicates_are_the_same_however_many_are_asked_for():
    pool = load_real("digits", "pool")
    two, five = (real_training_set("digits", images_per_class=4, replicates=n, seed=7) for n in (2, 5))
    assert five.labels.bincount().tolist() == [20] * 10
    assert_are_real(five, pool)
    for number in range(5):
        part = five.replicate(number)
        assert part.labels.bincount().tolist() == [4] * 10
        assert len(set(part.rows["image_id"].to_pylist())) == 40  # without replacement
        assert sorted(part.column("index").tolist()) == sorted([0, 1, 2, 3] * 10)
        if number < 2:
            assert part.rows.equals(two.replicate(number).rows)
    draws = [frozenset(five.replicate(number).rows["image_id"].to_pylist()) for number in range(5)]
    assert len(set(draws)) == 5
    shifted = real_training_set("digits", images_per_class=4, replicates=1, seed=8)
    assert frozenset(shifted.rows["image_id"].to_pylist()) == draws[1]  # seed + replicate


def test_a_few_shot_draw_does_not_depend_on_the_other_classes_and_grows_by_adding():
    whole = real_training_set("digits", images_per_class=4, seed=7)
    some = real_training_set("digits", classes=["nine", "two"], images_per_class=6, seed=7)
    for name in ("nine", "two"):
        drawn = [
            [row["image_id"] for row in images.rows.to_pylist() if row["class"] == name] for images in (whole, some)
        ]
        assert drawn[0] == drawn[1][:4] and len(drawn[1]) == 6


def test_too_few_images_of_a_class_are_counted():
    least = int(load_real("digits", "pool").labels.bincount().min())
    with pytest.raises(InputError) as error:
        real_training_set("digits", images_per_class=least + 1)
    one_line(error, f"{least} images of '", f"at least {least + 1}")
    with pytest.raises(InputError, match="replicates is 0"):
        real_training_set("digits", images_per_class=1, replicates=0)


def test_real_images_train_a_classifier(tmp_path, settings):
    from synthlib.training.replicates import train_replicates

    images = real_training_set("digits", classes=["one", "two"], images_per_class=3, replicates=2)
    given = {"dataset": "own", "trick": "base_class", "generated_dir": "unused", "epochs": 1, "batch_size": 2}
    folder = tmp_path / "trained"
    folder.mkdir()
    found, history = train_replicates(images, settings("02_train", **given), folder)
    assert [path.name for path in found if path.suffix == ".safetensors"] == [f"model-r{n}.safetensors" for n in (0, 1)]
    assert list(history["replicate"]) == [0, 1]


# --- digests ----------------------------------------------------------------------------------------------------------


def test_images_are_known_by_their_bytes_and_what_is_remembered_of_them_only_plans(tmp_path, own_root, monkeypatch):
    monkeypatch.setattr(digests, "LARGE", 1)
    for name in ("ant", "bee"):
        write(tmp_path / "mine" / name / "0.png", (1, 1, 1))
    pack(tmp_path / "mine", tmp_path / "packed.npz")
    assert digests.images_digest(tmp_path / "nowhere") is None
    assert digests.images_digest(tmp_path / "packed.npz") == digests.sha256_file(tmp_path / "packed.npz")
    before = digests.images_digest(tmp_path / "mine")
    (tmp_path / "mine/.DS_Store").write_text("no image")
    shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    assert digests.images_digest(tmp_path / "mine") == digests.images_digest(tmp_path / "copied") == before
    # Rotten bits change neither size nor times: as if what is remembered were of other bytes.
    for memory in (own_root / "papermill_runs/.sha256").iterdir():
        memory.write_text("0" * 64)
    for path in (tmp_path / "mine", tmp_path / "packed.npz"):
        assert digests.images_digest(path, remembered=True) == "0" * 64
        true = digests.images_digest(path)
        assert true != "0" * 64 and digests.images_digest(path, remembered=True) == true  # mended


def test_a_changed_image_whose_size_and_time_were_put_back_is_seen(tmp_path, own_root, monkeypatch):
    monkeypatch.setattr(digests, "LARGE", 1)
    (file := tmp_path / "one.npz").write_bytes(b"one")
    was, before = file.stat(), digests.images_digest(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert digests.images_digest(file, remembered=True) == digests.sha256_bytes(b"two") != before


@pytest.mark.parametrize("digest", [digests.images_digest, digests.folder_digest])
def test_what_lies_behind_a_link_to_a_folder_counts_and_a_circle_ends(tmp_path, digest):
    (tmp_path / "elsewhere").mkdir()
    (file := tmp_path / "elsewhere/0.png").write_bytes(b"one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ant").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    before = digest(tmp_path / "mine")
    assert digest(tmp_path / "copied") == before
    file.write_bytes(b"two")
    assert digest(tmp_path / "mine") != before
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "mine")
    assert digest(tmp_path / "mine")


def test_digits_do_not_wait_for_torchvision():
    code = "import sys; from synthlib.data.real import *; load_real('digits', 'test')"
    code += "; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the true images --------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize("dataset", PACKED)
def test_the_true_images_have_our_classes_in_our_order(dataset):
    file = REAL_IMAGES / f"{PACKED[dataset]}.npz"
    if not file.is_file():
        pytest.skip(f"no {file.name} in $SYNTHLIB_TEST_DATA")
    real = load_real(dataset, "test", str(file))
    with np.load(file) as packed:
        assert real.classes == packed["class_names"].tolist() == list(read_spec(dataset).classes)
        assert real.labels.tolist() == packed["labels"].tolist()
        for place in (0, len(real.ids) // 2, len(real.ids) - 1):
            one = packed["encoded"][packed["offsets"][place] : packed["offsets"][place + 1]].tobytes()
            theirs = np.asarray(Image.open(io.BytesIO(one)).convert("RGB"))
            assert np.array_equal(theirs.transpose(2, 0, 1), real.images[place].numpy())
    assert real.images.shape[1:] == ((3, 64, 64) if dataset == "eurosat" else (3, 32, 32))
    assert len(set(real.ids)) == len(real.ids)
    first, last = real.classes[0], real.classes[-1]
    some = load_real(dataset, "test", str(file), classes=[last, first])
    n = int((real.labels == 0).sum())
    assert some.classes == [last, first] and some.labels.bincount().tolist() == [n, n]
    assert torch.equal(some.images[some.labels == 1], real.images[real.labels == 0])
