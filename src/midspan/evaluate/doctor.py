"""What is here and what is missing: data, languages, the jail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.registry import TASKS
from midspan.sandbox import Sandbox
from midspan.sandbox import doctor as language_rows


def examine(where: str | Path | None) -> dict[str, Any]:
    """Every task with what it lacks, every language with what brings it, and the jail.

    Args:
        where: the data folder, as of `--data`.
    """
    data = Data(where)
    tasks = []
    for name, entry in TASKS.items():
        lacking = {
            f"{source.file} ({source.origin})"
            for variant in entry.variants
            for source in entry.sources(variant)
            if where != "hub" and not data.has(source)
        }
        said = [f"data: {file}" for file in sorted(lacking)] + [f"--{need}" for need in entry.needs]
        tasks.append(
            {"task": name, "variants": list(entry.variants), "about": entry.about, "missing": "\n".join(said)}
        )
    try:
        with Sandbox(1) as sandbox:
            jail = f"jail: {sandbox.describe()['jail']}; `midspan sandbox check` tries it"
    except InputError as error:
        jail = f"no jail: {error}"
    return {"tasks": tasks, "languages": language_rows(), "jail": jail}
