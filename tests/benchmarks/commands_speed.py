"""The commands that only read: whole processes, in turns.

``python tests/benchmarks/commands_speed.py [--rounds 5] [--keep]``

The 500 records are the committed ones, and as many again of other seeds with numbers that are moved a little: the same
figures, of more runs. Every plot is drawn into an empty folder, every first listing finds an empty cache.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import RESULTS, Line, in_turns, keep, parser

RECORDS = 500


def with_seed(record: dict[str, Any], seed: int, generator: np.random.Generator) -> dict[str, Any]:
    """A record as another training might have left it: of another seed, its numbers moved a little."""
    by = float(generator.normal(0, 0.01))

    def moved(share: float | None) -> float | None:
        return None if share is None else min(1.0, max(0.0, share + by))

    other: dict[str, Any] = json.loads(json.dumps(record))
    other["key"] = generator.bytes(8).hex()
    other["provenance"] |= {"seed": seed, "weights_sha256": generator.bytes(32).hex()}
    for name in ("metrics", "keypoint_ap"):
        other[name] = {metric: moved(share) for metric, share in other[name].items()}
    other["ci95"] = {metric: [moved(low), moved(high)] for metric, (low, high) in other["ci95"].items()}
    for own in (other["diagnosis"] or {}).get("heights", []):
        own["ap"], own["ci95"] = moved(own["ap"]), own["ci95"] and [moved(end) for end in own["ci95"]]
    return other


def make(results: Path) -> None:
    """A folder of `RECORDS` records."""
    measured = [json.loads(path.read_bytes()) for path in sorted(RESULTS.glob("*/*/*/*.json"))]
    generator = np.random.default_rng(0)
    further = (with_seed(record, seed, generator) for seed in itertools.count(1) for record in measured)
    for record in itertools.islice(itertools.chain(measured, further), RECORDS):
        folder = results / record["protocol"]["dataset"] / record["call"]["res"] / record["call"]["name"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{record['key']}.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    given = parser(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results, figures, cache = folder / "results", folder / "figures", folder / "cache"
        make(results)

        def run(*words: str) -> None:
            command = [str(Path(sys.executable).with_name("lrbench")), *words]
            environment = {**os.environ, "LRBENCH_CACHE": str(cache)}
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

        def first_listing() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            run("ls")

        def plot() -> None:
            shutil.rmtree(figures, ignore_errors=True)
            run("plot", str(results), "--out", str(figures))

        sides = {
            "lrbench --help": lambda: run("--help"),
            LISTED[0]: first_listing,
            **{what: partial(run, *what.split()[1:]) for what in LISTED[1:]},
            PLOT: plot,
            f"lrbench report of {RECORDS} records": lambda: run("report", str(results)),
            f"lrbench report --html of {RECORDS} records": lambda: run(
                "report", str(results), "--html", str(folder / "html")
            ),
        }
        taken = in_turns(sides, given.rounds)
        files = sorted(figures.iterdir())
    lines = [
        Line(what=what, bar=BARS.get(what, ""), rounds=rounds, unit="s", **SAID.get(what, {}))
        for what, rounds in taken.items()
    ]
    keep("commands", lines, write=given.keep, further={"records": RECORDS, "files drawn": len(files)})


PLOT = f"lrbench plot of {RECORDS} records"
LISTED = tuple(f"lrbench ls{kind}" for kind in (", nothing kept yet", "", " backbones", " upscalers", " tables"))
BARS = {"lrbench --help": "<= 0.5", **dict.fromkeys(LISTED, "<= 1"), PLOT: "<= 5"}
SAID: dict[str, dict[str, str]] = {
    LISTED[0]: {
        "expected": "from 15 to 19 s to 0.5 s: what is built in ships as data, so that no network is built and torch "
        "not imported",
        "came": "As expected. `lrbench ls backbones`, `upscalers` and `tables` come from the same file and no longer "
        "wait for torch either.",
    },
    PLOT: {
        "expected": "from about 40 s to 5 s: one layout per figure instead of four (a third of the time), no torch (2 "
        "s), two processes, texts shaped once (half of what is left)",
        "came": "From 39 to 4.4 s on an idle machine, as SVG; with PNG (`--format both`) 5.7 s, so that is drawn where "
        "it is asked for. Beside other work both processes slow down, to 8 s and more.",
    },
}

if __name__ == "__main__":
    main()
