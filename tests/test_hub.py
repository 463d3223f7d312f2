"""A hub's files are announced, verified, resumed and fetched once. The hub here is a small one on loopback."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest

from synthlib import hub, paths, transfer
from synthlib.inputs import InputError

MODEL, COMMIT, NEXT = "maker/tiny-sd", "1" * 40, "2" * 40
KINDS = {"scheduler": "DDIMScheduler", "tokenizer": "CLIPTokenizer", "text_encoder": "CLIPTextModel",
         "unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "safety_checker": "SafetyChecker",
         "feature_extractor": "CLIPImageProcessor"}  # fmt: skip
SHARDS = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
VAE = "vae/diffusion_pytorch_model.safetensors"
WANTED = {
    "model_index.json": json.dumps({name: ["diffusers", kind] for name, kind in KINDS.items()} | {
        "_class_name": "StableDiffusionPipeline", "image_encoder": [None, None], "requires_safety_checker": True}),
    "scheduler/scheduler_config.json": '{"of": "scheduler"}', "tokenizer/tokenizer_config.json": '{"of": "tokenizer"}',
    "tokenizer/vocab.json": '{"a": 0}', "tokenizer/merges.txt": "#version: 0.2\n",
    "text_encoder/config.json": '{"of": "text_encoder"}', "text_encoder/model.safetensors": "t" * 200_000,
    "unet/config.json": '{"of": "unet"}', f"unet/{SHARDS[0]}": "u" * 300_000, f"unet/{SHARDS[1]}": "n" * 300_000,
    "unet/diffusion_pytorch_model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}),
    "vae/config.json": '{"of": "vae"}', VAE: "v" * 400_000,
}  # fmt: skip
SAFETY = {"safety_checker/config.json": '{"of": "safety_checker"}', "safety_checker/model.safetensors": "s" * 100_000,
          "feature_extractor/preprocessor_config.json": '{"of": "feature_extractor"}'}  # fmt: skip
OTHERS = {name: "x" * 50_000 for name in (
    "README.md", "v1-4.ckpt", "v1-4.safetensors", "unet/diffusion_pytorch_model.bin", "unet/model.py",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json", "unet/diffusion_pytorch_model.bin.index.json",
    "unet/openvino_model.xml", "unet/openvino_config.json", "text_encoder/flax_model.msgpack", "vae/model.onnx",
    "vae_decoder/config.json", "vae_decoder/model.safetensors")}  # fmt: skip


class Hub(http.server.ThreadingHTTPServer):
    """The endpoints of a hub that a fetch asks: a model's listing, and its files; large ones by way of a redirect."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files = {name: text.encode() for name, text in (WANTED | SAFETY | OTHERS).items()}
        self.card, self.tags = {"license": "creativeml-openrail-m"}, ["license:mit"]
        self.main, self.asked, self.ranges = COMMIT, [], []
        self.drops = {}  # file -> how many answers break off halfway
        self.sent_instead = {}  # file -> other bytes than the listed ones
        self.agents = set()
        self.listing_answer = self.file_answer = None  # (status, X-Error-Code) in place of an answer

    def listing(self, sha):
        siblings = []
        for name, data in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            siblings.append({"rfilename": name, "size": len(data), "blobId": git})
            if len(data) > 1000:  # in LFS blobId is the digest of a pointer file
                lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
                siblings[-1] |= {"lfs": lfs, "blobId": "0" * 40}
        return {"id": MODEL, "sha": sha, "siblings": siblings, "cardData": self.card, "tags": self.tags}

    def files_asked(self):
        return [path for path in self.asked if not path.startswith("api/")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # no 40 ms wait between headers and body

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        return self.wfile.write(body)

    def do_GET(self):
        hub, (path, _, query) = self.server, self.path[1:].partition("?")
        hub.agents.add(self.headers["User-Agent"])
        if path.startswith(("api/models/", "api/datasets/")):
            hub.asked.append(path)
            if hub.listing_answer:
                return self.answer(hub.listing_answer[0], X_Error_Code=hub.listing_answer[1])
            revision = path.rpartition("/revision/")[2]
            if revision not in ("main", hub.main, COMMIT):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            assert query == "blobs=true"
            return self.answer(200, json.dumps(hub.listing(hub.main if revision == "main" else revision)).encode())
        at, _, name = path.rpartition("/resolve/")[2].removeprefix("cdn/").partition("/")
        if not path.startswith("cdn/"):
            hub.asked.append(name)
            if hub.file_answer:
                return self.answer(hub.file_answer[0], X_Error_Code=hub.file_answer[1])
            if len(hub.files[name]) > 1000:
                return self.answer(302, Location=f"/cdn/{at}/{name}")
        data, start = hub.sent_instead.get(name, hub.files[name]), 0
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            hub.ranges.append((name, start))
        rest = data[start:]
        more = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if hub.drops.get(name):
            hub.drops[name] -= 1
            self.answer(206 if start else 200, rest[: len(rest) // 2], Content_Length=len(rest), **more)
            self.close_connection = True
            return None
        return self.answer(206 if start else 200, rest, **more)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub, and an empty cache; in this process, as synthlib.hub reads the environment at each call."""
    from huggingface_hub import constants

    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transfer, "CHUNK", 4096)  # bytes that are kept when a connection breaks
    monkeypatch.setattr(transfer, "sleep", lambda seconds: None)  # before it tries again
    yield server
    server.shutdown()
    server.server_close()


def blobs():
    return list(hub._store(MODEL).joinpath("blobs").glob("*"))


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(*given, **more):
    """What fetch says, in one line, when it refuses."""
    with pytest.raises(InputError) as caught:
        hub.fetch(*given, **more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_only_what_we_load_is_fetched_and_every_byte_is_the_hubs(server):
    folder = hub.fetch(MODEL)
    assert files_in(folder) == set(WANTED) and folder.name == COMMIT
    assert sorted(server.files_asked()) == sorted(WANTED)
    assert all((folder / name).read_text() == text for name, text in WANTED.items())


def test_the_notice_comes_before_the_first_file(server, monkeypatch):
    monkeypatch.setattr(hub, "print", lambda line, **_: server.asked.append(f"NOTICE {line}"), raising=False)
    hub.fetch(MODEL)
    listing, index, notice, *files = server.asked
    assert listing == f"api/models/{MODEL}/revision/main" and index == "model_index.json"  # what there is to fetch
    assert notice == (
        f"NOTICE Fetching {MODEL} at 1111111: 12 files, 1.2 MB, licence creativeml-openrail-m, from {server.address} "
        f"to {hub._store(MODEL)}"
    )
    assert len(files) == 12 and "\n" not in notice


@pytest.mark.parametrize(
    ("card", "tags", "said"),
    [
        (None, ["license:mit"], "licence mit,"),
        ({"license": "other", "license_name": "own-terms"}, [], "licence own-terms,"),
        (None, ["text-to-image"], "licence not stated,"),
    ],
)
def test_the_licence_is_the_cards_or_the_tags_or_said_to_be_missing(server, capsys, card, tags, said):
    server.card, server.tags = card, tags
    hub.fetch(MODEL)
    assert said in capsys.readouterr().out


def test_a_second_call_asks_nobody(server, capsys):
    first = hub.fetch(MODEL)
    server.asked.clear()
    capsys.readouterr()
    assert hub.fetch(MODEL) == first == hub.find(MODEL) == hub.find(MODEL, COMMIT)
    assert server.asked == [] and capsys.readouterr().out == ""


def test_huggingface_hub_finds_what_was_fetched(server):
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    folder = hub.fetch(MODEL)
    cache = hub._store(MODEL).parent
    assert try_to_load_from_cache(MODEL, VAE, cache_dir=cache, revision="main") == str(folder / VAE)
    scanned = scan_cache_dir(cache)
    assert not scanned.warnings and {repo.repo_id for repo in scanned.repos} == {MODEL}


def test_the_safety_checker_comes_only_if_asked_for(server):
    folder = hub.fetch(MODEL)
    assert hub.find(MODEL, safety=True) is None
    server.asked.clear()
    assert hub.fetch(MODEL, safety=True) == folder and files_in(folder) == set(WANTED | SAFETY)
    assert sorted(server.files_asked()) == sorted(SAFETY)


def test_a_connection_that_drops_is_resumed_in_the_same_call(server):
    server.drops[VAE] = 2
    assert (hub.fetch(MODEL) / VAE).read_text() == WANTED[VAE]
    starts = [start for name, start in server.ranges if name == VAE]
    assert len(starts) == 2 and 190_000 < starts[0] <= 200_000 < starts[1] <= 300_000


def test_a_later_call_goes_on_where_the_connection_was_lost(server):
    server.drops[VAE] = 1000  # each answer halves what is missing, until several in a row bring no chunk
    said = refused(MODEL)
    assert "cannot be reached" in said and "what came is kept" in said
    assert hub.find(MODEL) is None and hub.commit_of(MODEL) is None
    assert [path.suffix for path in blobs()].count(".part") == 1
    server.drops.clear()
    server.asked.clear()
    server.ranges.clear()
    assert (hub.fetch(MODEL) / VAE).read_text() == WANTED[VAE]
    assert server.files_asked() == [VAE]  # the files that were whole stay
    assert [start > 380_000 for name, start in server.ranges] == [True]
    assert {path.suffix for path in blobs()} == {""}


@pytest.mark.parametrize("name", [VAE, "tokenizer/vocab.json"])
def test_a_file_that_was_damaged_in_the_cache_is_not_read(server, name):
    folder = hub.fetch(MODEL)
    blob = (folder / name).resolve()
    blob.write_bytes(bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:])
    assert f"{(folder / name).name} of {MODEL} was damaged in the cache" in refused(MODEL)
    with pytest.raises(InputError, match="was damaged in the cache"):
        hub.fetch_one(MODEL, name)
    blob.unlink()  # as the line says
    assert (hub.fetch(MODEL) / name).read_bytes() == server.files[name]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (VAE, lambda data: b"w" + data[1:]),
        (VAE, lambda data: data[:-10]),
        (VAE, lambda data: data + b"more"),
        ("tokenizer/vocab.json", lambda data: data.upper()),
        ("model_index.json", lambda data: data.upper()),
    ],
)
def test_wrong_bytes_are_refused_and_removed(server, name, change):
    server.sent_instead[name] = change(server.files[name])
    assert f"{name} of {MODEL} came damaged" in refused(MODEL)
    assert hub.find(MODEL) is None and not (hub._store(MODEL) / "snapshots" / COMMIT / name).exists()
    assert all(path.suffix == "" and path.read_bytes() in server.files.values() for path in blobs())
    server.sent_instead.clear()
    assert (hub.fetch(MODEL) / name).read_bytes() == server.files[name]


def test_a_fetch_that_ends_before_its_last_file_is_not_taken_for_whole(server):
    server.files["vae/words.json"] = b'{"a": 0}\n'  # comes last, and no component would be missed for want of it
    server.sent_instead["vae/words.json"] = b'{"b": 0}\n'
    refused(MODEL)
    assert hub.find(MODEL, COMMIT) is None


@pytest.mark.parametrize(
    ("listing", "file", "said"),
    [
        (None, (401, "GatedRepo"), "is gated; accept its licence on http"),
        (None, (403, "GatedRepo"), "set HF_TOKEN"),
        ((404, "RepoNotFound"), None, "no such model at"),
        ((401, "RepoNotFound"), None, "set HF_TOKEN if private"),
        ((401, ""), None, "check HF_TOKEN"),
        ((404, "RevisionNotFound"), None, "has no revision 'main'"),
        ((503, ""), None, "answered 503 for maker/tiny-sd at main; a fault over there: try again later"),
        ((403, ""), None, transfer.AGENT),
        ((429, ""), None, "run the same command in an hour"),
        (None, (404, ""), "it does not have that"),
        (None, (500, ""), "answered 500"),
        ((200, ""), None, "does not answer as a Hugging Face hub"),  # the page of a hotel's network
    ],
)
def test_a_hub_that_refuses_is_one_line(server, capsys, listing, file, said):
    server.listing_answer, server.file_answer = listing, file
    assert said in refused(MODEL)
    assert capsys.readouterr().out == "" and hub.find(MODEL) is None


def test_every_request_names_this_client_and_another_commit_than_the_one_asked_for_is_refused(server, monkeypatch):
    hub.fetch(MODEL)
    assert server.agents == {transfer.AGENT}
    listing, server.main = server.listing, NEXT
    monkeypatch.setattr(server, "listing", lambda sha: listing(COMMIT))
    assert "does not answer as a Hugging Face hub does" in refused(MODEL, NEXT)


def test_an_unknown_revision_is_one_line(server):
    assert "has no revision 'nowhere'" in refused(MODEL, "nowhere")


def test_offline_says_what_is_missing_and_how_to_bring_it(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused(MODEL, "v2")
    assert "HF_HUB_OFFLINE is set" in said and f"hf download {MODEL} --revision v2 --local-dir" in said
    assert server.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = hub.fetch(MODEL)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.fetch(MODEL) == folder


def test_no_connection_is_one_line(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in refused(MODEL)


def test_a_branch_is_resolved_once_and_then_by_the_cache(server):
    folder = hub.fetch(MODEL)
    server.main = NEXT
    server.asked.clear()
    assert hub.fetch(MODEL, "main") == folder and server.asked == []
    assert hub.commit_of(MODEL) == COMMIT and hub.label(MODEL) == (MODEL, COMMIT)
    newer = hub.fetch(MODEL, NEXT)  # asked for by name; its files are the same, so that none is fetched
    assert newer.name == NEXT and server.files_asked() == [] and hub.find(MODEL) == folder


@pytest.mark.parametrize(
    "lost",
    ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json", "vae/config.json", VAE,
     f"unet/{SHARDS[1]}", "unet/diffusion_pytorch_model.safetensors.index.json"],
)  # fmt: skip
def test_an_incomplete_cache_is_not_found_and_completed(server, lost):
    folder = hub.fetch(MODEL)
    (folder / lost).resolve().unlink()
    assert hub.find(MODEL) is None and hub.find(MODEL, COMMIT) is None
    assert hub.fetch(MODEL) == folder and files_in(folder) == set(WANTED)


def test_a_cache_with_other_weights_only_is_not_enough(server):
    folder = hub.fetch(MODEL)
    (folder / VAE).rename(folder / "vae/diffusion_pytorch_model.fp16.safetensors")
    assert hub.find(MODEL) is None


def test_a_model_without_safetensors_is_refused_before_anything_large(server):
    server.files["vae/diffusion_pytorch_model.bin"] = server.files.pop(VAE)
    assert "no safetensors weights in vae/" in refused(MODEL)
    assert server.files_asked() == ["model_index.json"]


def test_a_repository_of_another_kind_is_refused(server):
    del server.files["model_index.json"]
    assert "no model_index.json" in refused(MODEL) and server.files_asked() == []


def test_a_name_that_leads_out_of_the_cache_is_not_followed(server, tmp_path):
    index = json.loads(WANTED["model_index.json"]) | {"../../../../out": ["diffusers", "DDIMScheduler"]}
    server.files["model_index.json"] = json.dumps(index).encode()
    server.files["../../../../out/config.json"] = b"{}"
    assert files_in(hub.fetch(MODEL)) == set(WANTED) and not list(tmp_path.rglob("out"))


def test_a_disk_that_is_too_small_is_one_line(server, monkeypatch, capsys):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    assert "needs 1.2 MB" in refused(MODEL) and capsys.readouterr().out == ""


def test_a_cache_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert "cannot write into" in refused(MODEL)


def test_two_at_once_fetch_once(server):
    found = []
    both = [threading.Thread(target=lambda: found.append(hub.fetch(MODEL))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(found) == 2 and found[0] == found[1] and sorted(server.files_asked()) == sorted(WANTED)


@pytest.mark.parametrize("model", ["nowhere", "a/b/c", "models/missing.safetensors", "/no/such/folder", "a/../b"])
def test_neither_a_path_nor_a_hub_id_is_one_line(server, model):
    assert not hub.is_hub_id(model) and hub.find(model) is None
    said = refused(model)
    assert "diffusers folder" in said and "CompVis/stable-diffusion-v1-4" in said and server.asked == []


def test_what_is_local_is_found_and_its_label_holds_no_path(tmp_path):
    (tmp_path / "models" / "own.ckpt").mkdir(parents=True)
    file = tmp_path / "sd.safetensors"
    file.touch()
    assert hub.find("") == hub.fetch("") == paths.embedded_model() and hub.label("") == ("synthlib/pocket", "")
    assert hub.find(str(file)) == file and hub.label(str(file)) == ("sd.safetensors", "")
    assert hub.label(f"{tmp_path}/models/", "main") == ("models", "") and hub.commit_of(str(file)) is None


def test_a_folder_comes_before_a_hub_id_of_the_same_name(own_root):
    assert hub.is_hub_id("maker/model") and not hub.is_hub_id("maker/model.ckpt")
    (own_root / "maker" / "model").mkdir(parents=True)
    assert not hub.is_hub_id("maker/model") and hub.find("maker/model") == own_root / "maker" / "model"


def test_a_commit_needs_no_cache_and_an_unknown_branch_has_none(server):
    assert hub.commit_of(MODEL, NEXT) == NEXT and hub.commit_of(MODEL, "v2") is None
    assert hub.find(MODEL, NEXT) is None and server.asked == []


def test_the_import_is_light():
    said = "import sys, synthlib.hub; print({'torch', 'huggingface_hub', 'diffusers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout.strip() == "set()"
