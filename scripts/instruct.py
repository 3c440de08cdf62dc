"""The embedded lineage's instruct stage in one command: data, training, and what it changed, with intervals.

    python scripts/instruct.py --data benchmarks

    runs/instruct-data           conversations (scripts/instruct_data.py)
    corpora/stdlib, corpora/prose    what is rehearsed: Python's standard library, and this repository's own pages
    runs/smol-adapter-instruct   the run of recipes/smol/adapter/instruct.toml, some five minutes on two cores
    runs/instruct-measured       `midspan eval` of the run beside its base, some ten minutes
    docs/results/instruct.json   its rows

What is there stays as it is, so an interrupted command goes on; remove a folder to have it made again. asyncio and
tomllib are held out, as they were when midspan-135m was trained.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from midspan.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RUN, MEASURED = Path("runs/smol-adapter-instruct"), Path("runs/instruct-measured")
LEFT_OUT = "test/*,*/test/*,tests/*,*/tests/*,*/site-packages/*,site-packages/*,idlelib/*,lib2to3/*"
TASKS = (
    ("mbpp:instruct", ("--limit", "60", "--max-tokens", "256")),
    ("red-team", ("--limit", "60", "--max-tokens", "128")),
    ("heldout", ("--per-kind", "20")),
)
KEPT = (
    *("row", "unit", "better", "n", "samples", "before", "before_interval", "ours", "interval"),
    *("difference", "difference_interval", "p"),
)


def midspan(*words: object) -> None:
    """One of Midspan's commands, from the repository's root."""
    subprocess.run([sys.executable, "-m", "midspan", *map(str, words)], check=True, cwd=ROOT)


def main() -> None:
    """All steps that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mbpp/ and humaneval/")
    data = parser.parse_args().data.resolve()
    os.chdir(ROOT)
    if not Path("runs/instruct-data/safety.jsonl").exists():  # what is written last
        script = [sys.executable, "scripts/instruct_data.py", "--data", str(data), "--out", "runs/instruct-data"]
        subprocess.run(script, check=True)
    clear = ("--decontaminate", data / "humaneval", "--decontaminate", data / "mbpp")
    if not Path("corpora/stdlib").exists():
        python = ("--languages", "python", "--held-out", "asyncio,tomllib", "--exclude", LEFT_OUT)
        midspan("corpus", "build", sysconfig.get_path("stdlib"), *python, *clear, "--out", "corpora/stdlib")
    if not Path("corpora/prose").exists():
        midspan("corpus", "build", "docs", "--languages", "markdown", *clear, "--out", "corpora/prose")
    if not (RUN / "model").exists():
        midspan("train", "recipes/smol/adapter/instruct.toml", *(("--resume",) if RUN.exists() else ()))
    for task, options in TASKS:
        where = ("--corpus", "corpora/stdlib", "--data", data, "--out", MEASURED)
        midspan("eval", RUN, "--base", "midspan-135m", "--tasks", task, *where, *options)
    found = json.loads((MEASURED / "results.json").read_text(encoding="utf-8"))
    write_json(ROOT / "docs" / "results" / "instruct.json", of(found))


def of(found: dict[str, Any]) -> dict[str, Any]:
    """The rows that are published: whole tasks, before and after."""
    rows = [{name: row[name] for name in KEPT if name in row} for row in found["rows"]]
    commands = [" ".join(("midspan eval", str(RUN), "--tasks", task, *options)) for task, options in TASKS]
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {"name": "instruct", "date": date, "commands": commands, "rows": rows}


if __name__ == "__main__":
    main()
