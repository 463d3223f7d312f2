# make reproduce: the paper in miniature. make test: the fast tests. Both set up what they need first, in .venv.
PYTHON ?= python3
VENV ?= .venv
EXPERIMENT ?= pocket
BIN = $(VENV)/bin

.PHONY: setup reproduce test test-all lint lab reference picture badges cells clean
reproduce: setup
	$(BIN)/synthlib reproduce $(EXPERIMENT)

test: setup
	$(BIN)/pytest -m "not slow and not runs and not realdata and not browser and not slurm and not colab"

test-all: setup
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: setup
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/01_generate.ipynb

# Commit a finished run as the one that others are compared with.
reference: setup
	$(BIN)/synthlib reproduce $(EXPERIMENT)
	mkdir -p figures/reference/$(EXPERIMENT)
	cp figures/$(EXPERIMENT)/*.png figures/$(EXPERIMENT)/*.csv figures/$(EXPERIMENT)/*.md figures/reference/$(EXPERIMENT)

# The picture of a page in the README, of a finished run.
picture:
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1400,1580 --screenshot=$(CURDIR)/docs/page.png file://$(CURDIR)/figures/pocket_full/report.html 2>/dev/null

badges: setup
	$(BIN)/python notebooks/write_badges.py

# The commands in docs/one_cell.md, from experiments/.
cells: setup
	$(BIN)/python -m synthlib.runs.cells docs/one_cell.md

setup: $(VENV)/.installed
	@test -z "$(filter setup,$(MAKECMDGOALS))" || echo "Set up. Next: make reproduce; or: source $(BIN)/activate, which puts synthlib on your path"

# Installed anew only when what is to be installed changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' || { echo "synthlib needs Python 3.11.4 to 3.13; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all]"
	@touch $@

clean:
	rm -rf papermill_runs figures/pocket figures/smoke figures/tiny figures/index.html
