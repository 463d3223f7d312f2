"""Every command of a guide is typed as it stands there, in order, in one folder; what is not says why."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_downloads import png, serve
from test_exchange import write_folder

from synthlib.data.datasets import read_spec

BLOCK = re.compile(r"(?P<reason><!--[^>]*-->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```", re.S)


def blocks(page):
    """(kind, text, why it is not run or "") of each block of commands."""
    found = [(m["kind"], m["text"], m["reason"] or "") for m in BLOCK.finditer((ROOT / "docs" / page).read_text())]
    assert len(found) == (ROOT / "docs" / page).read_text().count("\n```") // 2, "a block of another kind"
    return found


def type_all(page, root, **environment):
    """Run a page's blocks in `root`; everything that they printed."""
    bin_dir = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{bin_dir}:{os.environ['PATH']}", "SYNTHLIB_ROOT": str(root)} | environment
    said = ""
    for kind, text, reason in blocks(page):
        if reason:
            assert re.fullmatch(r"<!-- not run [^:]*: .+-->\n", reason), reason
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        said += done.stdout
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return said


@pytest.mark.runs
def test_the_guide_to_exchanging_sets(own_root, record_server):
    serve(record_server, "cifar10_generated_class_prompt_32A")
    write_folder(own_root / "my_images", {"cat": 3, "dog": 2})
    encoded = [png(32, label, 0, "RGB") for label in range(10)]
    np.savez(
        own_root / "my_cifar.npz",
        encoded=np.frombuffer(b"".join(encoded), np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)]),
        labels=np.arange(10),
        class_names=np.array(list(read_spec("cifar10").classes)),
    )
    said = type_all("exchange.md", own_root, HF_HOME=str(own_root / "cache"))
    assert "Fetching cifar10_generated_class_prompt_32A.tar.gz" in said
    assert (own_root / "papermill_runs/hosted/02_train/receipt.json").is_file()
    assert "['seven', 'three'] 12" in said  # ImageFolder and EuroSAT
    assert "['three', 'seven']" in said  # Hugging Face, and the .npz
    assert "own-class_prompt-three-r0-000000: same pixels" in said
    assert Image.open(own_root / "digits.png").width > 300 and Image.open(own_root / "redrawn.png").size == (32, 32)
    assert (own_root / "digits.json").is_file() and not list(own_root.glob("*.part"))
