"""Reuse: images that are there already, found by their rows, so that none is ever drawn twice."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from synthlib import costly, paths
from synthlib.data.shards import read_table
from synthlib.inputs import InputError

GROUP = ("replicate", "trick", "class")
OWN = ("image_id", "prompt", "guidance_scale", "seed")


def identities(rows: pa.Table) -> list[tuple]:
    """What makes each row's image its own, beside the settings that all rows share."""
    return list(zip(*(rows[name].to_pylist() for name in OWN), strict=True))


class Existing:
    """Shards (and parts of shards) of one key, in some folders. Holds their index ranges, not their rows.

    verified: files whose bytes and key were just checked.
    """

    def __init__(self, folders: list[str | Path], key: costly.FileKey, verified: Collection[Path] = ()) -> None:
        self.verified = verified
        self.places: dict[tuple, list[tuple[int, int, Path]]] = {}
        self.opened: tuple[Path, pa.Table, dict[tuple, int]] | None = None
        self.key, self.seen = key, set()
        for path in (path for folder in folders for path in drawn_files(paths.resolve(folder))):
            self.look_at(path)

    def look_at(self, path: Path) -> None:
        """Take a file in, if it is there, whole and of the key."""
        if path not in self.seen and (path in self.verified or costly.is_current(path, self.key)):
            table = read_if_there(path, [*GROUP, "index"])
            for group, low, high in ranges(table) if table else ():
                self.seen.add(path)
                self.places.setdefault(group, []).append((low, high, path))

    def find(self, rows: pa.Table) -> list[dict | None]:
        """For each of some rows the whole row, with its image, that is there already; None where there is none."""
        found: list[dict | None] = [None] * len(rows)
        wanted = {row: number for number, row in enumerate(identities(rows))}
        for path in self._candidates(rows):
            if self.opened is None or self.opened[0] != path:
                table = read_if_there(path)
                if table is None:
                    continue
                self.opened = (path, table, {row: number for number, row in enumerate(identities(table))})
            _, table, there = self.opened
            for row in [row for row in wanted if row in there]:
                found[wanted.pop(row)] = table.slice(there[row], 1).to_pylist()[0]
        return found

    def _candidates(self, rows: pa.Table) -> list[Path]:
        """Files whose ranges overlap those of some rows, the one that is open first."""
        found = {}
        for group, low, high in ranges(rows):
            found |= {path: None for first, last, path in self.places.get(group, []) if first <= high and low <= last}
        return sorted(found, key=lambda path: (self.opened is None or self.opened[0] != path, path))


def drawn_files(folder: Path) -> list[Path]:
    """The shards in a folder, and what an interruption saved of shards that were being drawn."""
    return sorted(folder.glob("shard-*.parquet")) + sorted(folder.glob("part-*.parquet"))


def read_if_there(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """A shard's table; None where another worker has just tidied the file away."""
    try:
        return read_table(path, columns)
    except InputError:
        if path.is_file():
            raise
        return None


def ranges(table: pa.Table) -> Iterator[tuple[tuple, int, int]]:
    """(replicate, drawn trick, class), lowest and highest index, of each group that a table has rows of."""
    bounds = table.select([*GROUP, "index"]).group_by(list(GROUP)).aggregate([("index", "min"), ("index", "max")])
    for row in bounds.to_pylist():
        yield tuple(row[name] for name in GROUP), row["index_min"], row["index_max"]
