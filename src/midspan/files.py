"""Files and folders that are whole or absent: written aside, made durable, then renamed into place.

    .name.tmp-1234    what process 1234 is writing
    .name.old-1234    what stood there, between the two renames that replace a folder

What a killed process left is cleared by the next that writes `name`, and a folder whose replacement never came
is put back. Two machines must not write one name on a shared disk: the other's process would look dead.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    What stands in the place makes way where `replace` says so and is an InputError otherwise.
    """
    aside, old = _beside(folder)
    if os.path.lexists(folder) and not replace:
        raise InputError(f"{folder} is there already; choose another folder, or move it away")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
    try:
        yield aside
        for path in (*aside.rglob("*"), aside):
            fsync(path)
        if replace and os.path.lexists(folder):
            folder.rename(old)
        aside.rename(folder)  # fails where another process has filled the place since
        fsync(folder.parent)
    finally:
        _settle(folder, old)
        _remove(aside)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to write that replaces `path` only if the block ends well; InputError where none can be made."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    aside, _ = _beside(path)
    try:
        aside.touch()
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}); choose another place") from error
    try:
        yield aside
        fsync(aside)
        aside.replace(path)
        fsync(path.parent)
    finally:
        _remove(aside)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, whole or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON document, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def locked(lock: Path, refusal: str) -> Iterator[None]:
    """Nobody else is in such a block of this file meanwhile; the lock goes with the process, however it ends.

    Where a file system has no locks (some of those of clusters), there is none and the block runs all the same.

    Raises:
        InputError: with `refusal`, where another process is.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(refusal) from None
        except OSError:
            pass
        yield


def _beside(path: Path) -> tuple[Path, Path]:
    """This process's two names beside a path, once the remains of dead ones are cleared."""
    stem = f".{path.name}."
    for left in path.parent.glob(f"{glob.escape(stem)}*"):
        found = re.fullmatch(r"(tmp|old)-(\d{1,9})", left.name.removeprefix(stem))
        if found and (int(found[2]) == os.getpid() or not _is_alive(int(found[2]))):
            _remove(left) if found[1] == "tmp" else _settle(path, left)
    return path.parent / f"{stem}tmp-{os.getpid()}", path.parent / f"{stem}old-{os.getpid()}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _settle(folder: Path, old: Path) -> None:
    """Remove what was replaced once the new folder stands, put it back where none does."""
    if os.path.lexists(folder):
        _remove(old)
    elif os.path.lexists(old):
        old.rename(folder)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # no file: a folder, which is gone, or nothing
        path.unlink()
