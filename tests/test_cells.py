"""Every table cell has a command that the kit understands, beside what was published, and the guide lists them all."""

import functools

import pytest
import yaml
from conftest import ROOT

from synthlib import cli
from synthlib.inputs import InputError
from synthlib.runs import cells, experiment, steps
from synthlib.runs.cells import cells_of, filled
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import plan_steps


@pytest.fixture(autouse=True)
def read_once(monkeypatch):
    """Each notebook's defaults and each YAML is read once: a plan of the paper asks for them several hundred times."""
    once = functools.cache(experiment.notebook_defaults)
    for module in (experiment, steps):
        monkeypatch.setattr(module, "notebook_defaults", once)
    monkeypatch.setattr(yaml, "safe_load", functools.cache(yaml.safe_load))


def test_the_guide_lists_the_commands_of_today():
    page = (ROOT / "docs" / "one_cell.md").read_text()
    assert filled(page) == page, "docs/one_cell.md is not what `make cells` writes"
    for name in ("paper", "pocket_full"):
        own = read_experiment(name)
        assert all(f"| `{cell.command}` |" in page for result in own.results for cell in cells_of(own, result))


@pytest.mark.parametrize("name", ["paper", "pocket_full", "hosted"])
def test_every_command_runs_up_to_its_own_cell_or_says_why_not(name):
    own = read_experiment(name)
    found = [cell for result in own.results for cell in cells_of(own, result)]
    assert {cell.result for cell in found} == {result.id for result in own.results if result.stage == "03_eval"}
    planned: dict[tuple, str] = {}
    for cell in found:
        _, _, experiment_name, _, given = cell.command.split()
        assert (experiment_name, given) == (name, cell.name)
        condition = steps.parse_cell(given, own)
        assert condition == (cell.dataset, cell.treatment, cell.architecture)
        if condition not in planned:
            try:
                planned[condition] = plan_steps(own, cell=given)[-1].name
            except InputError as error:
                planned[condition] = str(error)
        if cell.why_not:
            assert f"cannot be run: {cell.why_not};" in planned[condition]
        else:
            assert planned[condition] == f"03_eval/{'-'.join(condition)}"
    assert any(cell.why_not for cell in found)


def test_a_published_value_stands_with_its_source_and_only_where_it_belongs():
    own = read_experiment("paper")
    paper = {cell.name: cell for result in own.results for cell in cells_of(own, result)}
    assert paper["T1/cifar10/base_class/resnet50"].published == (60.5, "authors' README (2023-04-12 table)")
    valued = {name.partition("/")[2] for name, cell in paper.items() if isinstance(cell.published[0], float)}
    assert valued == {"cifar10/base_class/resnet50"}  # of which initial weights it is, is not known


def test_the_command_prints_them_or_refuses_in_one_line(capsys):
    assert cli.main(["cells", "paper", "--only", "T6", "F1"]) == 0
    said = capsys.readouterr().out
    assert "synthlib reproduce paper --cell T6/cifar10/base_class/resnet50" in said and "60.5, authors' README" in said
    assert "cannot be run: no list of prompts for cifar100" in said and "F1  Sample grid" in said and "T1" not in said
    assert cli.main(["cells", "pocket", "--only", "T3"]) == 2
    assert "pocket leaves T3 out" in capsys.readouterr().err
    with pytest.raises(InputError, match="mend the comment"):
        filled("<!-- generated: synthlib cells -->\n<!-- end of what was generated -->")


def test_a_cell_that_is_no_longer_wanted_is_missed_in_the_guide(monkeypatch):
    page = (ROOT / "docs" / "one_cell.md").read_text()
    monkeypatch.setattr(cells, "conditions", lambda *given: dict(list(steps.conditions(*given).items())[1:]))
    assert filled(page) != page
