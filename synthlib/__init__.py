"""synthlib: can a classifier be trained from class names alone? The kit that re-runs Shipard et al. (2023)."""

import warnings

__version__ = "0.1.0"
REPOSITORY = "https://github.com/synthlib/synthlib"  # as in pyproject.toml; servers are told it

# tqdm's, in a notebook without ipywidgets: libraries' bars are off there, and the kit's own are text.
warnings.filterwarnings("ignore", "IProgress not found")
