"""Colab: what the setup cell does there: install what is missing and change nothing, and keep runs on Drive."""

import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from synthlib import mirror, paths
from synthlib.inputs import InputError

ON_DRIVE = "MyDrive/synthlib"
# A version as a constraints file may have it (PEP 440): Ubuntu's own packages have others, and pip would stop at those.
VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?", re.I)
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.I)


def set_up(keep: bool) -> None:
    """All of the setup cell on Colab: install what is missing and, with `keep`, keep runs on Drive."""
    install()
    if keep:
        keep_on_drive()


def install() -> None:
    """Install the kit and what it needs beside all that is there, of which no version changes.

    pip gets every installed distribution with its version as a constraint: Colab's kernel runs on old versions of Jupyter's
    packages, and replacing them, or what is imported already, breaks a running session. InputError: there is no such set.
    """
    if is_installed():
        return
    print("Installing what is missing, a minute or two; nothing that is there already changes.", flush=True)
    with tempfile.TemporaryDirectory(prefix="synthlib-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed().items())))
        # not --quiet, which would hide what conflicts
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        pip += ["--constraint", str(constraints), "--editable", str(paths.package().parent)]
        done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"pip found no versions that fit beside Colab's: {conflict(done.stdout + done.stderr)}; expected that all of the "
            "kit's requirements can be met without changing an installed package: choose another runtime version (Runtime > "
            "Change runtime type), or install by hand and restart the session."
        )


def is_installed() -> bool:
    """Whether pip has finished installing the kit, which comes after all that it needs."""
    # A checkout on the path has metadata of its own, the sources' egg-info, also where the installation was cut off.
    return any(found.read_text("INSTALLER") for found in distributions(name="synthlib"))


def installed() -> dict[str, str]:
    """Name -> version of each installed distribution, of those found twice the one that Python imports."""
    found: dict[str, str] = {}
    for one in distributions():
        name, version = one.metadata["Name"] or "", one.metadata["Version"] or ""
        if NAME.fullmatch(name) and VERSION.fullmatch(version):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return {name: version for name, version in found.items() if name != "synthlib"}


def conflict(said: str) -> str:
    """Which requirements cannot be met together, in what pip said, as one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    asked = [line for line in lines if line.startswith("The user requested (constraint)")]
    depends = [line for line in lines if " depends on " in line]
    depends = [line for line in depends if _excludes(line, asked)] or depends  # pip tells innocent ones, too
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return " / ".join((asked + depends if depends else errors or lines[-1:])[:6])


def _excludes(depends: str, asked: list[str]) -> bool:
    """Whether "a 1.0 depends on b<2 and >=1" excludes one of such as "The user requested (constraint) b==3"."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    pairs = [line.split()[-1].split("==", 1) for line in asked if "==" in line]
    versions = {canonicalize_name(name): version for name, version in pairs}
    try:
        wanted = Requirement(depends.partition(" depends on ")[2].partition(";")[0].replace(" and ", ","))
    except InvalidRequirement:
        return False
    version = versions.get(canonicalize_name(wanted.name))
    return version is not None and not wanted.specifier.contains(version, prereleases=True)


def keep_on_drive() -> None:
    """Mount Drive, let each finished file of a run be copied there, and bring back what an earlier session left."""
    from google.colab import drive

    mounted = paths.root().parent / "drive"  # /content/drive, as Colab's own button has it
    folder = mounted / ON_DRIVE
    try:
        drive.mount(str(mounted))
        folder.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # Colab raises ValueError where it was not allowed, and others may come
        raise InputError(f"cannot write {folder}: {error}; expected a mounted Drive, allow it when asked.")
    os.environ[mirror.VARIABLE] = str(folder)  # commands started from this notebook, such as !synthlib, inherit it
    print(f"Runs are kept in {folder}.", flush=True)
    mirror.catch_up()
    mirror.bring_back()
