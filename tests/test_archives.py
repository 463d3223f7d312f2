"""Archives of strangers give their images and nothing else: no path, link, bomb or damage gets beyond one line."""

import gzip
import os
import subprocess
import sys
import tarfile
import tracemalloc

import pytest
from local_record import member, tar, tar_gz

from synthlib.data import archives
from synthlib.data.archives import is_image, read_archive
from synthlib.inputs import InputError

GOOD = {"set/cat/1.png": b"one" * 500, "set/dog/2.JPG": b"two"}


@pytest.fixture
def stored(tmp_path):
    """stored(bytes): the path of an archive that holds them."""

    def store(data):
        (path := tmp_path / "set.tar.gz").write_bytes(data)
        return path

    return store


def images(path):
    """[(name, bytes)] of an archive."""
    return [(name, read()) for name, read in read_archive(path)]


def refused(path, **more):
    """What is said, in one line, of an archive that is refused; nothing is written beside it."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        read_archive(path, **more)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_images_come_with_their_names_and_bytes_in_order(stored, form):
    long = {f"set/{'d' * 80}/{'n' * 90}.webp": b"long"}
    files = {"set/empty.png": b"", **GOOD, **long, "./set/b.TIFF": b"b" * 1024}
    found = images(stored(tar_gz(files, [member("set/cat", tarfile.DIRTYPE)], form)))
    assert found == [(name.removeprefix("./"), data) for name, data in files.items()]


def test_names_that_need_an_extended_header_are_read(stored):
    names = [f"{'é' * 40}/{'x' * n}.png" for n in (1, 100, 300)]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert [name for name, _ in read_archive(stored(tar_gz(dict.fromkeys(names, b"x"), form=form)))] == names


def test_what_tar_itself_writes_is_read(tmp_path):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "cat" / "1.png").write_bytes(b"x" * 3000)
    subprocess.run(["tar", "czf", tmp_path / "own.tar.gz", "-C", tmp_path, "in"], check=True)
    with tarfile.open(tmp_path / "py.tgz", "w:gz") as archive:
        archive.add(tmp_path / "in", "in")
    for name in ("own.tar.gz", "py.tgz"):
        assert images(tmp_path / name) == [("in/cat/1.png", b"x" * 3000)]


def test_hidden_files_those_of_macos_and_other_kinds_are_skipped(stored):
    others = [
        "a/._1.png",
        ".git/2.png",
        "__MACOSX/a/3.png",
        "a/.hidden.png",
        "read.me",
        "a/png",
        "a/4.png.txt",
        "a/5.npy",
    ]
    assert images(stored(tar_gz(dict.fromkeys(others, b"x" * 700) | GOOD))) == list(GOOD.items())
    assert not any(is_image(name) for name in others) and all(is_image(name) for name in GOOD)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:\\x.png", "c:x.png", "a\\x.png", "a/x\n.png", "//x/y.png", "..",
             "../notes.txt", "/etc/._x.png"]
)  # fmt: skip
def test_a_name_that_leads_out_is_refused_even_of_what_is_skipped(stored, name):
    said = refused(stored(tar_gz(GOOD | {name: b"x"})))
    assert repr(name) in said and "a name that leads out of it" in said


@pytest.mark.parametrize(
    ("kind", "said"),
    [(tarfile.SYMTYPE, "symbolic link"), (tarfile.LNKTYPE, "hard link"), (tarfile.CHRTYPE, "device"),
     (tarfile.BLKTYPE, "device"), (tarfile.FIFOTYPE, "fifo"), (tarfile.GNUTYPE_SPARSE, "sparse"), (b"V", "unknown kind")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["set/cat/3.png", "set/notes", ".hidden"])
def test_what_is_neither_file_nor_folder_is_refused(stored, kind, said, name):
    words = refused(stored(tar_gz(GOOD, [member(name, kind, "set/cat/1.png")])))
    assert repr(name) in words and said in words


def test_every_member_passes_pythons_own_filter(stored, monkeypatch):
    def refuse(info, folder):
        raise tarfile.OutsideDestinationError(info, folder)

    monkeypatch.setattr(tarfile, "data_filter", refuse)
    assert "OutsideDestinationError" in refused(stored(tar_gz({"notes.txt": b""})))


def test_a_name_that_comes_twice_is_refused(stored):
    twice = tar(GOOD)[:-1024] + tar({"./set/cat/1.png": b"other"})
    assert "is in it twice" in refused(stored(gzip.compress(twice)))


@pytest.mark.parametrize("place", ["a.png", "a.bin"])
def test_a_bomb_of_zeros_is_refused_before_it_is_read(stored, place):
    path = stored(tar_gz({place: bytes(100_000_000)}))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    said = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bytes when decompressed" in said and peak < 5_000_000


def test_a_bomb_behind_the_end_of_the_tar_is_refused(stored):
    assert "more than 1000000 bytes" in refused(stored(gzip.compress(tar(GOOD) + bytes(5_000_000))), bound=1_000_000)


def test_many_small_members_count_together(stored):
    files = {f"{i}.png": b"x" for i in range(50)}
    path = stored(tar_gz(files))
    assert "more than 20000 bytes" in refused(path, bound=20_000)
    assert len(images(path)) == 50  # by default what hardly compresses has room enough


def test_more_members_than_a_data_set_has_are_refused(stored, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 10)
    path = stored(tar_gz({f"{i}.png": b"" for i in range(10)}))
    assert len(images(path)) == 10
    assert "comes after 10 others" in refused(stored(tar_gz({f"{i}.png": b"" for i in range(11)})))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_extended_header_cannot_be_larger_than_the_bound(stored, kind):
    path = stored(gzip.compress(member("x", kind, size=2**40).tobuf(tarfile.GNU_FORMAT) + bytes(5_000_000)))
    assert "more than 1000000 bytes" in refused(path, bound=1_000_000)
    assert "damaged, or no .tar.gz" in refused(path)


def record(keyword, value):
    """One record of a PAX header, of its true length."""
    rest = f" {keyword}={value}\n"
    return f"{len(rest) + 2}{rest}".encode()  # all of ours have two digits


def pax(kind, *records):
    """An archive of a PAX header of these records and a member."""
    data = b"".join(records)
    header = member("pax", kind, size=len(data)).tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    return gzip.compress(header + tar({"a.png": b"a"}))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record("GNU.sparse.major", 1), record("GNU.sparse.minor", 0)], "damaged, or no .tar.gz"),
        ([record("GNU.sparse.map", "0,9")], "a sparse file"),
        ([record("size", 10**17)], "claims 100000000000000000 bytes"),
        ([record("path", "a.bin"), record("size", 10**17)], "claims 100000000000000000 bytes"),
        ([record("size", -5)], "claims -5 bytes"),
        ([record("size", "1e9")], "damaged, or no .tar.gz"),
        ([record("path", "../x.png")], "'../x.png' has a name that leads out"),
        ([record("path", "/etc/x.png")], "'/etc/x.png' has a name that leads out"),
        ([record("path", "x\0yy.png")], "leads out"),
        ([b"0 path=x\n"], "damaged, or no .tar.gz"),
        ([b"99 path=x\n"], "leads out | damaged"),  # a newer Python refuses it itself
    ],
)
def test_a_pax_header_that_lies_is_refused(stored, records, said):
    line = refused(stored(pax(tarfile.XHDTYPE, *records)))
    assert any(words in line for words in said.split(" | "))


def test_a_sparse_file_that_claims_a_terabyte_is_refused_at_once(stored):
    assert "a sparse file" in refused(
        stored(tar_gz({}, [member("a.png", tarfile.GNUTYPE_SPARSE, size=2**40)], tarfile.GNU_FORMAT))
    )
    assert "claims 1099511627776 bytes" in refused(
        stored(tar_gz({}, [member("a.bin", size=2**40)], tarfile.GNU_FORMAT))
    )


def test_a_truncated_archive_is_refused_wherever_it_was_cut(stored):
    whole = tar_gz({"a.png": os.urandom(3000), "b.png": os.urandom(3000)})
    for end in range(0, len(whole), 97):
        assert "damaged, or no .tar.gz" in refused(stored(whole[:end]))
    inner = tar(GOOD)
    for end in range(0, len(inner) - 1024, 512):  # cut before it was compressed, at whole blocks
        assert "damaged, or no .tar.gz" in refused(stored(gzip.compress(inner[:end])))


def test_a_header_that_was_changed_is_damage_and_not_the_end(stored):
    data = bytearray(tar({"a.png": b"a", "b.png": b"b"}))
    data[1024 + 3] ^= 1  # in the second member's name
    assert "it has no end" in refused(stored(gzip.compress(bytes(data))))


def test_wrong_bytes_are_found_by_gzips_own_checksum(stored):
    data = bytearray(gzip.compress(tar({"a.png": os.urandom(5000)}), compresslevel=0))
    data[2000] ^= 1
    assert "CRC check failed" in refused(stored(bytes(data)))


@pytest.mark.parametrize(
    "data",
    [b"", b"<!DOCTYPE html><html>Sign in</html>", b"\x1f\x8b", gzip.compress(b"hello" * 200, mtime=0), b"PK\3\4"],
)
def test_what_is_no_archive_is_refused(stored, data):
    assert "damaged, or no .tar.gz" in refused(stored(data))


def test_an_archive_that_cannot_be_opened_is_one_line(tmp_path):
    assert "cannot unpack" in refused(tmp_path / "missing.tar.gz")


def test_the_import_is_light():
    said = "import sys, synthlib.data.archives; print({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout.strip() == "set()"
