"""Files and folders that are whole or absent: written aside, made durable, then renamed into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midspan.errors import InputError


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write into that takes its place only if the block ends well; otherwise nothing stays.

    Args:
        folder: where it is to stand.
        replace: put it in place of a folder that stands there; without it that is an InputError.
    """
    if os.path.lexists(folder) and not replace:
        raise InputError(f"{folder} is there already; choose another folder, or move it away")
    aside = folder.parent / f".{folder.name}.tmp-{os.getpid()}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
    try:
        yield aside
        for path in sorted(aside.rglob("*")):
            fsync(path)
        fsync(aside)
        old = folder.parent / f".{folder.name}.old-{os.getpid()}"
        if os.path.lexists(folder):
            folder.rename(old)
        aside.rename(folder)
        fsync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        fsync(aside)
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON document, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
