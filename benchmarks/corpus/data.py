"""Real code to measure on: the standard library, the packages installed beside Midspan, headers, and sdists."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

ENDINGS = (".py", ".pyi", ".pyx", ".h", ".hpp", ".c", ".cc", ".cpp", ".cu", ".cuh", ".js", ".ts", ".java", ".go")
LARGEST = 1 << 20
SDISTS = ("django", "sympy", "sqlalchemy", "networkx", "twisted", "cython", "celery", "nltk")
"""Permissively licensed projects, fetched by pip where what is installed is not enough."""


def folders() -> list[Path]:
    """Where code lies on this machine."""
    found = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platlib")), Path("/usr/include")]
    return [folder for folder in found if folder.is_dir()]


def files(megabytes: float) -> list[tuple[str, str, str]]:
    """At least so much code if there is any way to it: (repository, path, text), in a fixed order.

    A repository is a package: the first-level entry of a folder, or an sdist.
    """
    found: list[tuple[str, str, str]] = []
    size = 0
    for one in _everything():
        found.append(one)
        size += len(one[2])
        if size >= megabytes * 1e6:
            break
    return found


def _everything() -> Iterator[tuple[str, str, str]]:
    for folder in folders():
        for path in sorted(_paths(folder)):
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            below = path.relative_to(folder)
            if text and "\0" not in text:
                yield f"{folder.name}/{below.parts[0]}", str(below), text
    for project in SDISTS:
        yield from _sdist(project)


def _paths(folder: Path) -> Iterator[Path]:
    for below, names, found in os.walk(folder):
        names[:] = [name for name in names if name not in ("__pycache__", "site-packages")]
        for name in found:
            path = Path(below, name)
            if name.endswith(ENDINGS) and not path.is_symlink() and path.stat().st_size <= LARGEST:
                yield path


def _sdist(project: str) -> Iterator[tuple[str, str, str]]:
    """The code of a project's newest source distribution, kept in the user's cache."""
    folder = platformdirs.user_cache_path("midspan") / "benchmarks" / "sdists" / project
    if not list(folder.glob("*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder), project], check=False, capture_output=True)
    for archive in sorted(folder.glob("*.tar.gz")):
        with tarfile.open(archive) as members:
            for member in sorted(members.getmembers(), key=lambda m: m.name):
                if member.isfile() and member.name.endswith(ENDINGS) and member.size <= LARGEST:
                    held = members.extractfile(member)
                    try:
                        text = held.read().decode("utf-8") if held else ""
                    except UnicodeDecodeError:
                        continue
                    if text and "\0" not in text:
                        yield f"sdists/{project}", member.name.partition("/")[2], text
