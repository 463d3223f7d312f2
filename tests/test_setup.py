"""One set of packages, told three ways; notebooks as they are committed; what is heavy is not imported."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT, TIERS, tier_times
from packaging.requirements import Requirement
from packaging.version import Version

from synthlib import provenance
from synthlib.runs.experiment import read_experiment, read_results

TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TOML["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PINS = {
    re.sub(r"[-_.]+", "-", name).lower(): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}


def requirements():
    extras = PROJECT["optional-dependencies"]
    for text in [
        *PROJECT["dependencies"],
        *(line for name, lines in extras.items() if name != "all" for line in lines),
    ]:
        yield Requirement(text)


def test_every_dependency_is_pinned_once_within_its_range():
    for requirement in requirements():
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in PINS, f"{name} is not in constraints.txt"
        assert PINS[name] in requirement.specifier, f"{name} {PINS[name]} is outside {requirement.specifier}"


def test_the_extra_all_is_all_extras_and_the_core_has_no_lab_engine_or_clip():
    extras = set(PROJECT["optional-dependencies"]) - {"all"}
    named = re.fullmatch(r"synthlib\[(.*)\]", PROJECT["optional-dependencies"]["all"][0])[1]
    assert set(named.split(",")) == extras
    core = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert core.isdisjoint({"jupyterlab", "snakemake", "open-clip-torch"})


def test_conda_users_get_the_same_set():
    import yaml

    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert environment[-1]["pip"] == ["--constraint constraints.txt", "--editable .[all]"]
    python = Requirement(next(line for line in environment if str(line).startswith("python=")).replace("=", "==", 1))
    low = next(iter(python.specifier)).version
    # Conda takes the newest patch.
    assert Version(f"{low}.9") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_the_versions_tested_are_those_pinned():
    from importlib.metadata import version

    for requirement in requirements():
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert Version(version(requirement.name)).base_version == PINS[name].base_version, name


def test_import_is_light():
    code = "import synthlib.settings, sys; print([m for m in ('torch', 'numpy', 'pandas', 'papermill') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_clean(path):
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    cells = notebook.cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    assert [cell.cell_type for cell in cells[:2]] == ["markdown", "markdown"] and "Colab" in cells[0].source
    assert cells[2].source == nbformat.read(NOTEBOOKS[0], as_version=4).cells[2].source  # the shared setup cell
    assert "step.finish(" in cells[-1].source


def test_notebooks_and_the_guide_to_colab_hold_the_address_that_pyproject_has():
    subprocess.run([sys.executable, ROOT / "notebooks" / "write_badges.py", "--check"], check=True)


def test_write_badges_changes_every_address():
    sys.path.insert(0, str(ROOT / "notebooks"))
    from write_badges import with_address

    text = NOTEBOOKS[0].read_text()
    moved = with_address(text, "https://github.com/a/b")
    assert "github.com/a/b" in moved and "colab.research.google.com/github/a/b/blob" in moved
    assert "synthlib/synthlib" not in moved


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_sees_every_parameter_with_its_help(path):
    import papermill

    from synthlib.runs.experiment import notebook_defaults

    seen = papermill.inspect_notebook(str(path))
    assert list(seen) == list(notebook_defaults(path.stem))
    assert all(parameter["help"] and parameter["inferred_type_name"] for parameter in seen.values())


def test_nothing_of_this_machine_is_committed():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    if files == [""]:
        pytest.skip("not a git checkout: nothing committed to look at")
    home = str(ROOT.parent) + "/"
    for name in files:
        if name and (ROOT / name).is_file() and not name.endswith((".png", ".pdf", ".safetensors")):
            assert home not in (ROOT / name).read_text(encoding="utf-8"), name


def test_committed_results_are_json_or_text_without_outputs_over_15_mb():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    binary = [
        ROOT / name for name in files if name.endswith((".png", ".pdf", ".safetensors")) and (ROOT / name).exists()
    ]
    assert sum(path.stat().st_size for path in binary) < 15e6
    assert sum(path.stat().st_size for path in (ROOT / "figures" / "reference").rglob("*") if path.is_file()) < 8e6


def test_the_readmes_table_is_the_reference_runs():
    reference = (ROOT / "figures" / "reference" / "pocket" / "accuracy_by_trick.md").read_text().splitlines()
    assert [line for line in reference if line.startswith("|")]
    readme = (ROOT / "README.md").read_text()
    assert all(line in readme for line in reference if line.startswith("|"))


def test_json_records_are_well_formed():
    for path in [*ROOT.glob("synthlib/**/*.json"), *ROOT.glob("benchmarks/**/*.json")]:
        json.loads(path.read_text())


def test_links_of_notebooks_to_cards_lead_to_results_that_the_experiment_makes():
    links = [
        (path.stem, *link)
        for path in NOTEBOOKS
        for link in re.findall(r"\.\./figures/(\w+)/report\.html#(\w+)", path.read_text(encoding="utf-8"))
    ]
    assert {name for name, _, _ in links} == {path.stem for path in NOTEBOOKS}
    assert {card for name, _, card in links if name == "04_figures"} == set(read_results())
    for name, experiment, card in links:
        made = {result.id for result in read_experiment(experiment).results}
        assert card in made | {"gallery", "mistakes"}, (name, experiment, card)


def test_the_time_of_each_tier_is_that_of_its_tests_with_their_fixtures():
    markers = TOML["tool"]["pytest"]["ini_options"]["markers"]
    assert set(TIERS) == {marker.partition(":")[0] for marker in markers}

    def report(name, when, seconds, *marks):
        return pytest.TestReport(name, ("", 0, ""), dict.fromkeys(marks, 1), "passed", None, when, duration=seconds)

    reports = [report("a", "setup", 2, "runs"), report("a", "call", 3, "runs"), report("b", "call", 4, "slurm", "runs"),
               report("c", "call", 5)]  # fmt: skip
    assert tier_times(reports) == ["     9 s  tier runs, tests: 2", "     4 s  tier slurm, tests: 1"]


def test_a_commit_has_changes_where_what_makes_results_differs_and_not_beside_a_new_set(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "synthlib").mkdir()
    (tmp_path / "synthlib/a.py").write_text("a = 1\n")
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance.paths, "root", lambda: tmp_path)
    (tmp_path / "my_digits").mkdir()
    (tmp_path / "my_digits/1.png").write_bytes(b"png")
    assert re.fullmatch("[0-9a-f]{40}", provenance.commit())
    (tmp_path / "synthlib/b.py").write_text("b = 1\n")
    assert provenance.commit().endswith("+changes")
