"""All twelve hosted sets and the real ones come from small archives served on loopback, are checked, and can be trained on."""

import hashlib
import io
import json
import pickle
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from local_record import member, tar_gz
from PIL import Image
from test_hub import server as hub_server  # noqa: F401 (a fixture)

from synthlib import cli, receipts, transfer
from synthlib.data import downloads
from synthlib.data.datasets import read_spec
from synthlib.data.downloads import HOSTED, download
from synthlib.data.real import load_real
from synthlib.data.shards import read_shards
from synthlib.files import read_json, write_json
from synthlib.inputs import InputError
from synthlib.transfer import amount

PER_CLASS = 3


@pytest.fixture
def home(record_server, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def png(size, label, number, mode="RGBA"):
    """An image that tells its label (red) and number (green), mostly opaque RGBA as the authors' are."""
    pixels = np.zeros((size, size, len(mode)), np.uint8)
    pixels[..., :] = [label, number + 1, 200, 255][: len(mode)]
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "PNG")
    return file.getvalue()


def authors_archive(name, classes=None, per_class=PER_CLASS):
    """{path: bytes} in the authors' layout: <name>/<class>/*.png for CIFAR, eurosat/2750/<Class>/*.png for EuroSAT."""
    dataset = HOSTED[name].dataset
    top, size = ("eurosat/2750", 64) if dataset == "eurosat" else (name, 32)
    classes = classes or list(read_spec(dataset).classes)
    return {f"{top}/{c}/{i:05d}.png": png(size, label, i) for label, c in enumerate(classes) for i in range(per_class)}


def serve(server, name, files=None, record=None, **given):
    return server.add(record or HOSTED[name].record, f"{name}.tar.gz", tar_gz(files or authors_archive(name)), **given)


def test_the_twelve_names_are_those_of_the_paper():
    assert len(HOSTED) == 12 and sum(hosted.record == "7861015" for hosted in HOSTED.values()) == 9
    assert {hosted.dataset for hosted in HOSTED.values()} == {"cifar10", "cifar100", "eurosat"}
    for name, hosted in HOSTED.items():  # the names say the same as the table
        assert name.lower().startswith(f"{hosted.dataset}_generated")
        said = {"class_prompt": "class_prompt", "multidomain": "multi_domain", "random_scale": "random_guidance"}
        said |= {"merged": "merged"}
        assert hosted.trick == next((trick for word, trick in said.items() if word in name), "base_class")


@pytest.mark.parametrize("name", HOSTED)
def test_each_hosted_set_becomes_a_training_set(record_server, home, capsys, settings, name):
    hosted = serve(record_server, name)
    assert cli.main(["download", name]) == 0
    said = capsys.readouterr().out
    first = said.splitlines()[0]
    md5 = hashlib.md5(hosted.data).hexdigest()
    assert first.startswith(f"Fetching {name}.tar.gz: ") and "licence cc-by-4.0" in first and md5 in first
    dataset, trick = HOSTED[name].dataset, HOSTED[name].trick
    classes = list(read_spec(dataset).classes)
    n, size = PER_CLASS * len(classes), 64 if dataset == "eurosat" else 32
    assert f"{n} images were PNG RGBA and became PNG RGB." in said and f"{size} x {size} PNG: {n}" in said
    step = receipts.begin(
        "02_train", settings("02_train", dataset=dataset, trick=trick, generated_dir=str(home / name))
    )
    images = read_shards(home / name)  # as 02_train reads it
    step.lock.release()
    assert images.classes == classes and images.images.shape == (n, 3, size, size)
    assert images.labels.tolist() == [label for label in range(len(classes)) for _ in range(PER_CLASS)]
    assert torch.equal(images.images[:, 0, 0, 0].long(), images.labels)  # each image under its own class
    assert set(images.rows["trick"].to_pylist()) == {trick} and images.rows["prompt"].null_count == n
    assert receipts.read_receipt(home / name)["parameters"]["origin"]["md5"] == md5
    assert not list(home.glob("**/*.png"))  # nothing was unpacked


def test_a_second_download_asks_nobody(record_server, home, capsys):
    serve(record_server, "cifar10_generated_32A")
    download("cifar10_generated_32A")
    record_server.asked.clear()
    capsys.readouterr()
    assert download("cifar10_generated_32A") == home / "cifar10_generated_32A"
    assert record_server.asked == [] and "is there already" in capsys.readouterr().out


def test_a_set_that_older_code_imported_is_made_again_from_the_archive(record_server, home):
    serve(record_server, "cifar10_generated_32A")
    folder = download("cifar10_generated_32A")
    before = read_shards(folder).images
    record = receipts.read_receipt(folder)
    write_json(folder / "receipt.json", record | {"code": "older"})
    record_server.licences["7861015"] = {"id": "another-licence"}  # and what is beside the point has changed too
    asked = len(record_server.downloads())
    assert torch.equal(read_shards(download("cifar10_generated_32A")).images, before)
    assert len(record_server.downloads()) == asked
    assert receipts.read_receipt(folder)["code"] == record["code"]


def test_a_set_that_was_damaged_is_made_again_from_the_archive(record_server, home):
    serve(record_server, "cifar10_generated_32A")
    folder = download("cifar10_generated_32A")
    (folder / "shard-00000.parquet").unlink()
    download("cifar10_generated_32A")
    assert len(read_shards(folder).labels) == 10 * PER_CLASS and len(record_server.downloads()) == 1


def test_two_downloads_at_once_make_one_set(record_server, home):
    from concurrent.futures import ThreadPoolExecutor

    serve(record_server, "cifar10_generated_32A")
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(download, ["cifar10_generated_32A"] * 2))
    assert len(read_shards(folders[0]).labels) == 10 * PER_CLASS and len(record_server.downloads()) == 1


def test_what_goes_wrong_with_the_set_leaves_the_archive_and_what_is_trusted(record_server, home):
    serve(record_server, "cifar10_generated_32A", md5=None)
    (home / "cifar10_generated_32A").mkdir(parents=True)
    (home / "cifar10_generated_32A" / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds something else"):
        download("cifar10_generated_32A")
    assert read_json(home / ".archives" / "first_use.json") and list((home / ".archives").glob("*.tar.gz"))


def test_unequal_counts_black_images_and_duplicates_are_told(record_server, home, capsys):
    files = authors_archive("cifar10_generated_32A")
    black = io.BytesIO()
    Image.new("RGBA", (32, 32), (0, 0, 0, 255)).save(black, "PNG")
    files |= {f"cifar10_generated_32A/cat/9{i}.png": black.getvalue() for i in range(4)}
    serve(record_server, "cifar10_generated_32A", files)
    assert cli.main(["download", "cifar10_generated_32A"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"UNEQUAL: from 3 \(airplane.* to 7 \(cat\)", said), said
    assert re.search("black images +4", said) and re.search("exact duplicates +1 group .*3 images beyond", said), said


@pytest.mark.parametrize("name", ["cifar10_generated_multidomain_32A", "EuroSat_generated_64"])
def test_the_superseded_record_stands_in_and_that_is_said(record_server, home, capsys, name):
    serve(record_server, name, record="7816671")
    download(name)
    said = capsys.readouterr().out
    assert "7816671" in said and record_server.downloads()
    assert read_shards(home / name).labels.numel() == 10 * PER_CLASS


def test_the_mislabelled_link_of_the_superseded_record_is_never_followed(record_server, home):
    serve(record_server, "cifar10_generated_32A", authors_archive("cifar100_generated_32A"), record="7816671")
    with pytest.raises(InputError, match="no cifar10_generated_32A.tar.gz"):
        download("cifar10_generated_32A")
    assert not any("7816671" in path for _, path, _, _ in record_server.asked)


def test_another_sets_archive_is_refused_by_its_classes(record_server, home, capsys):
    serve(record_server, "cifar10_generated_32A", authors_archive("cifar100_generated_32A", per_class=1))
    assert cli.main(["download", "cifar10_generated_32A"]) == 2
    said = capsys.readouterr().err
    assert "has 100 classes, cifar10 has 10; only there: apple" in said and "missing there: airplane" in said
    assert len(said.splitlines()) == 1 and receipts.read_receipt(home / "cifar10_generated_32A") is None
    assert not list((home / "cifar10_generated_32A").glob("*"))


def test_class_folders_may_differ_in_case_and_spaces(record_server, home):
    words = ["annual crop", "forest", "Herbaceous Vegetation", "highway", "industrial", "pasture", "permanent_crop",
             "residential", "river", "Sea Lake"]  # fmt: skip
    serve(record_server, "EuroSat_generated_64", authors_archive("EuroSat_generated_64", words))
    assert read_shards(download("EuroSat_generated_64")).classes == list(read_spec("eurosat").classes)


def test_without_a_checksum_a_bad_first_copy_is_not_trusted_for_ever(record_server, home, capsys):
    name = "cifar10_generated_merged_32A"
    bad = serve(record_server, name, {"x/cat/0.png": png(32, 0, 0)}, md5=None)
    with pytest.raises(InputError, match="missing there: airplane"):
        download(name)
    bad.data = tar_gz(authors_archive(name))
    assert read_shards(download(name)).labels.numel() == 10 * PER_CLASS
    assert "this first copy is trusted" in capsys.readouterr().out
    assert "first use" in receipts.read_receipt(home / name)["parameters"]["origin"]["md5"]


NAME = "cifar10_generated_32A"


@pytest.mark.parametrize(
    "odd",
    [{"drops": 2}, {"stalls": 1}, {"redirects": 2}, {"drops": 1, "ranges": False}],
    ids=lambda odd: " ".join(odd),
)
def test_a_connection_that_is_only_bad_is_resumed_to_the_end(record_server, home, odd):
    hosted = serve(record_server, NAME)
    for knob, value in odd.items():
        setattr(hosted, knob, value)
    assert len(read_shards(download(NAME)).labels) == 10 * PER_CLASS
    assert len(record_server.downloads()) > 1 or "redirects" in odd


@pytest.mark.parametrize(
    "odd",
    [{"length": 10**6}, {"length": 100}, {"endless": True}, {"redirects": 1000}, {"status": 404}, {"status": 503},
     {"sent": b"<html>sign in</html>"}, {"sent": tar_gz({"x/cat/1.png": b""})}, {"md5": "wrong"}, {"stalls": 1000}],
    ids=lambda odd: " ".join(f"{knob} {str(value)[:8]}" for knob, value in odd.items()),
)  # fmt: skip
def test_a_server_that_lies_is_refused_in_one_line_and_leaves_nothing_that_counts(
    record_server, home, capsys, caplog, odd
):
    hosted = serve(record_server, NAME)
    for knob, value in odd.items():
        setattr(hosted, knob, value)
    assert cli.main(["download", NAME]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not [
        path for path in home.rglob("*") if path.is_file() and not path.name.startswith(".") and path.suffix != ".part"
    ]
    assert not caplog.records  # nor in huggingface_hub's eleven lines about its tries
    for knob in odd:  # and when it has come to its senses, all is well
        setattr(hosted, knob, type(hosted)(b"").__dict__[knob])
    assert len(read_shards(download(NAME)).labels) == 10 * PER_CLASS


def hostile(kind):
    """An archive of the authors' set with one member too many, or broken."""
    files = authors_archive(NAME)
    members = {"link": [member("x/l.png", tarfile.SYMTYPE, "/etc/passwd")], "hard link": [member("x/l.png", tarfile.LNKTYPE)],
               "device": [member("x/d.png", tarfile.CHRTYPE)], "fifo": [member("x/f.png", tarfile.FIFOTYPE)],
               "huge": [member("x/h.png", size=2**40)]}.get(kind, [])  # fmt: skip
    more = {"above": {"../../evil.png": b"x"}, "absolute": {"/tmp/synthlib-evil.png": b"x"},
            "bomb": {"x/bomb.txt": bytes(100_000_000)}}.get(kind, {})  # fmt: skip
    data = tar_gz(files | more, members, tarfile.GNU_FORMAT)
    return data[: len(data) // 2] if kind == "half" else b"PK" + data if kind == "zip" else data


@pytest.mark.parametrize(
    "kind", ["link", "hard link", "device", "fifo", "huge", "above", "absolute", "bomb", "half", "zip"]
)
@pytest.mark.parametrize("md5", ["right", None])
def test_an_archive_that_is_hostile_is_refused_in_one_line_and_leaves_nothing(record_server, home, capsys, kind, md5):
    served = record_server.add(HOSTED[NAME].record, f"{NAME}.tar.gz", hostile(kind), md5=md5)
    assert cli.main(["download", NAME]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not [path for path in (home / NAME).rglob("*") if not path.name.startswith(".lock")]
    assert {path.name for path in home.parent.iterdir()} == {"data"}  # nothing beside
    assert not Path("/tmp/synthlib-evil.png").exists()
    served.data = tar_gz(authors_archive(NAME))  # mended by its makers
    assert len(read_shards(download(NAME)).labels) == 10 * PER_CLASS


def test_an_unknown_name_is_one_line_with_the_nearest(capsys):
    assert cli.main(["download", "cifar10_generated_merged"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'cifar10_generated_merged_32A'?" in said and len(said.splitlines()) == 1


def test_without_a_name_all_are_listed(capsys):
    assert cli.main(["download"]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert all("not known" in lines[name] for name in HOSTED)
    assert lines["eurosat"].endswith("mit") and "not stated" in lines["cifar10"] and "not stated" in lines["cifar100"]


# --- real sets --------------------------------------------------------------------------------------------------------


def pickled(value):
    return pickle.dumps(value, protocol=2)


def cifar_files(name, folder, labels):
    """The files of a tiny CIFAR: two train images and one test image of each class."""
    n = len(labels)
    key, names = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
    pixels = np.random.default_rng(0).integers(1, 255, (3 * n, 3072), np.uint8)
    halves = [{"data": pixels[i * n : (i + 1) * n], key: list(range(n))} for i in range(3)]
    if name == "cifar10":
        files = {
            "data_batch_1": halves[0],
            "data_batch_2": halves[1],
            "test_batch": halves[2],
            "batches.meta": {names: labels},
        }
    else:
        train = {"data": np.concatenate([halves[0]["data"], halves[1]["data"]]), key: 2 * list(range(n))}
        files = {"train": train, "test": halves[2], "meta": {names: labels}}
    return {f"{folder}/{file}": pickled(value) for file, value in files.items()}


def serve_cifar(server, monkeypatch, name):
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name.upper())
    files = cifar_files(name, kind.base_folder, list(read_spec(name).classes))
    md5 = {path.split("/")[1]: hashlib.md5(data).hexdigest() for path, data in files.items()}
    train = [f for f in md5 if f.startswith(("data_batch", "train"))]
    monkeypatch.setattr(kind, "train_list", [[f, md5[f]] for f in train])
    monkeypatch.setattr(kind, "test_list", [[f, md5[f]] for f in md5 if f.startswith("test")])
    meta = "batches.meta" if name == "cifar10" else "meta"
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5[meta]})
    file = server.add("1", kind.filename, tar_gz(files))
    monkeypatch.setattr(kind, "url", f"{server.address}/record/1/files/{kind.filename}")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(file.data).hexdigest())
    return kind, file


@pytest.mark.parametrize(("name", "n"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar_comes_as_torchvision_reads_it(record_server, home, monkeypatch, capsys, name, n):
    kind, file = serve_cifar(record_server, monkeypatch, name)
    file.drops = 1
    assert cli.main(["download", name]) == 0
    said = capsys.readouterr().out
    assert "licence not stated by its makers" in said and file.data and amount(len(file.data)) in said
    assert f"{name}, train: {2 * n} images of {n} classes, 2 each; 0 exact duplicates, 0 black images." in said
    assert f"{name}, test: {n} images of {n} classes, 1 each" in said
    assert len(kind(home / name)) == 2 * n and any(record_server.downloads())  # a Range: it was resumed
    record_server.asked.clear()
    download(name)
    assert record_server.asked == []


def test_a_wrong_cifar_is_refused_before_it_is_unpacked(record_server, home, monkeypatch, capsys):
    _, file = serve_cifar(record_server, monkeypatch, "cifar10")
    file.sent = file.data[:-20] + bytes(20)
    assert cli.main(["download", "cifar10"]) == 2
    said = capsys.readouterr().err
    assert "came damaged" in said and len(said.splitlines()) == 1
    assert not [path for path in (home / "cifar10").iterdir() if not path.name.startswith(".")]


def hub_names(name):
    """The class names of the hub's copies; CIFAR100's has a slip of the pen."""
    return [{"crab": "cra"}.get(word, word) for word in read_spec(name).classes]


def parquet(name, labels):
    """A file as the hub has it: image i has red 2 x label, green i."""
    columns = (
        {"label": hub_names(name)} if name == "cifar10" else {"fine_label": hub_names(name), "coarse_label": ["a", "b"]}
    )
    images = []
    for i, label in enumerate(labels):
        Image.new("RGB", (32, 32), (2 * label, i % 256, 7)).save(file := io.BytesIO(), "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"img": images} | {column: [k % len(of) for k in labels] for column, of in columns.items()})
    features = {"img": {"_type": "Image"}} | {c: {"names": of, "_type": "ClassLabel"} for c, of in columns.items()}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, sink := io.BytesIO())
    return sink.getvalue()


@pytest.fixture
def hub_cifar(home, hub_server, monkeypatch):  # noqa: F811
    """serve(name): a hub with two training images and a test image of each class, last class first."""

    def serve_hub(name):
        repository, commit, _ = downloads.HUB_CIFAR[name]
        monkeypatch.setitem(downloads.HUB_CIFAR, name, (repository, commit, {"train": 2, "test": 1}))
        labels = list(range(len(hub_names(name))))[::-1]
        hub_server.main, hub_server.card, hub_server.tags = commit, None, ["license:unknown"]
        hub_server.files = {"README.md": b"#", "data/train-00000-of-00001.parquet": parquet(name, 2 * labels),
                        "data/test-00000-of-00001.parquet": parquet(name, labels)}  # fmt: skip
        return hub_server

    return serve_hub


@pytest.mark.parametrize(("name", "n"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_comes_from_the_hub_at_its_commit_counted_and_with_our_classes(
    hub_cifar, record_server, home, capsys, name, n
):
    hub = hub_cifar(name)
    assert cli.main(["download", name]) == 0
    said, (repository, commit, _) = capsys.readouterr().out, downloads.HUB_CIFAR[name]
    assert f"Fetching datasets/{repository} at {commit[:7]}: 2 files" in said and "licence unknown" in said
    assert f"{name}, train: {2 * n} images of {n} classes, 2 each; 0 exact duplicates, 0 black images." in said
    assert f"{name}, test: {n} images of {n} classes, 1 each" in said and record_server.asked == []
    for given in ("", str(home / name), str(home / name / "hub")):
        test, pool = load_real(name, "test", given), load_real(name, "pool", given)
        assert test.classes == list(read_spec(name).classes) and test.in_file_order
        assert test.labels.tolist() == list(range(n))[::-1] and pool.labels.tolist() == 2 * list(range(n))[::-1]
        assert test.images[:, :, 5, 5].tolist() == [[2 * (n - 1 - i), i, 7] for i in range(n)]
        assert len({*test.ids, *pool.ids}) == 3 * n
    origin = read_json(home / name / "hub" / "origin.json")
    sums = {hashlib.sha256(data).hexdigest() for file, data in hub.files.items() if file.endswith("parquet")}
    assert origin["revision"] == commit and set(origin["sha256"].values()) == sums
    hub.asked.clear()
    assert cli.main(["download", name]) == 0 and hub.asked == record_server.asked == []


def test_a_damaged_file_of_the_hubs_cifar_is_named_and_brought_again(hub_cifar, home):
    hub_cifar("cifar10")
    download("cifar10")
    file = home / "cifar10" / "hub" / "test" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"{file.name} of cifar10 is damaged.*`synthlib download cifar10`"):
        load_real("cifar10", "test")
    download("cifar10")
    assert len(load_real("cifar10", "test").labels) == 10


def unlike(hub, how):
    if how == "refuses":
        hub.listing_answer = (403, "")
    elif how == "is busy":
        hub.file_answer = (429, "")
    elif how == "damaged":
        hub.sent_instead["data/test-00000-of-00001.parquet"] = b"page"
    elif how == "no Parquet":
        hub.files = {"README.md": b"#"}
    elif how == "paths that lead out":
        hub.files = {f"../../../../{file}": data for file, data in hub.files.items()}
    elif how == "other counts":
        hub.files["data/test-00000-of-00001.parquet"] = parquet("cifar10", [0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    elif how == "other classes":
        hub.files["data/train-00000-of-00001.parquet"] = parquet("cifar100", 2 * list(range(10)))


@pytest.mark.parametrize(
    "how", ["refuses", "is busy", "damaged", "no Parquet", "paths that lead out", "other counts", "other classes"]
)
def test_where_the_hubs_cifar_cannot_be_had_torchvisions_file_is_taken_and_that_is_said(
    hub_cifar, record_server, home, monkeypatch, capsys, how
):
    kind, _ = serve_cifar(record_server, monkeypatch, "cifar10")
    unlike(hub_cifar("cifar10"), how)
    assert cli.main(["download", "cifar10"]) == 0
    assert f"So torchvision's file is taken, from {record_server.address}" in capsys.readouterr().out
    assert len(kind(home / "cifar10")) == 20 and len(load_real("cifar10", "test").labels) == 10
    assert not (home / "cifar10" / "hub").exists() and {path.name for path in home.parent.iterdir()} <= {
        "data",
        "cache",
        "hub_cache",
    }


def test_any_mirror_of_torchvisions_cifar_can_be_named(hub_cifar, record_server, home, monkeypatch):
    kind, file = serve_cifar(record_server, monkeypatch, "cifar10")
    hub = hub_cifar("cifar10")
    monkeypatch.setattr(kind, "url", f"http://127.0.0.1:9/{kind.filename}")
    for wrong in ("ftp://mirror", "mirror.org"):
        monkeypatch.setenv("SYNTHLIB_CIFAR", wrong)
        with pytest.raises(InputError, match="SYNTHLIB_CIFAR"):
            download("cifar10")
    monkeypatch.setenv("SYNTHLIB_CIFAR", f"{record_server.address}/record/1/files/")
    file.sent = file.data[:-9] + bytes(9)
    with pytest.raises(InputError, match="came damaged"):
        download("cifar10")
    file.sent = None
    download("cifar10")
    assert hub.asked == [] and load_real("cifar10", "test").ids[0] == "cifar10-test-00000"


def test_torchvisions_files_that_are_not_whole_do_not_hide_the_hubs_copy(hub_cifar, record_server, home, monkeypatch):
    kind, _ = serve_cifar(record_server, monkeypatch, "cifar10")
    (home / "cifar10" / kind.base_folder).mkdir(parents=True)
    hub = hub_cifar("cifar10")
    download("cifar10")
    assert hub.asked and record_server.downloads() == [] and len(load_real("cifar10", "test").labels) == 10


def test_a_slow_cifar_names_the_other_address(hub_cifar, record_server, home, monkeypatch, capsys):
    kind, _ = serve_cifar(record_server, monkeypatch, "cifar10")
    monkeypatch.setattr(transfer, "SLOW_AFTER", 0)
    monkeypatch.setattr(transfer, "SLOW", 10**15)
    hub = hub_cifar("cifar10")
    download("cifar10")
    assert f"{hub.address} is slow" in (said := capsys.readouterr().out)
    assert f"SYNTHLIB_CIFAR={kind.url.rpartition('/')[0]} takes torchvision's" in said
    shutil.rmtree(home / "cifar10")
    hub.listing_answer = (503, "")
    download("cifar10")
    assert f"{record_server.address} is slow" in (said := capsys.readouterr().out) and "/uoft-cs/cifar10" in said


def eurosat_zip(server, monkeypatch, per_class=2):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for label, name in enumerate(read_spec("eurosat").classes):
            for i in range(per_class + (name == "Forest")):
                archive.writestr(f"2750/{name}/{name}_{i + 1}.jpg", png(64, label, i, "RGB"))
    file = server.add("1", "EuroSAT.zip", data.getvalue())
    monkeypatch.setattr(downloads, "EUROSAT_URL", f"{server.address}/record/1/files/EuroSAT.zip")
    monkeypatch.setattr(downloads, "EUROSAT_MD5", hashlib.md5(file.data).hexdigest())


def test_real_eurosat_comes_whole_or_not_at_all(record_server, home, monkeypatch, capsys):
    from torchvision.datasets import EuroSAT, utils

    eurosat_zip(record_server, monkeypatch)
    unpack = utils.extract_archive

    def cut_off(source, target):
        unpack(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "extract_archive", cut_off)
    assert cli.main(["download", "eurosat"]) == 130
    assert not (home / "eurosat" / "eurosat").exists()
    monkeypatch.setattr(utils, "extract_archive", unpack)
    capsys.readouterr()
    assert cli.main(["download", "eurosat"]) == 0
    said = capsys.readouterr().out
    assert "Fetching" not in said  # the archive was there
    assert "eurosat, all: 21 images of 10 classes, unequal: AnnualCrop 2, Forest 3" in said
    assert len(EuroSAT(home / "eurosat")) == 21


def test_what_torchvision_says_of_eurosat_is_what_we_fetch():
    import inspect

    from torchvision.datasets import EuroSAT

    source = inspect.getsource(EuroSAT.download)
    assert downloads.EUROSAT_URL in source and downloads.EUROSAT_MD5 in source
