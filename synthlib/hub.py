"""Hub: where a text-to-image model's files are: the embedded one, a local folder or file, or a hub id with a revision.

What a hub sends is announced before it comes, resumed where it was cut off, verified, and never executed. HF_ENDPOINT,
HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE count as they are at the call; huggingface_hub reads them once, at its import.
"""

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from synthlib import digests, paths, transfer
from synthlib.inputs import InputError, parameter

INDEX = "model_index.json"
HUB_ID = re.compile(r"(?!.*(?:--|\.\.))(?!.{97})\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
MIRROR = "HF_ENDPOINT names a mirror"
PARQUET = re.compile(r"(\w[\w.-]*/)*\w[\w.-]*\.parquet", re.ASCII)  # a path that leads nowhere else
COMMIT = re.compile(r"[0-9a-f]{40}")
# One file, or shards and their index; variants such as model.fp16.safetensors do not match.
WEIGHTS = re.compile(r"(diffusion_pytorch_)?model((-\d+-of-\d+)?\.safetensors|\.safetensors\.index\.json)")
WHOLE_WEIGHTS = [f"{kind}model.safetensors{end}" for kind in ("", "diffusion_pytorch_") for end in ("", ".index.json")]
WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "processor")


def is_hub_id(model: str) -> bool:
    """Whether `model` looks like "owner/name" and is neither a path that exists nor the name of a single file."""
    file = model.endswith((".safetensors", ".ckpt", ".git"))
    return bool(HUB_ID.fullmatch(model)) and not file and not paths.resolve(model).exists()


def find(model: str, revision: str = "", safety: bool = False) -> Path | None:
    """The folder or file of a model that is on this machine and whole, else None; "" is the embedded one. No network."""
    local = paths.resolve(model) if model else paths.embedded_model()
    if local.exists():
        return local
    commit = commit_of(model, revision)
    snapshot = _store(model) / "snapshots" / commit if commit else None
    return snapshot if snapshot and _whole(snapshot, safety) else None


def commit_of(model: str, revision: str = "") -> str | None:
    """The commit (40 hexadecimal digits) that a hub id's revision means in the cache; "" is main. None if unknown."""
    if not is_hub_id(model):
        return None
    if COMMIT.fullmatch(revision):
        return revision
    ref = _store(model) / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else None


def label(model: str, revision: str = "") -> tuple[str, str]:
    """What image rows say of a model, (name, revision), without any path: a hub id has its commit, what is local ""."""
    if not model:
        return "synthlib/pocket", ""
    if is_hub_id(model):
        return model, commit_of(model, revision) or revision
    return os.path.basename(os.path.normpath(paths.resolve(model))), ""


def fetch(model: str, revision: str = "", safety: bool = False) -> Path:
    """`find`, else download what we load, after one line that says what, how big, under which licence, from where.

    Raises InputError for what is no model, cannot be reached, is gated, damaged, without safetensors, or too big. The embedded
    model and what lies in the cache are read for this: their bytes are those promised.
    """
    if found := find(model, revision, safety):
        if found == paths.embedded_model():
            return digests.check_shipped(found)
        for part in _components(_json(found / INDEX), safety) if is_hub_id(model) else ():
            for path in (path for path in (found / part).glob("*") if _wanted(f"{part}/{path.name}", [part])):
                _check_cached(path, model)
        return found
    if not is_hub_id(model):
        raise InputError(
            f"no model {model!r} on this machine; expected a diffusers folder, a .safetensors or .ckpt file, or a hub id "
            "such as CompVis/stable-diffusion-v1-4."
        )
    return _fetch(model, revision, "", lambda at: find(model, at, safety), lambda *of: _download(model, *of, safety))


def fetch_one(model: str, file: str, revision: str = "", instead: str = "") -> Path:
    """One file of a hub repository, as fetch_one("timm/resnet18.a1_in1k", "model.safetensors"): found, announced, resumed,
    verified and refused as by `fetch`. instead: what to take where there is no `file`; InputError where there is neither.
    """
    if not is_hub_id(model):
        raise InputError(f"{model!r} is no hub id; expected owner/name, such as timm/resnet18.a1_in1k.")
    names = [name for name in (file, instead) if name]

    def find_one(commit: str) -> Path | None:
        return next((path for n in names if (path := _store(model) / "snapshots" / commit / n).is_file()), None)

    def bring_one(info: Any, host: str) -> Path:
        listed = [file for name in names for file in info.siblings or [] if file.rfilename == name]
        if not listed:
            raise InputError(f"{model} at {info.sha[:7]} has no {' or '.join(names)}; choose another revision.")
        return _bring(model, info, listed[:1], host) / listed[0].rfilename

    commit = commit_of(model, revision)
    if commit and (found := find_one(commit)):
        return _check_cached(found, model)
    return _fetch(model, commit or revision, file, find_one, bring_one)


def fetch_parquet(dataset: str, revision: str, elsewhere: str) -> list[Path]:
    """The Parquet files of a hub's data set (owner/name) at a commit, by their names: announced, resumed, verified and refused
    as by `fetch`. elsewhere: where else they are, in words.
    """
    name = f"datasets/{dataset}"

    def bring(info: Any, host: str) -> list[Path]:
        listed = [file for file in info.siblings or [] if PARQUET.fullmatch(file.rfilename)]
        snapshot = _bring(name, info, listed, host, elsewhere)
        return sorted(_check_cached(snapshot / file.rfilename, name) for file in listed)

    return _fetch(name, revision, "", lambda commit: None, bring)


def _fetch(model: str, revision: str, file: str, find: Callable, download: Callable) -> Any:
    """What find(commit) has, else what download(info, host) brings, once among steps that run side by side."""
    from huggingface_hub import HfApi, constants, errors
    from huggingface_hub.utils import WeakFileLock

    host = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    store, revision = _store(model), revision or "main"
    lock = store.parent / ".locks" / store.name / "synthlib.lock"
    try:
        transfer.refuse_offline()
        kind, repository = _repository(model)
        given = {"repo_type": kind, "revision": revision, "files_metadata": True, "timeout": 30}
        api = HfApi(endpoint=host, headers=dict(transfer.PLAIN))
        info = transfer.patiently(lambda: api.repo_info(repository, **given), host, model)
        if not COMMIT.fullmatch(info.sha or "") or (COMMIT.fullmatch(revision) and info.sha != revision):
            raise ValueError("no commit, or another one")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            found = find(info.sha) or download(info, host)
            if revision != info.sha:  # after the files, so that an interrupted fetch asks the hub again
                ref = store / "refs" / revision
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(info.sha)
    except (errors.HTTPError, OSError, ValueError, KeyError) as error:  # HTTPError: the HTTP library's own base
        raise _refusal(error, model, revision, host, file)
    return found


def _refusal(error: Exception, model: str, revision: str, host: str, file: str) -> InputError:
    """The one line for what went wrong between us and a hub. file: the one wanted, or "" where a whole model is."""
    from huggingface_hub import errors

    cache = _store(model).parent
    answer = transfer.refusal_of(error)
    if isinstance(error, errors.GatedRepoError) or getattr(answer, "headers", {}).get("X-Error-Code") == "GatedRepo":
        return InputError(f"{model} is gated; accept its licence on {host}/{model}, set HF_TOKEN, and run this again.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"no folder {model} here and no such model at {host}; check it, or set HF_TOKEN if private.")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{model} has no revision {revision!r} at {host}; give a branch, a tag or a 40-digit commit.")
    if answer is not None:
        advice = transfer.advice(answer, f"check HF_TOKEN and the name, or {MIRROR}", "what came is kept")
        return InputError(f"{host} answered {answer.status_code} for {model} at {revision}; {advice}.")
    if isinstance(error, (ValueError, KeyError)):
        return InputError(f"{host} does not answer as a Hugging Face hub does; check HF_ENDPOINT and the proxy.")
    if getattr(error, "errno", None) and not isinstance(error, ConnectionError):
        return InputError(f"cannot write into {cache}: {error.strerror}; make room or set HF_HUB_CACHE elsewhere.")
    if model.startswith("datasets/"):
        return InputError(f"{model} at {revision}: {host} cannot be reached ({transfer.why(error)}).")
    wanted = f"{model} {file}".strip()
    given = f"FOLDER/{file} in its place" if file else f"that folder as {parameter('model')}"
    return InputError(
        f"{wanted} at {revision} is not whole in {cache}, and {host} cannot be reached ({transfer.why(error)}); try again online "
        f"(what came is kept), or elsewhere run `hf download {wanted} --revision {revision} --local-dir FOLDER` and give {given}."
    )


def _download(model: str, info: Any, host: str, safety: bool) -> Path:
    """Bring the files that a snapshot lacks into the cache; `info` is a ModelInfo with files_metadata."""
    name = f"{model} at {info.sha[:7]}"
    listed = {file.rfilename: file for file in info.siblings or []}
    if INDEX not in listed:
        raise InputError(f"{name} is no diffusers model (no {INDEX} at {host}); choose one that has it.")
    # Under 1 kB, and read as the listing is, before the notice: it says which files are ours.
    components = _components(_json(_blob(model, info.sha, listed[INDEX], host)), safety)
    wanted = sorted(path for path in listed if _wanted(path, components))
    lacking = _lacking(wanted, components)
    if lacking:
        raise InputError(
            f"{name} has no config or no safetensors weights in {lacking}/; .bin and .ckpt can hold code and fp16 is less "
            "than we need, so they are not loaded: choose a revision or a copy that has full safetensors."
        )
    wanted.sort(key=lambda path: path == INDEX)  # it last: without it no snapshot is taken for whole
    snapshot = _bring(model, info, [listed[path] for path in wanted], host)
    if not _whole(snapshot, safety):
        raise InputError(f"{name} is not whole by its own {INDEX}; choose another revision.")
    return snapshot


def _bring(model: str, info: Any, files: list[Any], host: str, elsewhere: str = MIRROR) -> Path:
    """The snapshot with these of its listed files, fetched in this order, after one line that says what."""
    store, name = _store(model), f"{model} at {info.sha[:7]}"
    snapshot, blobs = store / "snapshots" / info.sha, store / "blobs"
    files = [file for file in files if not (snapshot / file.rfilename).exists()]
    missing = {digest: file for file in files if not (blobs / (digest := _promised(file)[1])).exists()}
    size = sum(_promised(file)[0] for file in missing.values())
    size -= sum(path.stat().st_size for path in blobs.glob("*.part") if path.stem in missing)
    free = shutil.disk_usage(store.parent).free
    if size > free:
        raise InputError(
            f"{name} needs {transfer.amount(size)} in {store.parent}, which has {transfer.amount(free)} free; make room "
            "there, or set HF_HUB_CACHE to a folder that has more."
        )
    if missing:
        what = f"{len(missing)} files" if len(missing) > 1 else next(iter(missing.values())).rfilename
        print(f"Fetching {name}: {what}, {transfer.amount(size)}, {_licence(info)}, from {host} to {store}", flush=True)
    for file in files:
        _link(_blob(model, info.sha, file, host, elsewhere), snapshot / file.rfilename)
    return snapshot


def _blob(model: str, commit: str, file: Any, host: str, elsewhere: str = MIRROR) -> Path:
    """One file in the cache's blobs, fetched where it is not there, and verified before it gets its name.

    Not by hf_hub_download: since version 2 that throws a partial file away; here a later call goes on with it.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    (kind, repository), name, (size, promised) = _repository(model), file.rfilename, _promised(file)
    blob = _store(model) / "blobs" / promised
    if blob.exists():
        return blob
    url = hf_hub_url(repository, name, repo_type=kind, revision=commit, endpoint=host)
    headers = build_hf_headers(headers=dict(transfer.PLAIN))
    digest = functools.partial(_digest, like=promised)
    return transfer.fetch_file(url, blob, f"{name} of {model}", size, promised, digest, headers, elsewhere)


def _check_cached(path: Path, model: str) -> Path:
    """A file of a snapshot, if its bytes are those after which the cache names its blob. InputError: they are others."""
    promised = path.resolve().name  # where the cache has no links there is no such name
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", promised) and _digest(path, promised) != promised:
        raise InputError(
            f"{path.name} of {model} was damaged in the cache: its digest is not {promised[:12]}; delete {path.resolve()}, and "
            "the same command fetches it again."
        )
    return path


def _link(blob: Path, pointer: Path) -> None:
    """A snapshot's entry for a blob, as huggingface_hub lays them out."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)  # a link whose blob is gone
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a disk without symlinks
        shutil.copyfile(blob, pointer)


def _store(model: str) -> Path:
    """The folder of a hub id in this machine's Hugging Face cache."""
    from huggingface_hub import constants

    home = os.environ.get("HF_HOME")
    cache = os.environ.get("HF_HUB_CACHE") or (home and f"{home}/hub") or constants.HF_HUB_CACHE
    kind, repository = _repository(model)
    return Path(os.path.expandvars(cache)).expanduser() / f"{kind}s--{repository.replace('/', '--')}"


def _repository(model: str) -> tuple[str, str]:
    """ "dataset" and owner/name of datasets/owner/name, as the hub's addresses have it; else "model" and the hub id."""
    name = model.removeprefix("datasets/")
    return ("model" if name == model else "dataset"), name


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _components(index: dict[str, Any], safety: bool) -> list[str]:
    """The folders that a model_index.json names by [library, class]; none of them can be "..", say."""
    # what reads images needs its feature extractor
    reads_images = index.get("_class_name") == "StableDiffusionImageVariationPipeline"
    skipped = () if safety else ("safety_checker",) if reads_images else ("safety_checker", "feature_extractor")
    pairs = [name for name, kind in index.items() if isinstance(kind, list) and all(isinstance(x, str) for x in kind)]
    return [name for name in pairs if name.isidentifier() and name not in skipped]


def _wanted(path: str, components: list[str]) -> bool:
    """Whether a file of a repository is one that we load."""
    folder, _, name = path.rpartition("/")
    if folder not in components or name.startswith("openvino"):
        return path == INDEX
    return bool(WEIGHTS.fullmatch(name)) or (name.endswith((".json", ".txt", ".model")) and ".index." not in name)


def _lacking(files: Collection[str], components: list[str]) -> str | None:
    """The first component without its config or, unless it is of a kind that has none, its weights."""
    for part in components:
        config = any(path.startswith(f"{part}/") and path.endswith(("config.json", "tokenizer.json")) for path in files)
        weights = any(f"{part}/{name}" in files for name in WHOLE_WEIGHTS)
        if not config or not (weights or any(word in part for word in WITHOUT_WEIGHTS)):
            return part
    return None


def _whole(snapshot: Path, safety: bool) -> bool:
    """Whether each component that model_index.json names is there, with all shards of its weights."""
    components = _components(_json(snapshot / INDEX), safety)
    found = {f"{part}/{path.name}": path.is_file() for part in components for path in (snapshot / part).glob("*")}
    if any(_wanted(name, components) for name, there in found.items() if not there):
        return False  # a link whose blob was deleted
    files = {name for name, there in found.items() if there}
    for index in (path for path in files if path.endswith(tuple(WHOLE_WEIGHTS[1::2]))):
        shards = _json(snapshot / index).get("weight_map")
        if not isinstance(shards, dict):
            return False
        if not {f"{os.path.dirname(index)}/{shard}" for shard in shards.values()} <= files:
            return False
    return bool(components) and _lacking(files, components) is None


def _promised(file: Any) -> tuple[int, str]:
    """Size in bytes and digest that a hub lists for a file: sha256 if large (LFS), else git's sha1 of a blob."""
    size, digest = (file.lfs.size, file.lfs.sha256) if file.lfs else (file.size, file.blob_id)
    if size is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest or ""):
        raise ValueError(f"no digest of {file.rfilename}")
    return size, digest


def _digest(path: Path, like: str) -> str:
    """A file's digest of the kind of `like`."""
    if len(like) == 64:
        return digests.sha256_large_file(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _licence(info: Any) -> str:
    """The licence a model's card names, or its "license:" tag."""
    card = info.card_data.to_dict() if info.card_data else {}
    tags = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    name = card.get("license_name") or card.get("license") or (tags and tags[0])
    return f"licence {name}" if name else "licence not stated"
