"""Runs the cases and prints what was wrong: `python -m tests.faults.attack [PATTERN] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

HELPERS = Path(__file__).resolve().parents[2] / "helpers"


def main() -> int:
    """Return 0 if nothing was wrong with any case, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.attack", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", help="only cases whose name contains this expression")
    parser.add_argument("--quick", action="store_true", help="only the tenth that `make test` runs")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each case with its outcome, a line each")
    options = parser.parse_args()
    sys.path.append(str(HELPERS))
    from tests.faults.attack.catalog import find_cases, is_quick

    cases = [case for case in find_cases(options.pattern) if is_quick(case) or not options.quick]
    if options.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        return _meet_all(cases, Path(folder), options.json)


def _meet_all(cases, folder: Path, results: Path | None) -> int:
    from tests.faults.attack.catalog import empty_folder, make_shared
    from tests.faults.attack.keeper import Watcher, meet

    make_shared(folder / "shared")
    watcher = Watcher.start()
    failed, ends, started = 0, Counter(), time.monotonic()
    lines = results.open("w", encoding="utf-8") if results else None
    for case in cases:
        outcome, problems = meet(case, empty_folder(folder / "case"), folder / "shared", watcher)
        ends[outcome.code] += 1
        if problems:
            failed += 1
            print(f"{case.name}: {'; '.join(problems)}\n    {outcome.output[-600:]!r}", flush=True)
        if lines:
            print(json.dumps({"name": case.name, "problems": problems, **asdict(outcome)}), file=lines, flush=True)
    watcher.stop()
    spread = ", ".join(f"{code}: {count}" for code, count in sorted(ends.items()))
    print(f"{len(cases)} cases in {time.monotonic() - started:.0f} s, {failed} with problems; exit codes {spread}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
