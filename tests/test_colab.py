"""On Colab: its Python, kernel stack and library versions, its setup cell, and a run that goes on from Drive.

The environment has what the kit and a kernel need in the versions of colab_constraints.txt, but from the registry: torch's build
and CUDA's libraries are not Colab's own. All else of that list is not there, but pip must fit the kit beside it, too.
google.colab is a stand-in whose drive is a folder; git takes the kit from this checkout instead of its address.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from synthlib import colab
from synthlib.inputs import InputError

LIST = ROOT / "tests" / "colab_constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KERNEL = ("ipykernel", "ipython", "jupyter_client", "notebook", "pip")
CUDA = ("nvidia-", "cuda-")  # as torch's build wants them
NOTEBOOKS = ("01_generate", "02_train", "03_eval", "04_figures")
DRIVE = "def mount(where):\n    import os\n    os.makedirs(where + '/MyDrive', exist_ok=True)\n"
VERSIONS = "import json, importlib.metadata as m; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def listed():
    """What Colab has: name -> version without the mark of a local build."""
    pairs = re.findall(r"^([\w.-]+)==([^\s+]+)", LIST.read_text(), re.M)
    return {plain(name): version for name, version in pairs}


def python_of_colab():
    """A Python of the list's minor version: on the PATH, or pyenv's."""
    wanted = "python" + re.search(r"Python (\d+\.\d+)", LIST.read_text())[1]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = shutil.which(wanted)
    for python in [*([found] if found else []), *sorted(pyenv.glob(f"versions/*/bin/{wanted}"))]:
        if subprocess.run([python, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return python  # pyenv puts a name on the PATH that may not work
    pytest.skip(f"no {wanted}, which Colab has: expected one on the PATH or in {pyenv / 'versions'}")


class Machine:
    """A machine of Colab: an environment, and its working folder (/content there)."""

    def __init__(self, folder):
        self.folder, self.content = folder, folder / "content"
        self.python = folder / "env" / "bin" / "python"
        self.content.mkdir()
        self._environment()
        self._google()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SYNTHLIB_", "PYTHON", "JUPYTER", "IPYTHON"))}
        address = PROJECT["tool"]["synthlib"]["repository"]
        source = self._source()
        self.variables = kept | {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_DATA_DIR": str(folder / "jupyter"),
            "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{source}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
        }

    def _environment(self):
        subprocess.run([python_of_colab(), "-m", "venv", self.folder / "env"], check=True)
        versions = {name: version for name, version in listed().items() if not name.startswith(CUDA)}
        core = {plain(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
        names = [*sorted(core & set(versions)), *KERNEL]
        pip = [self.python, "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", self._rules(versions)]
        done = subprocess.run([*pip, *names], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        self.packages = next((self.folder / "env" / "lib").glob("python*")) / "site-packages"
        there = {plain(path.name.split("-")[0]) for path in self.packages.glob("*.dist-info")}
        self.not_there = self._rules({name: version for name, version in versions.items() if name not in there})

    def _rules(self, versions):
        file = self.folder / f"{len(versions)}_packages.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        return file

    def _google(self):
        (self.packages / "google" / "colab").mkdir(parents=True)
        (self.packages / "google" / "colab" / "__init__.py").touch()
        (self.packages / "google" / "colab" / "drive.py").write_text(DRIVE)
        startup = self.folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "colab.py").write_text("import google.colab\n")  # Colab's kernels come with it imported

    def _source(self):
        """This checkout as it is now, as a repository to clone."""
        source = self.folder / "source"
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "x"]):
            subprocess.run([*git, *words], cwd=source, check=True)
        return source

    def run(self, *words, **variables):
        env = self.variables | variables
        done = subprocess.run([self.python, *words], cwd=self.content, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def versions(self):
        return json.loads(self.run("-c", VERSIONS))

    def execute(self, name, cells, **variables):
        """Execute cells as a notebook in a new kernel in the working folder; what they printed."""
        import nbformat

        path = self.content / f"{name}.ipynb"
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), path)
        self.run("-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path), **variables)
        outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", ())]
        return "".join(out.get("text", "") for out in outputs)


def cells_of(name):
    """A committed notebook's cells, with the box of its setup cell ticked."""
    import nbformat

    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    assert "keep_on_drive = False" in cells[2].source
    cells[2].source = cells[2].source.replace("keep_on_drive = False", "keep_on_drive = True")
    return cells


def shell(command):
    """A cell that gives a command, as `!` does."""
    import nbformat

    return nbformat.v4.new_code_cell(f"get_ipython().system({command!r})")


@pytest.fixture
def machine(tmp_path):
    try:
        yield Machine(tmp_path)
    finally:
        shutil.rmtree(tmp_path / "env", ignore_errors=True)  # 5 GB


@pytest.mark.colab
def test_the_notebooks_and_a_batch_run_beside_colabs_versions_and_a_new_machine_goes_on_from_drive(machine):
    import nbformat

    before = machine.versions()
    assert not {"papermill", "snakemake", "synthlib"} & set(before)
    setup = cells_of("01_generate")[2]
    check = nbformat.v4.new_code_cell("import papermill\nprint(synthlib.__file__)")  # without a restart
    said = machine.execute("setup", [setup, check], PIP_CONSTRAINT=str(machine.not_there))
    assert "Runs are kept in" in said and str(machine.content / "kit" / "synthlib" / "__init__.py") in said
    after = machine.versions()
    assert {name: after.get(name) for name in before} == before, "a package of Colab's changed"
    new = {name: version for name, version in after.items() if name not in before}
    assert {"papermill", "synthlib"} <= set(new)
    told = ("ipython", "ipykernel", "jupyter_client", "torch", "diffusers", "timm", "numpy", "pandas", "nbconvert")
    print(f"\n{machine.run('--version').strip()};", ", ".join(f"{name} {before[name]}" for name in told))
    print("installed beside them:", ", ".join(f"{name} {version}" for name, version in sorted(new.items())))

    for name in NOTEBOOKS:  # each in a kernel of its own, as opened one after the other
        said = machine.execute(name, cells_of(name))
        assert "Installing" not in said and "receipt written" in said
    kit, drive = machine.content / "kit", machine.content / "drive" / "MyDrive" / "synthlib"
    assert len(list(kit.glob("papermill_runs/interactive/**/receipt.json"))) == len(NOTEBOOKS)

    reproduce = "synthlib reproduce tiny --cores 2"
    said = machine.execute("batch", [setup, shell(reproduce), shell("synthlib engine"), shell(reproduce)])
    refused, _, said = said.partition("Installing Snakemake")
    assert "nothing else changes: synthlib engine" in refused and "4 of 4 steps" not in refused, refused
    assert "4 of 4 steps to do" in said and "Page:" in said, said
    assert machine.versions() == after
    assert (kit / "figures/tiny/report.html").is_file()
    kept = {path.relative_to(drive): path.stat().st_mtime_ns for path in drive.rglob("*.parquet")}
    assert kept and not [path for path in drive.rglob("*") if path.name.startswith((".", "part-"))]

    shutil.rmtree(kit)  # a new machine: nothing is there but Drive, no Snakemake either
    said = machine.execute("again", [setup, shell(reproduce)])
    assert "came back from" in said and "All 4 steps are done; nothing is run." in said, said
    assert {path.relative_to(drive): path.stat().st_mtime_ns for path in drive.rglob("*.parquet")} == kept
    assert (kit / "figures/tiny/report.html").is_file()
    machine.run("-m", "synthlib.cli", "report", "tiny")


def test_a_requirement_that_cannot_be_met_is_named_in_one_line(monkeypatch):
    said = (
        "ERROR: Cannot install synthlib because these package versions have conflicting dependencies.\n\n"
        "The conflict is caused by:\n    timm 1.0 depends on diffusers>=0.2 and <2\n"
        "    synthlib 0.1.0 depends on diffusers>=0.35\n"
        "    The user requested (constraint) diffusers==0.30.0\n"
    )
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(colab, "is_installed", lambda: False)
    monkeypatch.setattr(colab.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError) as caught:
        colab.install()
    text = str(caught.value)
    assert "synthlib 0.1.0 depends on diffusers>=0.35" in text and "diffusers==0.30.0" in text and "\n" not in text
    assert "timm" not in text


def test_all_that_is_installed_constrains_pip_but_what_pip_could_not_read(monkeypatch):
    class Found:
        def __init__(self, name, version):
            self.metadata = {"Name": name, "Version": version}

    found = [Found("Jinja2", "3.1.6"), Found("torch", "2.11.0+cu128"), Found("a_b", "1"), Found("jinja2", "2.0"),
             Found("ubuntu-thing", "1.2ubuntu3"), Found(None, "1"), Found("synthlib", "0.1.0")]  # fmt: skip
    monkeypatch.setattr(colab, "distributions", lambda: found)
    assert colab.installed() == {"jinja2": "3.1.6", "torch": "2.11.0+cu128", "a-b": "1"}


def test_a_checkout_whose_installation_was_cut_off_does_not_count_as_installed(tmp_path, monkeypatch):
    (tmp_path / "synthlib.egg-info").mkdir()
    (tmp_path / "synthlib.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: synthlib\nVersion: 0.1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not colab.is_installed()
    (tmp_path / "synthlib-0.1.0.dist-info").mkdir()
    (tmp_path / "synthlib-0.1.0.dist-info" / "METADATA").write_text("Name: synthlib\nVersion: 0.1.0\n")
    (tmp_path / "synthlib-0.1.0.dist-info" / "INSTALLER").write_text("pip\n")
    assert colab.is_installed()


def test_the_guide_names_the_versions_tested():
    guide = (ROOT / "docs" / "colab.md").read_text()
    for name in ("IPython", "ipykernel", "jupyter_client", "torch", "diffusers", "timm", "numpy", "pandas"):
        assert f"{name} {listed()[plain(name)]}" in " ".join(guide.split()), name
