"""A folder that is made over several runs: work that was killed goes on where it was.

    .rows.partial/     what is being made, with `identity` (what it is of) and a lock
    rows/              the whole, once everything is there

A whole folder is renamed into its place. What another identity left is cleared; what this one left is kept, also
when the work is interrupted, and bad input clears it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midspan.errors import InputError
from midspan.files import fsync, locked, write_text

_IDENTITY, _LOCK = "identity", "lock"


@contextmanager
def partial_folder(folder: Path, identity: str) -> Iterator[Path]:
    """The folder to go on with, renamed to `folder` when the block ends well.

    Raises:
        InputError: `folder` is there already, cannot be made, or another process is making it.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already; choose another folder, or move it away")
    aside = folder.parent / f".{folder.name}.partial"
    try:
        aside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
    with locked(aside / _LOCK, f"another process is making {folder}; wait for it, or stop it"):
        if not (aside / _IDENTITY).is_file() or (aside / _IDENTITY).read_text(encoding="utf-8") != identity:
            for left in aside.iterdir():
                if left.name != _LOCK:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            write_text(aside / _IDENTITY, identity)
        try:
            yield aside
        except InputError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        (aside / _IDENTITY).unlink()
        (aside / _LOCK).unlink()
        for path in (*aside.rglob("*"), aside):
            fsync(path)
        aside.rename(folder)  # fails where another process has filled the place since
        fsync(folder.parent)
