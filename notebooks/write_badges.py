"""Write the public address from pyproject.toml into the notebooks and docs/colab.md (`make badges`); --check only compares."""

import re
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ADDRESS = re.compile(
    r"(?<=https://github\.com/)[\w.-]+/[\w.-]+|(?<=colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+"
)


def with_address(text: str, address: str) -> str:
    """A notebook's text with every link to the repository at `address`, such as https://github.com/owner/name."""
    return ADDRESS.sub(address.removeprefix("https://github.com/"), text)


def main() -> int:
    """Exit code 1 with --check if a file holds another address."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["tool"]["synthlib"]["repository"]
    changed = 0
    for path in [*sorted(FOLDER.glob("*.ipynb")), FOLDER.parent / "docs" / "colab.md"]:
        old = path.read_text(encoding="utf-8")
        if (new := with_address(old, address)) != old:
            changed += 1
            print(f"{path.name}: {'differs from' if '--check' in sys.argv else 'now at'} {address}")
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    return int("--check" in sys.argv and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
