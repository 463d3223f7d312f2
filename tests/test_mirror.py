"""A run goes on elsewhere from the mirror: whole files only, nothing drawn twice, and no error of the mirror harms a run."""

import json
import os
import shutil
from dataclasses import asdict

import pytest
from conftest import ROOT

from synthlib import costly, mirror, paths, receipts
from synthlib.files import PLAN, RECEIPT, write_atomic
from synthlib.generation import generate as module
from synthlib.generation.generate import generate, open_plan
from synthlib.runs.experiment import complete
from synthlib.settings import SETTINGS

RUN = "papermill_runs/mine/01_generate/digits-class_prompt"
FEW = {"run_dir": RUN, "trick": "class_prompt", "classes": ["three", "seven"], "images_per_class": 4, "shard_rows": 2}
FEW |= {"num_inference_steps": 2, "batch_size": 2, "device": "cpu"}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine("a"): a root of this name from then on, empty at first, with the one mirror."""
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "drive"))
    monkeypatch.setattr(mirror, "_told", set())

    def at(name):
        root = tmp_path / name
        if not root.exists():
            root.mkdir()
            for link in ("notebooks", "experiments", "synthlib"):
                (root / link).symlink_to(ROOT / link)
        monkeypatch.setenv("SYNTHLIB_ROOT", str(root))
        paths.root.cache_clear()
        return root

    yield at
    paths.root.cache_clear()


def settings(**given):
    return SETTINGS["01_generate"](**complete("01_generate", FEW | given))


def draw(**given):
    """A whole step 01_generate; its plan."""
    plan = open_plan(settings(**given))
    step = receipts.begin("01_generate", plan.settings)
    step.finish(generate(plan))
    return plan


def state(**given):
    return receipts.state("01_generate", asdict(open_plan(settings(**given)).settings), verify=True)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_was_drawn_half_way_on_one_machine_is_finished_on_another_and_nothing_is_drawn_twice(
    machine, tmp_path, monkeypatch, capsys
):
    first, count, make = machine("a"), [], module._make_shard

    def disconnect(*arguments):
        count.append(arguments)
        if len(count) == 3:
            raise KeyboardInterrupt
        make(*arguments)

    monkeypatch.setattr(module, "_make_shard", disconnect)
    with pytest.raises(KeyboardInterrupt):
        draw()
    monkeypatch.undo()
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "drive"))
    drawn = {path.name: path.read_bytes() for path in first.glob(f"{RUN}/shard-*.parquet")}
    assert len(drawn) == 2

    second = machine("b")
    assert mirror.bring_back() == 5  # two shards, their keys, the plan
    capsys.readouterr()
    draw()
    assert "8 images: 4 drawn, 4 there already." in capsys.readouterr().out
    assert {name: (second / RUN / name).read_bytes() for name in drawn} == drawn

    machine("c")
    mirror.bring_back()
    assert state() == "done"
    capsys.readouterr()
    draw()
    assert "8 images: 0 drawn, 8 there already." in capsys.readouterr().out


def test_parts_and_half_copies_are_not_in_the_mirror_and_do_not_come_back(machine, tmp_path):
    root = machine("a")
    key = costly.FileKey("shards", "settings", "code")
    for name in ("part-00000.parquet", "shard-00000.parquet"):
        costly.write_keyed(root / RUN / name, b"images", key, 1.0)
    costly.write_keyed(tmp_path / "elsewhere.parquet", b"images", key, 1.0)
    kept = [f"{RUN}/shard-00000.parquet", f"{RUN}/shard-00000.parquet.key"]
    assert names(tmp_path / "drive") == kept
    young, old = (tmp_path / "drive" / RUN / f".shard-{number}.parquet.host.1.part" for number in "12")
    for half in (young, old):
        half.write_bytes(b"ima")
    os.utime(old, (0, 0))
    other = machine("b")
    assert mirror.bring_back() == 2
    assert [name for name in names(other) if name.startswith("papermill_runs")] == kept
    assert young.exists() and not old.exists()  # an old one is swept, a young one may still be written


def test_a_copy_that_is_not_what_its_key_says_is_made_again(machine, tmp_path, capsys):
    machine("a")
    plan = draw()
    path = tmp_path / "drive" / RUN / next(path.name for path, _ in plan.shards())
    path.write_bytes(path.read_bytes()[:-1])
    machine("b")
    mirror.bring_back()
    assert state() == "missing"  # the receipt stayed behind, for it tells of other bytes
    draw()
    assert "8 images: 2 drawn, 6 there already." in capsys.readouterr().out and state() == "done"
    machine("c")
    mirror.bring_back()
    assert state() == "done"  # the damaged copy was replaced


def test_what_is_replaced_or_removed_here_is_so_in_the_mirror(machine, tmp_path):
    root = machine("a")
    draw()
    draw(shard_rows=4)  # two shards; those of the earlier layout are removed
    assert names(tmp_path / "drive" / RUN) == [n for n in names(root / RUN) if n[0] != "."]
    receipts.begin("01_generate", settings(shard_rows=4, seed=65)).lock.release()
    assert not (tmp_path / "drive" / RUN / RECEIPT).exists()  # begun anew: not finished there either
    costly.write_keyed(root / RUN / "shard-x.parquet", b"new", costly.FileKey("shards", "s", "c"), 1.0)
    costly.write_keyed(root / RUN / "shard-x.parquet", b"newer", costly.FileKey("shards", "s", "c"), 1.0)
    assert (tmp_path / "drive" / RUN / "shard-x.parquet").read_bytes() == b"newer"
    costly.remove_keyed(root / RUN / "shard-x.parquet")
    assert not list((tmp_path / "drive" / RUN).glob("shard-x*"))


def test_nothing_that_is_here_is_replaced_by_what_comes_back(machine, tmp_path):
    machine("a")
    draw()
    other = machine("b")
    (other / RUN).mkdir(parents=True)
    shard = next(path.name for path in (tmp_path / "drive" / RUN).glob("*.parquet"))
    (other / RUN / shard).write_bytes(b"own")
    mirror.bring_back()
    assert (other / RUN / shard).read_bytes() == b"own" and not (other / RUN / RECEIPT).exists()


@pytest.mark.parametrize("trouble", ["gone", "a file in the way"])
def test_an_error_of_the_mirror_is_a_line_and_the_run_is_whole(machine, tmp_path, capsys, trouble):
    root = machine("a")
    if trouble == "gone":
        shutil.rmtree(tmp_path / "drive")
    else:
        (tmp_path / "drive" / "papermill_runs").write_text("in the way")
    draw()
    assert state() == "done" and len(list((root / RUN).glob("*.parquet"))) == 4
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mirror: ")]
    assert len(said) == 1 and "the run goes on" in said[0]  # once, however many files it lacks
    assert trouble != "gone" or not (tmp_path / "drive").exists()  # never made anew on the local disk


def test_a_step_finished_before_there_was_a_mirror_is_mirrored_whole_when_it_finishes_again(
    machine, tmp_path, monkeypatch
):
    machine("a")
    monkeypatch.delenv(mirror.VARIABLE)
    draw()
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "drive"))
    draw()
    machine("b")
    mirror.bring_back()
    assert state() == "done"


def test_what_was_drawn_half_way_before_there_was_a_mirror_is_finished_on_another_machine(
    machine, tmp_path, monkeypatch, capsys
):
    machine("a")
    monkeypatch.delenv(mirror.VARIABLE)
    generate(open_plan(settings(images_per_class=2)))  # two of four shards
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "drive"))
    mirror.catch_up()
    machine("b")
    mirror.bring_back()
    capsys.readouterr()
    draw()
    assert "8 images: 4 drawn, 4 there already." in capsys.readouterr().out and state() == "done"


def test_a_step_of_which_one_file_did_not_fit_is_mirrored_whole_once_it_does(machine, tmp_path, monkeypatch):
    machine("a")
    real = mirror.copy_atomic

    def full(source, target):
        if target.name == PLAN:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(mirror, "copy_atomic", full)
    draw()
    assert not (tmp_path / "drive" / RUN / RECEIPT).exists()
    monkeypatch.setattr(mirror, "copy_atomic", real)
    mirror.catch_up()
    machine("b")
    mirror.bring_back()
    assert state() == "done"


def not_connected(*_):
    raise OSError(107, "Transport endpoint is not connected")


def test_a_drive_that_drops_out_while_files_come_back_is_one_line(machine, monkeypatch, capsys):
    machine("a")
    draw()
    machine("b")
    capsys.readouterr()
    monkeypatch.setattr(mirror, "copy_atomic", not_connected)
    assert mirror.bring_back() == 0
    [line] = capsys.readouterr().out.splitlines()
    assert "files could not be brought back, and are made again; " in line and "not connected" in line


def test_what_was_finished_or_drawn_before_there_was_a_mirror_catches_up(machine, tmp_path, monkeypatch):
    machine("a")
    monkeypatch.delenv(mirror.VARIABLE)
    mirror.catch_up()  # without a mirror it does nothing
    draw()
    (paths.root() / RUN / RECEIPT).rename(tmp_path / "receipt.json")
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "drive"))
    mirror.catch_up()  # of an unfinished step its shards
    assert (
        len(list((tmp_path / "drive" / RUN).glob("*.parquet"))) == len(list((paths.root() / RUN).glob("*.parquet"))) > 0
    )
    (tmp_path / "receipt.json").rename(paths.root() / RUN / RECEIPT)
    mirror.catch_up()
    machine("b")
    mirror.bring_back()
    assert state() == "done"


def test_a_drive_that_cannot_be_read_is_one_line(machine, monkeypatch, capsys):
    machine("a")
    monkeypatch.setattr(mirror.Path, "rglob", not_connected)
    assert mirror.bring_back() == 0
    assert capsys.readouterr().out.startswith("mirror: could not be read: Transport endpoint is not connected; ")


def test_figures_come_back_with_the_receipt_that_tells_of_them(machine):
    root = machine("a")
    step = receipts.Step("04_figures", root / "papermill_runs/mine/04_figures/all", {}, {}, "", 0.0, _NoLock())
    figure = root / "figures" / "mine" / "a.png"
    write_atomic(figure, b"png")
    step.folder.mkdir(parents=True)
    step.finish([step.folder / "../../../../figures/mine/a.png"])
    other = machine("b")
    assert mirror.bring_back() == 2
    assert (other / "figures/mine/a.png").read_bytes() == b"png"
    assert list(json.loads((other / step.folder.relative_to(root) / RECEIPT).read_text())["outputs"])


class _NoLock:
    def release(self):
        pass
