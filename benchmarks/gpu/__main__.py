"""`python -m benchmarks.gpu [--quick] [--minutes 10]`: right answers first, then speed, on one GPU.

From the source tree: `PYTHONPATH=src python -m benchmarks.gpu`. transformers, peft and flash-attn are peers where
they are installed. Without a GPU, or with --quick, the same code runs on tiny shapes on the CPU in seconds. What
is found goes to `benchmarks/results/gpu.json` after every row, so that a run that is cut off keeps it; the exit
code is 1 if an answer was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, speed

CASES = [
    ("135M", "lora", 4096, 4),
    ("1B", "full", 4096, 4),
    ("7B", "full", 4096, 1),
    ("7B", "lora", 4096, 2),
    ("7B", "lora", 16_384, 1),
    ("135M", "full", 4096, 4),
    ("1B", "lora", 4096, 4),
    ("1B", "full", 16_384, 1),
    ("135M", "full", 16_384, 1),
    ("7B", "full", 16_384, 1),
]
"""Shape, method, tokens of a row and rows of a pass, in the order of what is missed most if time runs out."""


def main(arguments: list[str] | None = None) -> int:
    """Check, time, write; the number of wrong answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does it run?")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names contain one of these")
    parser.add_argument("--contenders", nargs="*", default=[], help="of each row, by their whole names")
    parser.add_argument("--minutes", type=float, default=9.0, help="no new row is begun after this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "gpu.json")
    asked = parser.parse_args(arguments)
    begun = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = asked.quick or device.type == "cpu"
    results: dict[str, Any] = {
        "name": "gpu",
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "small": small,
        "checks": [],
        "rows": [],
    }

    def keep() -> None:
        results["seconds"] = time.monotonic() - begun
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    wrong = 0
    shape = "tiny" if small else "135M"
    for find in (
        lambda: checks.attention(device, 300 if small else 2048),
        lambda: checks.loss(device, 1000 if small else 32_016, 70 if small else 2000),
        lambda: checks.model(device, shape, 300 if small else 2048),
        lambda: checks.replay(device, shape, 300 if small else 2048),
        lambda: checks.learning(device, shape, 12 if small else 40, 200 if small else 2048),
    ):
        try:
            for check in find():
                wrong += not check.passed
                results["checks"].append(vars(check) | {"passed": check.passed})
                verdict = "ok   " if check.passed else "WRONG"
                print(f"{verdict} {check.name}: {check.error:.2g} (at most {check.limit:g})")
        except Exception as error:  # the other checks still tell something
            wrong += 1
            results["checks"].append({"failed": f"{type(error).__name__}: {error}"})
            print(f"WRONG {type(error).__name__}: {error}")
        keep()
    cases = [("tiny", "full", 256, 1), ("tiny", "lora", 256, 2)] if small else CASES
    for shape, method, tokens, rows in cases:
        name = f"{shape} {method} {rows} x {tokens:,} tokens"
        if asked.only and not any(word in name for word in asked.only):
            continue
        if time.monotonic() - begun > 60 * asked.minutes:
            results["rows"].append({"row": name, "skipped": "no time was left"})
            continue
        row = {"row": name} | speed.case(shape, method, tokens, rows, device, 2 if small else 5, asked.contenders)
        results["rows"].append(row)
        print(json.dumps(row))
        keep()
    keep()
    print(f"{wrong} wrong answers; written to {asked.out}")
    return wrong


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
