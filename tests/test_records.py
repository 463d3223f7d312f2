"""A record's files are announced, resumed, verified and fetched once; hostile servers get one line. All on loopback."""

import email.utils
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from local_record import ENDLESS, tar_gz

from synthlib import transfer
from synthlib.data import records
from synthlib.inputs import InputError

NAME, RECORD, OLD = "set_32A.tar.gz", "7861015", "7816671"
DATA = tar_gz({"cat/1.png": os.urandom(200_000)})
OTHER = tar_gz({"cat/1.png": os.urandom(200_000)})
MD5, SHA256 = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archives"


def get(folder):
    return records.fetch(records.find_file(NAME, RECORD), folder)


def refused(call, *given):
    """What is said, in one line, by a call that is refused."""
    with pytest.raises(InputError) as caught:
        call(*given)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def visible(folder):
    return sorted(path.name for path in folder.glob("[!.]*"))


# --- what a record says -----------------------------------------------------------------------------------------------


def test_a_listing_gives_size_checksum_and_licence_and_the_authors_own_address(record_server):
    record_server.add(RECORD, NAME, DATA)
    url = f"{record_server.address}/record/{RECORD}/files/{NAME}?download=1"  # not where links.self leads
    file = records.find_file(NAME, RECORD)
    said = records.RecordFile(NAME, url, len(DATA), MD5, "cc-by-4.0", RECORD, "", file.elsewhere)
    assert file == said and url in file.elsewhere


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [({"license": "mit"}, "mit"), ({"rights": [{"id": "cc0-1.0"}]}, "cc0-1.0"), ({"license": {"id": "a\nb"}}, ""),
     ({"license": 3, "rights": "x"}, ""), ("none", "")],
)  # fmt: skip
def test_a_licence_is_read_from_old_and_new_listings_and_never_more_than_words(record_server, metadata, licence):
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD] = json.dumps(
        json.loads(record_server.listing(RECORD)) | {"metadata": metadata}
    ).encode()
    assert records.find_file(NAME, RECORD).licence == licence


def test_the_newer_form_of_a_listing_is_read(record_server):
    record_server.add(RECORD, NAME, DATA)
    files = json.loads(record_server.listing(RECORD))["files"]
    record_server.listings[RECORD] = json.dumps({"files": {"entries": {NAME: files[0]}}}).encode()
    assert records.find_file(NAME, RECORD).md5 == MD5


@pytest.mark.parametrize("gone", [404, 410, None])
def test_a_record_that_is_gone_or_lacks_the_file_gives_way_to_the_fallback(record_server, gone):
    record_server.add(OLD, NAME, DATA)
    record_server.add(RECORD, "other.tar.gz", OTHER)
    if gone:
        record_server.listings[RECORD] = gone
    file = records.find_file(NAME, RECORD, OLD)
    assert file.record == OLD and file.md5 == MD5 and f"/record/{OLD}/" in file.url
    assert RECORD in file.note and f"from record {OLD} instead" in file.note
    said = refused(records.find_file, NAME, RECORD)
    assert RECORD in said and record_server.address in said


def test_a_file_in_neither_record_is_one_line_with_both(record_server):
    said = refused(records.find_file, NAME, RECORD, OLD)
    assert RECORD in said and OLD in said


@pytest.mark.parametrize("files", [[{"filename": NAME, "size": 3}], ["junk"], [{"key": 3}, {"key": "other.tar.gz"}]])
def test_a_listing_whose_entries_have_no_key_is_none(record_server, files):
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD] = json.dumps({"files": files}).encode()
    file = records.find_file(NAME, RECORD, OLD)
    assert (file.size, file.md5, file.record, file.note) == (len(DATA), None, RECORD, "no checksum could be had")


@pytest.mark.parametrize(
    "listing", [500, 503, 403, b"<html>Sign in</html>", b"[]", b"{}", b'{"files": 3}', b"\xff\xfe", b"[" * 100_000]
)
def test_without_a_listing_the_file_itself_is_asked_and_there_is_no_checksum(record_server, listing):
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD] = listing
    file = records.find_file(NAME, RECORD, OLD)
    assert (file.size, file.md5, file.note, file.record) == (len(DATA), None, "no checksum could be had", RECORD)


@pytest.mark.parametrize("checksum", [None, 3, "md5:short", "sha1:" + "0" * 40, ["md5:" + "0" * 32]])
def test_a_listing_without_a_usable_checksum_gives_none(record_server, checksum):
    record_server.add(RECORD, NAME, DATA, md5=None)
    listing = json.loads(record_server.listing(RECORD))
    listing["files"] = ["junk", {"key": NAME, "size": "large", "checksum": checksum}]
    record_server.listings[RECORD] = json.dumps(listing).encode()
    file = records.find_file(NAME, RECORD)
    assert file.md5 is None and file.size == len(DATA) and file.note == "no checksum could be had"


def test_a_listing_without_end_is_not_taken_into_memory(record_server, monkeypatch):
    monkeypatch.setattr(records, "METADATA", 1000)
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD] = record_server.listing(RECORD) + b" " * 20_000
    assert records.find_file(NAME, RECORD).md5 is None


def test_a_server_that_knows_no_head_leaves_the_size_open(record_server):
    record_server.add(RECORD, NAME, DATA).head_status = 405
    record_server.listings[RECORD] = 500
    assert records.find_file(NAME, RECORD).size is None


def test_where_nothing_answers_it_is_one_line_that_names_the_host(record_server, monkeypatch):
    record_server.add(RECORD, NAME, DATA).status = 503
    record_server.listings[RECORD] = 503
    assert f"{record_server.address} answered 503 for {NAME}" in refused(records.find_file, NAME, RECORD)
    monkeypatch.setenv("SYNTHLIB_ZENODO", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in refused(records.find_file, NAME, RECORD, OLD)


@pytest.mark.parametrize("base", ["ftp://mirror", "mirror.org", "https://", "http://user:word@mirror", "http://a b"])
def test_a_mirror_that_is_no_address_is_one_line(monkeypatch, base):
    monkeypatch.setenv("SYNTHLIB_ZENODO", base)
    assert "SYNTHLIB_ZENODO" in refused(records.find_file, NAME, RECORD)


@pytest.mark.parametrize(
    ("name", "record"), [("../x.tar.gz", RECORD), ("a/b", RECORD), (".x", RECORD), ("", RECORD), (NAME, "1/2")]
)
def test_a_name_that_is_a_path_is_refused(record_server, name, record):
    assert "expected a plain file name and a number" in refused(records.find_file, name, record)
    assert record_server.asked == []


# --- what is fetched --------------------------------------------------------------------------------------------------


def test_one_line_says_what_comes_before_its_first_byte(record_server, folder, monkeypatch):
    record_server.add(RECORD, NAME, DATA)
    file, said = records.find_file(NAME, RECORD), []
    monkeypatch.setattr(
        records, "print", lambda line, **_: said.append((line, record_server.downloads())), raising=False
    )
    assert records.fetch(file, folder) == (folder / NAME, SHA256)
    line = f"Fetching {NAME}: 0.2 MB, licence cc-by-4.0, md5 {MD5}, from {file.url} to {folder}"
    assert said == [(line, [])] and (folder / NAME).read_bytes() == DATA and visible(folder) == [NAME]


def test_what_is_there_and_verified_is_not_fetched_again(record_server, folder, capsys, monkeypatch):
    record_server.add(RECORD, NAME, DATA)
    file = records.find_file(NAME, RECORD)
    found = records.fetch(file, folder)
    capsys.readouterr()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert records.fetch(file, folder) == found
    assert capsys.readouterr().out == "" and len(record_server.downloads()) == 1


def test_a_copy_that_was_changed_is_replaced_only_by_a_verified_one(record_server, folder, capsys):
    hosted = record_server.add(RECORD, NAME, DATA)
    get(folder)
    (folder / NAME).write_bytes(OTHER)
    hosted.sent = OTHER[:-1]
    refused(get, folder)
    assert (folder / NAME).read_bytes() == OTHER
    hosted.sent = None
    assert get(folder)[1] == SHA256 and "in place of a copy there" in capsys.readouterr().out


def test_no_token_is_ever_sent(record_server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD] = 500  # so that HEAD is sent as well
    get(folder)
    assert {method for method, *_ in record_server.asked} == {"GET", "HEAD"}
    assert {authorization for *_, authorization in record_server.asked} == {""}


@pytest.mark.parametrize("how", ["drops", "stalls"])
def test_a_connection_that_drops_or_hangs_is_resumed_in_the_same_call(record_server, folder, how):
    setattr(record_server.add(RECORD, NAME, DATA), how, 2)
    assert get(folder)[1] == SHA256
    first, second, third = record_server.downloads()
    assert first == "" and len(DATA) * 0.4 < int(second[6:-1]) < int(third[6:-1])


def test_a_later_call_goes_on_where_the_connection_was_lost(record_server, folder):
    hosted = record_server.add(RECORD, NAME, DATA)
    hosted.drops = 1000
    said = refused(get, folder)
    assert "cannot be reached" in said and f"what came is kept in {folder}" in said and "goes on from there" in said
    assert visible(folder) == [f"{NAME}.part"]
    hosted.drops = 0
    record_server.asked.clear()
    assert get(folder)[1] == SHA256 and visible(folder) == [NAME]
    (span,) = record_server.downloads()
    assert int(span[6:-1]) > len(DATA) * 0.8


def test_a_server_that_ignores_ranges_is_begun_anew(record_server, folder):
    hosted = record_server.add(RECORD, NAME, DATA)
    hosted.ranges, hosted.drops = False, 2
    assert get(folder)[1] == SHA256


def damage(hosted, how):
    if how == "other bytes":
        hosted.sent = OTHER
    elif how == "a page":
        hosted.sent = b"<!DOCTYPE html><html>Sign in</html>"
    elif how == "too short":
        hosted.sent = DATA[:-100]
    elif how == "too long":
        hosted.sent = DATA + bytes(100_000)
    elif how == "Content-Length too small":
        hosted.length = len(DATA) - 5000
    elif how == "checksum wrong":
        hosted.md5 = "wrong"
    elif how == "listed too small":
        hosted.size_listed = len(DATA) - 5000
    elif how == "listed too large":
        hosted.size_listed = len(DATA) + 5000
    elif how == "endless":
        hosted.endless = True


@pytest.mark.parametrize(
    "how",
    ["other bytes", "a page", "too short", "too long", "Content-Length too small", "checksum wrong", "listed too small",
     "listed too large", "endless"],
)  # fmt: skip
def test_what_comes_damaged_is_refused_and_removed(record_server, folder, how):
    damage(record_server.add(RECORD, NAME, DATA), how)
    said = refused(get, folder)
    assert f"{NAME} came damaged from {record_server.address}" in said and visible(folder) == []
    assert record_server.endless_sent < ENDLESS / 2


def test_a_content_length_that_is_never_reached_leaves_no_file(record_server, folder):
    record_server.add(RECORD, NAME, DATA).length = len(DATA) + 5000
    refused(get, folder)
    assert NAME not in visible(folder)


@pytest.mark.parametrize("left", [OTHER[:100_000], DATA + b"more", OTHER[: len(DATA)].ljust(len(DATA))])
def test_a_part_of_other_content_wedges_nobody(record_server, folder, left):
    record_server.add(RECORD, NAME, DATA)
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(left)
    assert get(folder)[1] == SHA256 and visible(folder) == [NAME]


def test_a_part_that_is_whole_is_no_error_of_range(record_server, folder):
    """With no size known the server is asked for what lies beyond its end, and says 416."""
    record_server.add(RECORD, NAME, DATA)
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(DATA)
    url = f"{record_server.address}/record/{RECORD}/files/{NAME}"
    assert records.fetch(records.RecordFile(NAME, url, None, MD5, "", "", "", ""), folder)[1] == SHA256


@pytest.mark.parametrize(("hops", "said"), [(1, None), (1000, "redirects")])
def test_a_redirect_is_followed_and_a_loop_is_not(record_server, folder, hops, said):
    record_server.add(RECORD, NAME, DATA).redirects = hops
    if said is None:
        assert get(folder)[1] == SHA256
    else:
        assert said in refused(get, folder) and NAME not in visible(folder)


ELSEWHERE = "SYNTHLIB_ZENODO"
REFUSED = {401: [ELSEWHERE], 403: [transfer.AGENT, ELSEWHERE], 404: [ELSEWHERE], 410: [ELSEWHERE], 418: [ELSEWHERE],
           429: ["the same command in an hour"],
           451: [transfer.AGENT], 500: ["try again later"], 503: ["try again later"]}  # fmt: skip


@pytest.mark.parametrize("status", REFUSED)
def test_a_status_is_one_line_that_says_what_to_do(record_server, folder, status):
    record_server.add(RECORD, NAME, DATA).status = status
    said = refused(get, folder)
    assert f"answered {status} for {NAME} of record {RECORD}" in said and NAME not in visible(folder)
    assert all(part in said for part in REFUSED[status]) and ("try again" in said) == (status >= 500), said


def test_every_request_names_this_client(record_server, folder):
    record_server.add(RECORD, NAME, DATA).redirects = 1
    record_server.listings[RECORD] = 500  # so that HEAD is sent as well
    get(folder)
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    version, address = pyproject["project"]["version"], pyproject["tool"]["synthlib"]["repository"]
    assert record_server.agents == {f"synthlib/{version} (+{address})"}


def test_a_server_that_refuses_this_client_as_well_names_it(record_server, folder, monkeypatch):
    monkeypatch.setattr(record_server, "refuses", ("synthlib",))
    record_server.add(RECORD, NAME, DATA)
    said = refused(get, folder)
    assert "answered 403" in said and transfer.AGENT in said and "with a browser" in said and "later" not in said


@pytest.mark.parametrize(("busy", "after"), [(1, "2"), (3, "0"), (2, transfer.LONGEST_WAIT)])
def test_a_server_that_asks_for_a_short_wait_gets_it_and_that_is_said(record_server, folder, capsys, busy, after):
    record_server.add(RECORD, NAME, DATA)
    record_server.busy, record_server.retry_after = busy, str(after)
    assert get(folder)[1] == SHA256 and record_server.slept == [int(after)] * busy
    waits = [line for line in capsys.readouterr().out.splitlines() if "waiting" in line]
    assert len(waits) == busy and all(f"answered 429 for record {RECORD}: waiting {after} s" in line for line in waits)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("after", "said"),
    [("600", "in 10 minutes, after "), ("36000", "in 10 hours, after "), ("later", ""), ("", ""), ("-5", ""),
     ("a date", "in 10 hours, after "),
     ("1", "")],
)  # fmt: skip
def test_a_server_that_asks_for_a_long_wait_or_for_ever_is_one_line_that_says_when(
    record_server, folder, status, after, said
):
    record_server.add(RECORD, NAME, DATA).status = status
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=9, minutes=59))
    record_server.retry_after = date if after == "a date" else after
    assert (said or {429: "in an hour", 503: "try again later"}[status]) in refused(get, folder)
    assert record_server.slept == ([1] * transfer.WAITS if after == "1" else [])


def test_a_record_that_answers_too_many_requests_is_not_taken_for_one_without_checksums(record_server, folder):
    record_server.add(RECORD, NAME, DATA)
    record_server.listings[RECORD], record_server.retry_after = 429, "600"
    assert "run the same command in 10 minutes" in refused(get, folder) and record_server.downloads() == []


def test_a_slow_transfer_says_so_once_and_where_else_the_file_is(record_server, folder, capsys, monkeypatch):
    clock = itertools.count(0, 10)  # seconds, from one piece of 4096 bytes to the next
    monkeypatch.setattr(transfer, "monotonic", lambda: next(clock))
    record_server.add(RECORD, NAME, DATA)
    assert get(folder)[1] == SHA256
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is slow" in line]
    assert f"{record_server.address} is slow: {NAME} at 0 kB/s, about 8 minutes more" in line and ELSEWHERE in line


def test_a_server_that_never_answers_is_one_line(record_server, folder):
    hosted = record_server.add(RECORD, NAME, DATA)
    hosted.stalls, hosted.sent = 1000, DATA[:10]
    assert "timed out" in refused(get, folder) and NAME not in visible(folder)


def test_offline_is_one_line_and_asks_nobody(record_server, folder, monkeypatch):
    record_server.add(RECORD, NAME, DATA)
    file = records.find_file(NAME, RECORD)
    record_server.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refused(records.find_file, NAME, RECORD)
    assert "HF_HUB_OFFLINE is set" in refused(records.fetch, file, folder)
    assert record_server.asked == []


def test_a_disk_that_is_too_small_is_one_line_before_anything_comes(record_server, folder, monkeypatch, capsys):
    record_server.add(RECORD, NAME, DATA)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000}))
    assert "needs 0.2 MB" in refused(get, folder)
    assert record_server.downloads() == [] and capsys.readouterr().out == ""


def test_what_never_ends_and_has_no_size_stops_before_the_disk_is_full(record_server, folder, monkeypatch):
    record_server.add(RECORD, NAME, DATA).endless = True
    record_server.listings[RECORD] = 500
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": transfer.SPARE + 1_000_000}))
    said = refused(get, folder)
    assert "more than the 1.0 MB" in said and visible(folder) == [] and record_server.endless_sent < ENDLESS / 2


def test_a_folder_that_cannot_be_written_is_one_line(record_server, folder):
    record_server.add(RECORD, NAME, DATA)
    folder.write_text("a file")
    assert "cannot write into" in refused(get, folder)


def test_two_at_once_fetch_once(record_server, folder):
    record_server.add(RECORD, NAME, DATA)
    file, found = records.find_file(NAME, RECORD), []
    both = [threading.Thread(target=lambda: found.append(records.fetch(file, folder))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found == [(folder / NAME, SHA256)] * 2 and len(record_server.downloads()) == 1


# --- without a checksum -----------------------------------------------------------------------------------------------


@pytest.fixture
def unlisted(record_server):
    """The file, of which no checksum can be had."""
    return record_server.add(RECORD, NAME, DATA, md5=None)


def test_without_a_checksum_the_first_copy_is_trusted_and_said_to_be(record_server, unlisted, folder, capsys):
    assert get(folder) == (folder / NAME, SHA256)
    notice, trusted = capsys.readouterr().out.splitlines()
    assert "no checksum could be had" in notice
    assert trusted == f"no checksum could be had for {NAME}: this first copy is trusted, sha256 {SHA256}"
    assert json.loads((folder / "first_use.json").read_text()) == {NAME: SHA256}
    assert get(folder)[1] == SHA256 and len(record_server.downloads()) == 1 and capsys.readouterr().out == ""


def test_a_later_copy_that_differs_from_the_first_is_refused(unlisted, folder):
    get(folder)
    (folder / NAME).unlink()
    unlisted.data = OTHER
    said = refused(get, folder)
    assert SHA256 in said and "first_use.json" in said and visible(folder) == ["first_use.json"]
    unlisted.data = DATA
    assert get(folder)[1] == SHA256


def test_a_part_is_not_gone_on_with_where_nothing_could_tell_that_it_is_wrong(record_server, unlisted, folder):
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(OTHER[:100_000])
    assert get(folder)[1] == SHA256 and record_server.downloads() == [""]


def test_the_size_that_is_listed_counts_even_without_a_checksum(unlisted, folder):
    unlisted.sent = DATA[:-100]
    assert f"{len(DATA) - 100} bytes, not the {len(DATA)} promised" in refused(get, folder) and visible(folder) == []


@pytest.mark.parametrize("sent", [b"<!DOCTYPE html><html>Sign in</html>", b""])
def test_a_page_is_never_trusted(unlisted, record_server, folder, sent):
    unlisted.sent = sent
    record_server.listings[RECORD] = 500
    assert "is no gzip file" in refused(get, folder) and visible(folder) == []


def test_what_was_forgotten_can_be_trusted_anew(unlisted, folder):
    get(folder)
    unlisted.data = OTHER
    records.forget(records.find_file(NAME, RECORD), folder)
    assert get(folder)[1] == hashlib.sha256(OTHER).hexdigest()


def test_a_damaged_memory_of_first_copies_is_not_believed(unlisted, folder):
    folder.mkdir()
    (folder / "first_use.json").write_text(json.dumps({NAME: "../evil", "other.tar.gz": SHA256}))
    get(folder)
    assert json.loads((folder / "first_use.json").read_text()) == {NAME: SHA256, "other.tar.gz": SHA256}


def test_the_import_is_light():
    said = "import sys, synthlib.data.records; print({'torch', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout.strip() == "set()"
