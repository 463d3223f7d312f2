"""Describe and contact sheet: what is in a set, counted by hand; every class is shown, nothing else is decoded or written."""

import dataclasses
import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from synthlib import cli
from synthlib.data import describe as module
from synthlib.data.describe import describe, description_text
from synthlib.data.shards import encode_png, load_shards, shard_bytes
from synthlib.evaluation.referee import judge_set
from synthlib.inputs import InputError
from synthlib.results import contact
from synthlib.results.contact import _draw_sheet, contact_sheet, fitted, spread_over_classes
from synthlib.results.samples import spread_rows

RECORDED = {"finished": "2026-01-02T03:04:05Z", "commit": "abc123", "python": "3.11.7", "versions": {"torch": "2.9.0"}}
RECEIPT = {"notebook": "01_generate", "parameters": {}, "recorded": RECORDED | {"hardware": "Linux x86_64, 2 cores"}}


def flat(value, side=8):
    return np.full((side, side, 3), value, np.uint8)


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_set(folder, images, names, classes, cut=1000, encode=encode_png, **columns):
    """Shards of `cut` rows, of images uint8 [H, W, 3] with the class names `names`, null where `columns` says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(images)
    given = {
        "image_id": [f"{name}-{place}" for place, name in enumerate(names)],
        "label": pa.array([classes.index(name) for name in names], pa.int64()),
        "class": names,
        "prompt": pa.nulls(n, pa.string()),
        "domain": pa.nulls(n, pa.string()),
        "trick": ["unknown"] * n,
        "guidance_scale": pa.nulls(n, pa.float32()),
        "seed": pa.nulls(n, pa.uint64()),
        "replicate": pa.array([0] * n, pa.int64()),
        "index": pa.array(range(n), pa.int64()),
        "pixels_sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        "flagged": pa.nulls(n, pa.bool_()),
    }
    rows = pa.table(given | columns)
    files = []
    for first in range(0, n, cut):
        files.append(folder / f"shard-{len(files):05d}.parquet")
        part = [encode(image) for image in images[first : first + cut]]
        files[-1].write_bytes(shard_bytes(rows.slice(first, cut), part, classes))
    return files


@pytest.fixture
def by_hand(tmp_path):
    """Seven images in two shards: cat 10, 20, 30 and black; dog 10 (as a cat), 40, 40 (again); none of cow."""
    images = [flat(value) for value in (10, 20, 30, 0, 10, 40, 40)]
    domains = ["photo", "drawing", "photo", "drawing", "photo", "drawing", "photo"]
    names = ["cat"] * 4 + ["dog"] * 3
    return write_set(
        tmp_path / "by-hand",
        images,
        names,
        ["cat", "cow", "dog"],
        cut=4,
        prompt=[f"a {domain} of a {name}" for domain, name in zip(domains, names, strict=True)],
        domain=domains,
        trick=["multi_domain"] * 7,
        guidance_scale=pa.array([1, 2, 3, 4, 5, 6, 11], pa.float32()),
        replicate=pa.array([0, 0, 1, 1, 0, 0, 1], pa.int64()),
        flagged=[False, True, None, None, False, True, True],
        model=["synthlib/pocket"] * 7,
        batch_size=pa.array([4] * 4 + [8] * 3, pa.int64()),
        latents=[b"never read"] * 7,
    )


def test_counts_are_those_counted_by_hand(by_hand):
    found = describe(by_hand, RECEIPT)
    assert (found.images, found.replicates, found.formats) == (7, 2, {"8 x 8 PNG": 7})
    assert found.classes == {"cat": 4, "cow": 0, "dog": 3} and found.tricks == {"multi_domain": 7}
    assert found.domains == {"photo": 4, "drawing": 3}
    assert found.class_domains == {"cat": {"photo": 2, "drawing": 2}, "dog": {"photo": 2, "drawing": 1}}
    assert (found.prompts, found.distinct_prompts) == (7, 4) and "a photo of a cat" in found.prompt_examples
    assert (found.flagged, found.asked) == (3, 5)
    assert (found.black, found.black_examples) == (1, ["cat-3"])
    copies = found.duplicates
    assert (copies.groups, copies.beyond_first, copies.across_classes) == (2, 2, 1)
    assert copies.examples == [["cat-0", "dog-4"], ["dog-5", "dog-6"]]
    guidance = found.guidance
    assert (guidance.n, guidance.min, guidance.max) == (7, 1, 11) and guidance.mean == pytest.approx(32 / 7)
    assert guidance.edges == list(range(1, 12)) and guidance.counts == [1, 1, 1, 1, 1, 1, 0, 0, 0, 1]
    assert found.drawn_with == {"model": ["synthlib/pocket"], "batch_size": [4, 8]}
    assert found.made["commit"] == "abc123" and found.made["versions"] == {"torch": "2.9.0"}
    assert json.loads(json.dumps(dataclasses.asdict(found)))["duplicates"]["groups"] == 2


def test_the_text_says_what_a_reader_must_see(by_hand):
    text = description_text(describe(by_hand, RECEIPT))
    assert "UNEQUAL: from 0 (cow) to 4 (cat) images" in text
    assert "8 x 8 PNG: 7" in text and "7 of 3 classes, 2 replicates" in text
    assert "DIFFERS: " in text and "7 images, from 1 to 11, mean 4.571" in text
    assert "flagged 3 of 5 images" in text and "1: cat-3 - the safety checker of the authors' script" in text
    unwrapped = " ".join(text.split())
    assert "2 groups (1 of them across classes), 2 images beyond the first of each: cat-0 = dog-4;" in unwrapped
    assert "cat-0 = dog-4; dog-5 = dog-6" in unwrapped
    assert "01_generate 2026-01-02T03:04:05Z" in text and "Python 3.11.7, torch 2.9.0" in text
    assert sum(line.endswith("#" * 40) for line in text.splitlines()) == 7  # the bars: seven bins of one image
    assert "no receipt" in description_text(describe(by_hand, None))


def test_a_set_of_which_nothing_is_known_says_so(tmp_path):
    images = [flat(value) for value in (10, 20, 30, 40)]
    files = write_set(tmp_path / "import", images, ["cat", "cat", "dog", "dog"], ["cat", "dog"], encode=jpeg)
    found = describe(files, {"notebook": "import", "parameters": {"origin": {"name": "theirs"}}, "recorded": RECORDED})
    assert found.formats == {"8 x 8 JPEG": 4} and found.guidance is found.flagged is None
    assert (found.prompts, found.asked, found.black, found.duplicates.groups) == (0, 0, 0, 0)
    lines = {line.split("  ")[0]: line for line in description_text(found).splitlines()}
    for name in ("prompts", "domains", "guidance"):
        assert lines[name].endswith("unknown")
    assert lines["safety checker"].endswith("not asked") and lines["black images"].endswith("none")
    assert lines["classes"].endswith("2 images each") and lines["from"].endswith("name theirs")


def test_sizes_and_formats_are_counted_apart(tmp_path):
    images = [flat(1), flat(2), flat(3, side=16)]
    files = write_set(
        tmp_path / "mixed", images, ["cat"] * 3, ["cat"], encode=lambda p: jpeg(p) if p[0, 0, 0] == 2 else encode_png(p)
    )
    assert describe(files, None).formats == {"8 x 8 PNG": 1, "8 x 8 JPEG": 1, "16 x 16 PNG": 1}


@pytest.mark.parametrize("length", [5, 40, 120])
def test_of_a_hundred_classes_none_is_missing_and_no_line_is_too_long(tmp_path, length):
    classes = [f"{number:03d}{'x' * (length - 3)}" for number in range(100)]
    files = write_set(tmp_path / "set", [flat(1)] * 100, classes, classes)
    text = description_text(describe(files, None))
    assert max(map(len, text.splitlines())) <= 100
    table = text.split("1 image each\n")[1].split("\ntricks")[0]
    assert sorted(word[:3] for word in table.split() if word != "1") == [f"{number:03d}" for number in range(100)]
    assert len(table.splitlines()) == {5: 13, 40: 100, 120: 100}[length]


def test_one_guidance_scale_needs_no_histogram(tmp_path):
    files = write_set(
        tmp_path / "set", [flat(1)] * 2, ["a"] * 2, ["a"], guidance_scale=pa.array([7.5, 7.5], pa.float32())
    )
    assert "2 images, all 7.5" in description_text(describe(files, None))


def test_domains_shared_out_alike_are_one_line(tmp_path):
    files = write_set(
        tmp_path / "set",
        [flat(1)] * 6,
        ["a"] * 3 + ["b"] * 3,
        ["a", "b"],
        domain=["photo", "sketch", ""] * 2,
        prompt=["x"] * 6,
    )
    text = description_text(describe(files, None))
    assert "photo 2, sketch 2; 2 images without" in text and "the same in every class: 1 of each domain" in text


def test_no_latents_are_read_no_pixels_decoded_and_one_shard_is_held_at_a_time(by_hand, monkeypatch):
    asked, real = [], module.read_table
    monkeypatch.setattr(module, "read_table", lambda path, names: asked.append((path, set(names))) or real(path, names))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    before = {path: path.read_bytes() for path in by_hand[0].parent.iterdir()}
    describe(by_hand, RECEIPT)
    assert [path for path, _ in asked] == by_hand and all("latents" not in names for _, names in asked)
    assert {path: path.read_bytes() for path in by_hand[0].parent.iterdir()} == before


def test_what_is_no_shard_or_no_image_is_one_line(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="no shard of a set .no image, image_id"):
        describe([tmp_path / "other.parquet"], None)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="truncated"):
        contact_sheet([tmp_path / "cut.parquet"], tmp_path / "sheet.png")
    damaged = write_set(tmp_path / "set", [flat(1)], ["a"], ["a"], encode=lambda pixels: b"not an image")
    with pytest.raises(InputError, match="holds what is no image"):
        describe(damaged, None)


def test_a_shard_that_holds_a_photo_on_its_side_is_read_upright(tmp_path):
    lying = np.zeros((8, 16, 3), np.uint8)
    lying[:, 8:] = 200  # its right half is below once it is turned

    def photo(pixels):
        (exif := Image.Exif())[274] = 6
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", exif=exif)
        return file.getvalue()

    (shard,) = write_set(tmp_path / "set", [lying], ["a"], ["a"], encode=photo)
    assert describe([shard], None).formats == {"8 x 16 JPEG": 1}
    assert cli.main(["export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "folder"]) == 0
    exported = np.asarray(Image.open(tmp_path / "out" / "a" / "a-0.png")).transpose(2, 0, 1)
    for pixels in (load_shards([shard]).images[0].numpy(), exported):
        assert pixels.shape == (3, 16, 8) and pixels[:, :8].max() < 50 < 150 < pixels[:, 8:].min()
    (other,) = write_set(tmp_path / "other", [lying], ["a"], ["a"], image_id=["b"])
    with pytest.raises(InputError, match="16 x 8 and 8 x 16; expected one size"):
        load_shards([shard, other])


# --- class lists that differ ------------------------------------------------------------------------------------------

GREYS = {10: "cat", 20: "dog", 30: "dog", 40: "cat", 50: "cat"}


@pytest.fixture
def mixed(tmp_path):
    """A folder of two shards: cat, dog by the list [cat, dog]; dog, cat, cat by the list [dog, cat]."""
    shards = []
    for greys, classes in (((10, 20), ["cat", "dog"]), ((30, 40, 50), ["dog", "cat"])):
        images, names = [flat(grey) for grey in greys], [GREYS[grey] for grey in greys]
        ids = [f"image-{grey}" for grey in greys]
        shards += write_set(tmp_path / "one-shard", images, names, classes, image_id=ids)
        shards[-1] = shards[-1].rename(tmp_path / f"{len(shards)}.parquet")
    (tmp_path / "mixed").mkdir()
    return [shard.rename(tmp_path / "mixed" / shard.name) for shard in shards]


def by_grey(labels, classes, greys):
    return {int(grey): classes[label] for grey, label in zip(greys, labels, strict=True)}


def test_whoever_reads_a_set_takes_labels_by_each_shards_own_class_list(mixed, tmp_path, monkeypatch):
    images = load_shards(mixed)
    assert by_grey(images.labels, images.classes, images.images[:, 0, 0, 0]) == GREYS
    found = load_shards(mixed, lambda rows: spread_rows(rows, 9))
    assert by_grey(found.labels, found.classes, found.images[:, 0, 0, 0]) == GREYS
    assert describe(mixed, None).classes == {"cat": 3, "dog": 2}
    shown, real = [], contact._draw_sheet
    monkeypatch.setattr(contact, "_draw_sheet", lambda *given: shown.append(given) or real(*given))
    contact_sheet(mixed, tmp_path / "sheet.png")
    pixels, classes, counts = shown[0][:3]
    assert (classes, counts) == (["cat", "dog"], [3, 2])
    assert {int(image[0, 0, 0]): name for name, of in zip(classes, pixels, strict=True) for image in of} == GREYS
    logits, labels, said = judge_set(mixed, ["dog", "cat"], lambda images: images[:, :2, 0, 0].float())
    assert said["class"].tolist() == list(GREYS.values()) and labels.tolist() == [1, 0, 0, 1, 1]


def test_an_export_has_one_class_list(mixed, tmp_path):
    from datasets import load_dataset

    for kind in ("npz", "huggingface", "folder"):
        out = str(tmp_path / f"out.{kind}")
        assert cli.main(["export", str(mixed[0].parent), out, "--to", kind]) == 0
    packed = np.load(tmp_path / "out.npz")
    assert by_grey(packed["labels"], packed["class_names"].tolist(), GREYS) == GREYS
    read = load_dataset(str(tmp_path / "out.huggingface"), split="train", cache_dir=str(tmp_path / "cache"))
    greys = [np.asarray(image)[0, 0, 0] for image in read["image"]]
    assert (
        by_grey(read["label"], read.features["label"].names, greys)
        == GREYS
        == by_grey(read["label"], ["cat", "dog"], greys)
    )
    card = (tmp_path / "out.huggingface" / "README.md").read_text()
    for file in (tmp_path / "out.huggingface" / "data").iterdir():
        assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    rows = pyarrow.csv.read_csv(tmp_path / "out.folder.csv")
    assert by_grey(rows["label"].to_pylist(), ["cat", "dog"], GREYS) == GREYS


@pytest.mark.parametrize(
    ("classes", "changed", "said"),
    [
        (["cat", "eel"], {}, "only there: eel; missing there: dog"),
        (["cat"], {}, "missing there: dog"),
        (["cat", "dog", "cat"], {}, "the class 'cat' twice"),
        (["dog", "cat"], {"class": ["dog"]}, "column class says 'dog', its label 1 is 'cat'"),
        (["dog", "cat"], {"label": pa.array([-1], pa.int64())}, "labels such as -1; expected 0 to 1"),
        (["dog", "cat"], {"label": pa.array([2], pa.int64())}, "labels such as 2; expected 0 to 1"),
        (["dog", "cat"], {"label": pa.array([1.0])}, "labels of type double"),
    ],
)
def test_shards_that_do_not_mean_the_same_by_a_label_are_refused(mixed, tmp_path, capsys, classes, changed, said):
    (other,) = write_set(tmp_path / "other", [flat(60)], ["cat"], classes, image_id=["image-60"], **changed)
    other.rename(mixed[0].parent / "3.parquet")
    for command in (["describe"], ["export", str(tmp_path / "out.npz"), "--to", "npz"]):
        assert cli.main([command[0], str(mixed[0].parent), *command[1:]]) == 2
        told = capsys.readouterr().err
        assert said in told and "3.parquet" in told and len(told.splitlines()) == 1
    with pytest.raises(InputError, match="3.parquet"):
        load_shards([*mixed, mixed[0].parent / "3.parquet"])


# --- contact sheet ----------------------------------------------------------------------------------------------------


def test_a_contact_sheet_shows_pixels_as_they_are_and_decodes_only_what_it_shows(tmp_path, monkeypatch):
    drawn = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    files = write_set(tmp_path / "set", list(drawn), ["a"] * 30 + ["b"] * 10, ["a", "b"], cut=16)
    decoded, real = [], contact.decode_image
    monkeypatch.setattr(contact, "decode_image", lambda data: decoded.append(1) or real(data))
    contact_sheet(files, tmp_path / "sheet.png", per_class=4)
    assert len(decoded) == 8
    first = (tmp_path / "sheet.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    for number in (0, 10, 19, 29, 30, 33, 36, 39):  # evenly spread over each class
        large = drawn[number].repeat(2, axis=0).repeat(2, axis=1)
        starts = np.argwhere((sheet[:-63, :-63] == large[0, 0]).all(axis=2))
        assert any((sheet[y : y + 64, x : x + 64] == large).all() for y, x in starts), number
    contact_sheet(files, tmp_path / "sheet.png", per_class=4)
    assert (tmp_path / "sheet.png").read_bytes() == first  # no date in it


@pytest.mark.parametrize(
    ("classes", "side"),
    [
        ([f"class number {n}" for n in range(10)], 32),
        ([f"class_{n}" for n in range(100)], 32),
        ([f"HerbaceousVegetation_{n} of a region far away, as seen from above" for n in range(10)], 64),
        (["only $one$ class, with nothing in it but one image"], 512),
        (["$5_$", "US $ 10 & $ 20", r"a_$\x$", "<b>x</b>"], 32),
    ],
)
def test_on_a_contact_sheet_every_class_is_named_in_full_and_nothing_overlaps(classes, side):
    pixels = fitted(np.zeros((side, side, 3), np.uint8), len(classes))[None]
    figure = _draw_sheet([pixels] * len(classes), classes, [1234] * len(classes), "set: a long title; " * 8, 10)
    boxes = [text.get_window_extent() for text in figure.texts]
    canvas = figure.images[0].get_array()
    height, width, _ = canvas.shape
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height
        assert (canvas[int(height - box.y1) : int(height - box.y0) + 1, int(box.x0) : int(box.x1) + 1] == 255).all()
    apart = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert apart == 0
    said = "".join(text.get_text() for text in figure.texts).replace(" ", "")
    assert all(said.count(name.replace(" ", "") + "1234") == 1 for name in classes)
    assert (canvas == 0).all(axis=2).sum() == len(classes) * pixels[0, ..., 0].size  # each class has its image
    assert height < 1500 and width < 2000


def test_the_title_says_what_the_set_is(by_hand, tmp_path, monkeypatch):
    from synthlib.results import contact

    titles, real = [], contact._draw_sheet
    monkeypatch.setattr(contact, "_draw_sheet", lambda *given: titles.append(given[3]) or real(*given))
    contact_sheet(by_hand, tmp_path / "sheet.png")
    hidden = write_set(tmp_path / ".out.synthlib", [flat(1)], ["a"], ["a"])
    contact_sheet(hidden, tmp_path / "sheet.png")
    assert titles == ["by-hand: 7 images; trick multi domain", "out: 1 image; trick unknown; prompts unknown"]


def test_images_are_spread_from_the_first_to_the_last_of_each_class():
    labels = np.array([0, 1] * 5 + [1])
    assert spread_over_classes(labels, 3, 3).tolist() == [0, 1, 4, 5, 8, 10]
    assert spread_over_classes(labels, 2, 99).tolist() == list(range(11))
