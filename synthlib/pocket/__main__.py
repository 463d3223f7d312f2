"""`python -m synthlib.pocket`: rebuild corpus, weights and referee from a seed, then check them."""

import argparse
import dataclasses
from pathlib import Path

from synthlib import digests
from synthlib.pocket.build import BuildSettings, build
from synthlib.pocket.check import check
from synthlib.pocket.referee import RefereeSettings, train_referee


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m synthlib.pocket", description=__doc__)
    parser.add_argument(
        "--outdir", type=Path, required=True, help="folder for weights/, referee, their sha256, records, check"
    )
    parser.add_argument("--no-check", action="store_true", help="leave out the check (two to five minutes)")
    parser.add_argument("--check-only", action="store_true", help="check what lies in --outdir; train nothing")
    parser.add_argument("--referee-glyphs", type=int, default=RefereeSettings.glyphs)
    for field in dataclasses.fields(BuildSettings):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=field.type, default=field.default, help=f"default {field.default}")
    given = parser.parse_args(arguments)
    settings = BuildSettings(**{field.name: getattr(given, field.name) for field in dataclasses.fields(BuildSettings)})

    if not given.check_only:
        fresh = min(RefereeSettings.validation_glyphs, given.referee_glyphs)
        referee = RefereeSettings(settings.seed + 1_000, given.referee_glyphs, fresh)
        print("referee:", train_referee(given.outdir, referee), flush=True)
        record = build(given.outdir, settings, lambda line: print(line, flush=True))
        digests.write_sums(given.outdir)
        print(f"weights: {record['bytes']:,} bytes in {record['seconds']} s")
    if not given.no_check:
        result = check(given.outdir, settings.glyphs, settings.seed)
        for name, passed in result["passed"].items():
            print(f"{'pass' if passed else 'FAIL'}  {name}")


if __name__ == "__main__":
    main()
