"""results.json: what was measured, of which model, on which machine, and the rows of every task.

    {"name": ..., "commit", "date", "hardware", "threads", "model": {...}, "before_model": {...} | null,
     "tasks": [{"task", "variant", "data", "decoding", "stops", "sandbox", "versions", ...}], "rows": [...]}

It is made of the summaries in the folder's tasks, so tasks that are measured one after the other into one folder
stand in one file. Rows are as `rows.py` says.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import midspan
from midspan.evaluate.journal import SUMMARY
from midspan.files import write_json

RESULTS = "results.json"
TASKS, BASE = "tasks", "tasks-base"
"""Folders of journals: the model's, and those of what it stands beside."""
_PACKAGES = ("torch", "numpy", "tokenizers", "rapidfuzz", "sacrebleu", "vaderSentiment", "sacremoses")


def write_results(out: Path) -> dict[str, Any]:
    """Make results.json of a folder's tasks, in the order of their names, and return it."""
    summaries: list[dict[str, Any]] = []
    for path in sorted((out / TASKS).glob(f"*/{SUMMARY}")):
        if "~" not in path.parent.name:
            summaries.append(json.loads(path.read_text(encoding="utf-8")))
    rows = [row for summary in summaries for row in summary.pop("rows")]
    latest: dict[str, Any] = max(summaries, key=lambda summary: str(summary["date"]), default={})
    results = {
        "name": Path((latest.get("model") or {}).get("model", out.name)).name,
        **{key: latest.get(key) for key in ("commit", "date", "hardware", "threads", "model", "before_model")},
        "seconds": round(sum(summary["seconds"] for summary in summaries), 1),
        "tasks": summaries,
        "rows": rows,
    }
    write_json(out / RESULTS, results)
    return results


def circumstances() -> dict[str, Any]:
    """Where and with what something is measured."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": {"midspan": midspan.__version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of Midspan's own checkout, or its version where it was installed from a package."""
    root = Path(midspan.__file__).parents[2]
    if (root / ".git").exists() and (root / "pyproject.toml").is_file():
        command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.strip()
    return f"v{midspan.__version__}"


def hardware() -> str:
    """Cores, processor and memory in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    processor = found[1].strip() if found else platform.processor() or platform.machine()
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    memory = f", {size / 2**30:.0f} GiB" if size else ""
    return f"{cores} core{'' if cores == 1 else 's'} {processor}{memory}"
