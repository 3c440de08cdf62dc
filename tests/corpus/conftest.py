"""Small sources that the corpus tests share."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Files = Mapping[str, bytes | str]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, Files], Path]:
    """A function that writes files (path to content) below `tmp_path / name` and returns that folder."""

    def write(name: str, files: Files) -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` with an author and without the user's configuration; what it printed."""
    names = {
        f"GIT_{role}_{what}": f"{role}@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=root, env=os.environ | names | alone, capture_output=True, check=True
    )
    return done.stdout.decode().removesuffix("\n")


def commit_all(root: Path, message: str) -> str:
    """Commit the whole work tree; the commit's hash."""
    if not (root / ".git").exists():
        git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")
