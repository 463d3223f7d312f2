"""Engine: the Python that starts Snakemake. It need not be this one: Snakemake can have an environment of its own."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from synthlib import paths
from synthlib.colab import conflict
from synthlib.inputs import InputError

VARIABLE = "SYNTHLIB_ENGINE"  # a Python to start Snakemake with, instead of those that are looked at by default
PLUGIN = "snakemake-executor-plugin-"
LOOK = "import sys, importlib.util as u; print(*[name for name in sys.argv[1:] if u.find_spec(name) is None])"


def engine_python(executor: str) -> str:
    """The Python that has Snakemake and what it needs for an executor, such as local or slurm.

    That is $SYNTHLIB_ENGINE if it is set; else this one or, if it lacks something, that of the engine's own environment.
    InputError: there is none.
    """
    needed = ["snakemake"] + ([PLUGIN + executor] if executor != "local" else [])
    named = os.environ.get(VARIABLE, "")
    found = shutil.which(os.path.expanduser(named)) if named else ""
    pythons = [os.path.abspath(found)] if found else [] if named else [sys.executable, str(_own_python())]
    lacking = {python: _lacking(python, needed) for python in pythons}
    for python, names in lacking.items():
        if not names:
            return python
    if named:
        raise InputError(f"{VARIABLE} is {named!r}; expected a Python that has {' and '.join(needed)}, or unset it.")
    for python, names in lacking.items():
        if "snakemake" not in names:
            raise InputError(
                f"executor is {executor!r}, which is not installed. If that name is right: synthlib engine installs Slurm's, and "
                f"this any other: {sys.executable} -m pip --python {python} install {needed[-1]}"
            )
    raise InputError(
        "Snakemake, which runs the steps, is not installed. This installs it, in an environment of its own, so that nothing "
        "else changes: synthlib engine"
    )


def engine_environment(python: str) -> dict[str, str]:
    """The environment variables for the engine's Python: PYTHONPATH may hold packages of this one's, and of its version."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or python == sys.executable}


def set_up() -> None:
    """Make the engine's own environment: Snakemake and the executor of profiles/slurm, in the versions of constraints.txt.

    InputError, and nothing is left of it: pip failed, or the folder cannot be written.
    """
    home, python = paths.engine_home(), str(_own_python())
    if not _lacking(python, ["snakemake", f"{PLUGIN}slurm"]):
        print(
            f"Snakemake is installed in {os.path.relpath(home)} already; remove that folder to have it installed anew."
        )
        return
    print(f"Installing Snakemake in {os.path.relpath(home)}, an environment of its own: about a minute.", flush=True)
    # This Python's pip: Debian's and Colab's may be unable to give a new environment one of its own.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--disable-pip-version-check"]
    try:
        project = tomllib.loads((paths.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pip += ["--constraint", str(paths.root() / "constraints.txt"), *project["optional-dependencies"]["slurm"]]
        venv.EnvBuilder(clear=True, symlinks=True).create(home)
        done = subprocess.run(pip, env=engine_environment(python), capture_output=True, text=True)
        if done.returncode:
            raise InputError(
                f"pip could not install Snakemake: {conflict(done.stdout + done.stderr)}; mend that and try once more."
            )
    except BaseException as error:
        shutil.rmtree(home, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot make {home}: {error}; expected a checkout of the kit that can be written.")
        raise
    print("Snakemake is installed; synthlib reproduce finds it there.")


def _own_python() -> Path:
    return paths.engine_home() / "bin" / "python"


def _lacking(python: str, names: list[str]) -> list[str]:
    """Those of some distributions whose module a Python does not find; all, if it cannot be started."""
    modules = {name.replace("-", "_"): name for name in names}
    try:
        look = [python, "-c", LOOK, *modules]
        done = subprocess.run(look, env=engine_environment(python), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return names
    return [modules[module] for module in done.stdout.split()]
