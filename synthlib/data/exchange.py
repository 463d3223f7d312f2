"""Exchange: synthetic sets in the shape that others' code reads."""

from pathlib import Path

from synthlib.data.shards import read_table
from synthlib.receipts import write_atomic


def write_image_folder(shards: list[Path], outdir: Path) -> int:
    """Write OUTDIR/<class>/<image_id>.png, as the authors' create_dataset.py lays them out; return how many images.

    torchvision's ImageFolder reads it. Bytes are the shards'. Images that are there already stay, and are told of where
    these shards do not hold them.
    """
    count, there = 0, set(outdir.glob("*/*.png"))
    for shard in shards:
        for row in read_table(shard).select(["image", "class", "image_id"]).to_pylist():
            path = outdir / row["class"] / f"{row['image_id']}.png"
            if not path.is_file() or path.read_bytes() != row["image"]["bytes"]:
                write_atomic(path, row["image"]["bytes"])
            there.discard(path)
            count += 1
    if there:
        print(f"{len(there)} other images lie in {outdir}, from an earlier call; delete them if you do not want them.")
    return count
