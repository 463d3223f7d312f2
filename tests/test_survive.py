"""Work that survives: SIGTERM, kills, errors and full memory lose at most the block in work."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT

from synthlib import costly
from synthlib.data.shards import read_table
from synthlib.files import write_json
from synthlib.generation import generate as module
from synthlib.generation import paint, sampler
from synthlib.generation.generate import generate, open_plan
from synthlib.generation.paint import probe_batch
from synthlib.inputs import InputError
from synthlib.interrupts import Terminated, terminated_at_once

QUICK = {
    "num_inference_steps": 2,
    "classes": ["three", "seven"],
    "batch_size": 4,
    "device": "cpu",
    "trick": "class_prompt",
}


@pytest.fixture
def plan(settings, tmp_path):
    return lambda folder, **given: open_plan(
        settings("01_generate", **(QUICK | {"run_dir": str(tmp_path / folder)} | given))
    )


def shards(files):
    return {path.name: path.read_bytes() for path in files[:-1]}


@pytest.fixture
def blocks(monkeypatch):
    """How many blocks were drawn; `stop_after` some, something happens."""

    class Blocks(list):
        stop_after, then = None, None

    calls, real = Blocks(), sampler.denoise

    def denoise(*given):
        calls.append(1)
        if calls.stop_after is not None and len(calls) > calls.stop_after:
            calls.stop_after = None
            calls.then()
        return real(*given)

    monkeypatch.setattr(sampler, "denoise", denoise)
    return calls


def test_sigterm_finishes_the_block_and_keeps_every_image_of_an_unfinished_shard(plan, blocks):
    whole = shards(generate(plan("whole", images_per_class=10)))
    n = len(blocks)
    blocks.stop_after, blocks.then = n + 2, lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Terminated, match="what is finished is kept"):
        generate(plan("cut", images_per_class=10))
    assert len(blocks) == n + 3  # the block in which it came was finished
    [part] = plan("cut").folder.glob("part-*.parquet")
    assert len(read_table(part)) == 10  # blocks of 4, 4 and 2 of the first class
    assert not list(plan("cut").folder.glob("shard-*.parquet"))
    assert shards(generate(plan("cut", images_per_class=10))) == whole
    assert len(blocks) == n + 6 and not list(plan("cut").folder.glob("part-*"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_error_midway_keeps_what_was_drawn(plan, blocks):
    def fail():
        raise RuntimeError("a bug")

    blocks.stop_after, blocks.then = 1, fail
    with pytest.raises(RuntimeError, match="a bug"):
        generate(plan("a", images_per_class=8))
    n = len(blocks)
    files = generate(plan("a", images_per_class=8))
    assert len(blocks) == n + 3 and len(read_table(files[0])) == 16


def test_an_interrupt_keeps_what_was_drawn_and_is_one_line_that_says_how_to_go_on(plan, blocks):
    def interrupt():
        raise KeyboardInterrupt

    blocks.stop_after, blocks.then = 1, interrupt
    with pytest.raises(KeyboardInterrupt) as stopped:
        generate(plan("a", images_per_class=8))
    [line] = stopped.value._render_traceback_()
    assert line == "Interrupted: what is finished is kept; run this again, and it goes on from there."
    n = len(blocks)
    generate(plan("a", images_per_class=8))
    assert len(blocks) == n + 3


def test_what_is_drawn_is_saved_every_two_minutes(plan, blocks, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_PARTS", 0)
    written = []
    real = costly.write_keyed
    monkeypatch.setattr(costly, "write_keyed", lambda path, *rest: written.append(path.name) or real(path, *rest))
    generate(plan("a", images_per_class=8))
    assert [name.split("-")[0] for name in written] == ["part"] * 4 + ["shard"]
    assert not list(plan("a").folder.glob("part-*"))


def test_out_of_memory_is_one_line_that_names_the_batch_size_to_try(plan, blocks):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    blocks.stop_after, blocks.then = 1, fail
    with pytest.raises(InputError, match="batch_size 4; .*set batch_size 2, or let .*--probe-batch") as error:
        generate(plan("a", images_per_class=8))
    assert "\n" not in str(error.value)
    [part] = plan("a").folder.glob("part-*.parquet")
    assert len(read_table(part)) == 4


def test_other_runtime_errors_are_not_taken_for_full_memory(plan, blocks):
    def fail():
        raise RuntimeError("shapes do not fit")

    blocks.stop_after, blocks.then = 0, fail
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        generate(plan("a"))


def test_probe_batch_finds_the_largest_batch_that_fits(plan, monkeypatch):
    tried, real = [], sampler.denoise

    def denoise(model, text, *rest):
        tried.append(len(text))
        if len(text) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, text, *rest)

    monkeypatch.setattr(sampler, "denoise", denoise)
    many, few = plan("many", images_per_class=500), plan("few", images_per_class=3)
    assert probe_batch(many.settings, many.spec) == 8
    assert tried == [64, 32, 16, 8]
    assert probe_batch(few.settings, few.spec) == 4  # more would only be drawn and discarded
    monkeypatch.setattr(sampler, "denoise", lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(InputError, match="batch_size 1; .*use precision float16, or smaller images"):
        probe_batch(many.settings, many.spec)


def test_probed_batch_is_used_and_kept_when_the_folder_goes_on(tmp_path, monkeypatch, capsys):
    from synthlib.cli import main

    words = "generate --classes two --n_samples 2 --n_iter 2 --ddim_steps 2 --device cpu".split()
    words += ["--outdir", str(tmp_path / "out"), "--probe-batch"]
    monkeypatch.setattr(paint, "PROBE_FROM", 4)
    assert main(words) == 0 and "batch_size 4: the largest that fits" in capsys.readouterr().out
    monkeypatch.setattr(paint, "PROBE_FROM", 2)
    assert main(words) == 0
    assert "batch_size 4: that of the images" in (said := capsys.readouterr().out) and "0 drawn" in said


def test_what_ran_out_of_memory_does_not_stay_in_it(plan, blocks, monkeypatch):
    """A notebook keeps the last error: neither the model nor activations may hang on to it."""
    import gc
    import weakref

    kept, painters, real = [], [], paint.Painter.__init__
    monkeypatch.setattr(paint.Painter, "__init__", lambda self, *given: painters.append(self) or real(self, *given))

    def fail():
        activation = torch.zeros(3)
        kept.extend([weakref.ref(activation), weakref.ref(painters[0].model.unet)])
        raise torch.OutOfMemoryError("CUDA out of memory")

    blocks.stop_after, blocks.then = 0, fail
    with pytest.raises(InputError, match="out of memory") as error:
        generate(plan("a"))
    gc.collect()
    assert error.value is not None and [ref() for ref in kept] == [None, None]


def test_full_memory_while_opening_or_encoding_is_one_line_too_and_good_blocks_are_kept(plan, monkeypatch):
    real, calls = paint._encode, []

    def encode(*given):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given)

    monkeypatch.setattr(paint, "_encode", encode)
    with pytest.raises(InputError, match="out of memory on cpu with batch_size 4"):
        generate(plan("a", images_per_class=8))
    [part] = plan("a").folder.glob("part-*.parquet")
    assert len(read_table(part)) == 12
    monkeypatch.setattr(
        paint.checkpoints,
        "open_checkpoint",
        lambda *given: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory")),
    )
    with pytest.raises(InputError, match="out of memory"):
        generate(plan("b"))


def test_probing_follows_an_out_of_memory(tmp_path, monkeypatch, capsys):
    from synthlib.cli import main

    words = "generate --classes two --n_samples 2 --n_iter 4 --ddim_steps 2 --device cpu".split()
    words += ["--outdir", str(tmp_path / "out"), "--batch_size", "8"]
    real = sampler.denoise

    def denoise(model, text, *rest):
        if len(text) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, text, *rest)

    monkeypatch.setattr(sampler, "denoise", denoise)
    assert main(words) == 2 and "--probe-batch" in capsys.readouterr().err
    assert main([*words, "--probe-batch"]) == 0 and "batch_size 2: the largest that fits" in capsys.readouterr().out


def test_sigterm_is_heard_while_another_worker_holds_the_shard(plan):
    from synthlib.locks import claim

    opened = plan("a")
    [(path, _)] = opened.shards()
    write_json(opened.folder / "plan.json", module._description(opened))  # as that worker did
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from synthlib.locks import claim\n"
         "lock = claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)", str(path.with_name(f".{path.name}.lock"))],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert holder.stdout.readline().strip() == "held"
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        start = time.monotonic()
        with pytest.raises(Terminated):
            generate(opened)
        assert time.monotonic() - start < 20
        assert claim(path.with_name(f".{path.name}.lock"), wait=False) is None
        with pytest.raises(InputError, match="another plan's shards"):  # and no other plan may begin beside it
            generate(plan("a", num_inference_steps=3))
    finally:
        holder.kill()
        holder.wait()


def test_a_worker_whose_plan_was_replaced_removes_nothing_of_the_other(plan):
    first = plan("a", images_per_class=4)
    generate(first)
    other = generate(plan("a", images_per_class=4, num_inference_steps=3, replace=True))
    module._remove_others(first, True)
    assert all(path.is_file() for path in other)


def test_locks_of_shards_that_this_plan_does_not_have_stay(plan):
    from synthlib.locks import claim

    many = plan("a", images_per_class=8, shard_rows=4)
    held = [path for path, _ in many.shards()][-1]
    with claim(held.with_name(f".{held.name}.lock")):
        generate(plan("a", images_per_class=2, shard_rows=4))
        assert held.with_name(f".{held.name}.lock").exists()
    assert len([path for path in many.folder.glob(".shard*.lock")]) == 1


def test_files_that_another_worker_tidies_away_are_taken_for_absent(plan, monkeypatch):
    files = generate(plan("a", images_per_class=4))
    real = costly.is_current
    part = files[0].with_name("part-00009-aaaaaaaa.parquet")
    part.write_bytes(b"x")
    monkeypatch.setattr(costly, "is_current", lambda path, key: path == part or real(path, key))
    part_gone = lambda path: path.unlink() if path == part else None  # noqa: E731
    from synthlib.generation import reuse

    read = reuse.read_table
    monkeypatch.setattr(reuse, "read_table", lambda path, columns=None: part_gone(path) or read(path, columns))
    assert len(generate(plan("a", images_per_class=6))) == 2


def test_a_resize_or_a_shard_that_cannot_be_is_refused_before_anything_is_drawn(plan, blocks):
    with pytest.raises(InputError, match="'64' makes 64 px of 32 x 32"):
        generate(plan("a", resize="64"))
    with pytest.raises(InputError, match="expected at most 699050 for images of this size"):
        generate(plan("b", shard_rows=10**6))
    assert not blocks


WORKER = """
import os, sys
import diffusers, transformers, torch
from synthlib.generation.generate import generate, open_plan
from synthlib.runs.experiment import complete
from synthlib.settings import GenerateSettings
import json
settings = GenerateSettings(**complete("01_generate", json.loads(sys.argv[1])))
print("ready", flush=True)
for line in sys.stdin:  # a child for each line: it starts at once, with everything imported
    pid = os.fork()
    if pid == 0:
        os.close(0)
        generate(open_plan(settings))
        os._exit(0)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print("ended", status, flush=True)
"""


def worker(given):
    import json

    command = [sys.executable, "-c", WORKER, json.dumps(given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    return process


def go(process):
    """Start a child; its pid."""
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.strip().isdigit():
            return int(line)


def ended(process):
    """Whether the child ended by itself (True) or was killed."""
    for line in process.stdout:
        if line.startswith("ended"):
            return line.split()[1] == "0"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_what_waits_for_others_unless_nohup_says_otherwise(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with contextlib.nullcontext() if ignored else pytest.raises(Terminated):
            with terminated_at_once():
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.1)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.runs
def test_twenty_kills_of_two_workers_on_one_folder_leave_the_same_set(tmp_path):
    given = QUICK | {
        "num_inference_steps": 20,
        "images_per_class": 90,
        "shard_rows": 25,
        "trick": "merged",
        "classes": [],
    }
    whole = worker(given | {"run_dir": str(tmp_path / "whole")})
    both = [worker(given | {"run_dir": str(tmp_path / "killed")}) for _ in range(2)]
    for process in (whole, *both):
        assert process.stdout.readline().strip() == "ready"
    go(whole)
    children = [go(process) for process in both]
    chance, kills = random.Random(3), 0
    while kills < 20:
        time.sleep(chance.uniform(0.1, 1.2))
        which = chance.randrange(2)
        os.kill(children[which], signal.SIGKILL)
        assert not ended(both[which]), "all was drawn before 20 kills: give it more to do"
        kills += 1
        children[which] = go(both[which])
    assert ended(whole) and all([ended(process) for process in both])
    for process in (whole, *both):
        process.stdin.close()
        process.wait()
    expected, found = ({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).glob("*.parquet"))}
                       for name in ("whole", "killed"))  # fmt: skip
    assert len(expected) == 36 and found == expected
    ids = [i for path in (tmp_path / "killed").glob("*.parquet") for i in pq.read_table(path)["image_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 900


@pytest.mark.runs
def test_sigterm_to_the_command_ends_it_with_143_and_it_goes_on(tmp_path):
    command = [sys.executable, "-m", "synthlib.cli", "generate", "--classes", "two", "six", "--n_samples", "5", "--n_iter", "20",
               "--ddim_steps", "40", "--batch_size", "4", "--device", "cpu", "--outdir", str(tmp_path / "out")]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        if line.startswith("200 images"):
            break
    folder = tmp_path / ".out.synthlib"
    while not (folder / "plan.json").exists():
        time.sleep(0.05)
    time.sleep(4)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert (
        said.strip().splitlines()[-1]
        == "synthlib: stopped by SIGTERM; what is finished is kept, the same command goes on from there."
    )
    [part] = folder.glob("part-*.parquet")
    there = len(read_table(part))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and f"200 images: {200 - there} drawn, {there} there already." in done.stdout
