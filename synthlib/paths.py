"""Every folder of the kit, named once. Relative paths mean: below the project's root, wherever a notebook is started."""

import os
from functools import cache
from pathlib import Path

STEPS = ("01_generate", "01b_filter", "02_train", "03_eval", "04_figures")


@cache
def root() -> Path:
    """The project's root: $SYNTHLIB_ROOT, else the checkout this package lies in, else the working folder."""
    if os.environ.get("SYNTHLIB_ROOT"):
        return Path(os.environ["SYNTHLIB_ROOT"]).resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def resolve(path: str | Path) -> Path:
    """`path` made absolute: a relative one is below the root."""
    return root() / path


def typed(path: str | Path) -> Path:
    """A path as somebody typed it: below the working folder or, where only that is there, below the root."""
    return resolve(path) if not Path(path).exists() and resolve(path).exists() else Path(path).absolute()


def below_root(path: Path) -> str:
    """A path as parameters name it: below the root where it lies there, else whole."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else str(path)


def kept_beside(outdir: Path) -> Path:
    """Where `synthlib generate` keeps the shards and records of its OUTDIR: in there ImageFolder would take it for a class."""
    return outdir.parent / f".{outdir.name}.synthlib"


def package() -> Path:
    """The folder of the package's own sources."""
    return Path(__file__).resolve().parent


def notebook(step: str) -> Path:
    """The committed notebook of a step, e.g. "01_generate"."""
    return root() / "notebooks" / f"{step}.ipynb"


def experiment_file(name: str) -> Path:
    """The YAML of an experiment."""
    return root() / "experiments" / f"{name}.yaml"


def experiment_names() -> list[str]:
    """The experiments there are: every YAML beside them but those that tell of tables, claims, protocols and prompts."""
    others = {"results", "protocols", "clip_prompts", "claims"}
    return sorted(path.stem for path in (root() / "experiments").glob("*.yaml") if path.stem not in others)


def results_file() -> Path:
    """The YAML that defines each table and figure."""
    return root() / "experiments" / "results.yaml"


def protocols_file() -> Path:
    """The YAML of the named ways to train a classifier."""
    return root() / "experiments" / "protocols.yaml"


def prompts_file(dataset: str) -> Path:
    """The YAML of the prompts of each class of a data set, for the trick prompt_list; few data sets have one."""
    return root() / "experiments" / "prompts" / f"{dataset}.yaml"


def claims_file() -> Path:
    """The YAML of the signs that the paper's claims have, by data set."""
    return root() / "experiments" / "claims.yaml"


def published_file() -> Path:
    """The CSV of every published number we may print, with its source."""
    return root() / "experiments" / "published.csv"


def dataset_files() -> dict[str, Path]:
    """The YAML of each data set, by name."""
    return {path.stem: path for path in sorted((root() / "experiments" / "datasets").glob("*.yaml"))}


def data_home() -> Path:
    """The folder of downloaded data sets: $SYNTHLIB_DATA, else data/ below the root. Not in git."""
    return Path(os.environ["SYNTHLIB_DATA"]).absolute() if os.environ.get("SYNTHLIB_DATA") else root() / "data"


def engine_home() -> Path:
    """Snakemake's own environment, if `synthlib engine` made one: .engine/ below the root. Not in git."""
    return root() / ".engine"


def embedded_model() -> Path:
    """The text-to-image checkpoint that comes with the package."""
    return package() / "pocket" / "weights"


def reference_dir(experiment: str) -> Path:
    """The committed run of an experiment, that others are compared with."""
    return root() / "figures" / "reference" / experiment


def figures_dir(experiment: str) -> Path:
    """Where an experiment's tables, figures and page go."""
    return root() / "figures" / experiment


def report_file(experiment: str) -> Path:
    """The page that shows all of an experiment."""
    return figures_dir(experiment) / "report.html"


def figures_receipts(experiment: str) -> list[Path]:
    """The receipts of an experiment's runs of 04_figures, by hand without a folder of its own."""
    folder = root() / "papermill_runs" / experiment / "04_figures"
    return [path for path in [folder / "receipt.json", *sorted(folder.glob("*/receipt.json"))] if path.is_file()]


def referee_weights() -> Path:
    """The network behind the feature space pocket-referee-v1."""
    return package() / "pocket" / "referee.safetensors"


def run_dir(experiment: str, step: str, *condition: str) -> str:
    """The folder of one step, below the root: papermill_runs/<experiment>/<step>/<condition>."""
    return "/".join(["papermill_runs", experiment, step, "-".join(condition)]).rstrip("/")


def part_dir(set_dir: str, place: int, parts: int) -> str:
    """The folder of a run that draws only a part of a set: <set_dir>/parts/<place>-of-<parts>."""
    return f"{set_dir}/parts/{place}-of-{parts}"


def baseline_results() -> list[Path]:
    """The rows that `synthlib baseline clip` left where it writes by default, in order."""
    return sorted(baselines_dir().glob("clip/*/results.csv"))


def baselines_dir() -> Path:
    """Where `synthlib baseline` writes by default."""
    return root() / "papermill_runs" / "baselines"


def finished(experiment: str, step: str) -> list[str]:
    """The folders of an experiment's finished runs of one notebook, below the root, in order."""
    receipts = (root() / "papermill_runs" / experiment / step).glob("*/receipt.json")
    return sorted(path.parent.relative_to(root()).as_posix() for path in receipts)
