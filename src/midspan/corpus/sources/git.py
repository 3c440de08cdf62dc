"""A git repository at one commit: `git ls-tree` lists, one `git cat-file` a shard reads.

    commit ── ls-tree ──▶ (mode, blob, size, path) … ── cut ──▶ shards ── cat-file --batch ──▶ bytes

The revision is resolved once, so commits made while a corpus is built change nothing. A shard lists blob ids,
which name content: what is examined once holds until the blob changes, whatever clone it is read from.

A repository may come from anybody, so git is asked through plumbing that runs no hooks, with GIT_* variables
removed (inside a git hook they would point elsewhere), replacement objects off, and every transport closed by the
environment, which a repository's own configuration cannot overrule: reading a partial clone of an attacker's
would otherwise fetch through a command that its configuration names.

Left out on purpose: submodules (name them as sources) and the content of git LFS (a pointer is recorded).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from midspan.corpus.document import Reason
from midspan.corpus.sources.listing import Listed, cut, fingerprint, pack, unpack
from midspan.corpus.sources.source import (
    PROSE_LANGUAGE,
    File,
    Shard,
    Source,
    is_skipped,
    lfs_pointer,
    shard_name,
    shown,
    too_large,
)
from midspan.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GitRepository(Source):
    """The files of one commit."""

    label: str
    group: str
    root: Path
    """As shown to the user."""
    git_dir: Path
    """The folder (or `.git` file) that holds the objects."""
    commit: str
    prose: bool = False
    below: bytes = b""
    """Put before every path, for a repository that lies in a folder source."""

    def shards(self) -> Iterator[Shard]:
        """The commit's tree. InputError where git cannot list it, or the clone lacks files."""
        for chunk in cut(sorted(self._listed())):
            yield GitShard(
                source=self.label,
                name=shard_name(self.label, self.group, chunk[0].raw),
                fingerprint=fingerprint(chunk, "git", self.prose),
                size=sum(entry.size for entry in chunk),
                num_files=len(chunk),
                commit=self.commit,
                prose=self.prose,
                group=self.group,
                git_dir=self.git_dir,
                packed=pack(chunk),
            )

    def _listed(self) -> Iterator[Listed]:
        listing = _run(self.git_dir, "ls-tree", "-r", "-z", "-l", "--full-tree", self.commit)
        if b"promisor" in listing.stderr:
            raise InputError(
                f"{self.root} is a partial clone that lacks files of {self.commit[:12]}; "
                f"`git -C {self.root} fetch --refetch --no-filter` fetches them"
            )
        if listing.returncode:
            raise InputError(
                f"git cannot list {self.root}{_last_line(listing.stderr)}; run `git -C {self.root} fsck`, or "
                "clone it again"
            )
        for line in listing.stdout.split(b"\0")[:-1]:
            about, raw = line.split(b"\t", 1)
            mode, kind, blob, size = about.split()
            if is_skipped(raw):
                continue
            problem, detail, num_bytes = None, "", 0
            if kind == b"commit":
                problem, detail = Reason.SUBMODULE, f"at {blob.decode()}"
            elif not size.isdigit():
                problem, detail = Reason.UNREADABLE, f"git cannot read blob {blob.decode()}"
            else:
                num_bytes = int(size)
                problem = Reason.SYMBOLIC_LINK if mode == b"120000" else None
            yield Listed(self.below + raw, num_bytes, blob, problem, detail)


@dataclass(frozen=True, kw_only=True)
class GitShard(Shard):
    """Blobs of one commit."""

    group: str
    git_dir: Path
    packed: bytes

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """Read the wanted blobs through one `git cat-file`."""
        entries = unpack(self.packed)
        reads = [
            entry.problem is None and entry.size <= max_bytes and (self.prose or wanted(shown(entry.raw)))
            for entry in entries
        ]
        blobs = _read_blobs(self.git_dir, [entry.key for entry, read in zip(entries, reads, strict=True) if read])
        try:
            for entry, read in zip(entries, reads, strict=True):
                problem, detail, data = entry.problem, entry.detail, None
                if read:
                    found = next(blobs)
                    if isinstance(found, str):
                        problem, detail = Reason.UNREADABLE, found
                    elif pointer := lfs_pointer(found):
                        problem, detail = Reason.NOT_A_FILE, pointer
                    else:
                        data = found
                elif problem is None and entry.size > max_bytes and (self.prose or wanted(shown(entry.raw))):
                    problem, detail = Reason.TOO_LARGE, too_large(entry.size, max_bytes)
                yield File(
                    group=self.group,
                    path=shown(entry.raw),
                    size=entry.size,
                    commit=self.commit,
                    data=data,
                    problem=problem,
                    detail=detail,
                    language=PROSE_LANGUAGE if self.prose else None,
                )
        finally:
            blobs.close()


def find_git_dir(root: Path) -> Path | None:
    """Where a folder's git objects are, if it is a repository: `.git` in it, or itself where it is bare."""
    if os.path.lexists(root / ".git"):
        return root / ".git"
    is_bare = os.path.isfile(root / "HEAD") and all(os.path.isdir(root / name) for name in ("objects", "refs"))
    return root if is_bare else None


def open_repository(
    root: Path,
    git_dir: Path,
    *,
    label: str,
    group: str,
    revision: str | None = None,
    prose: bool = False,
    below: bytes = b"",
) -> GitRepository:
    """The repository at a revision, HEAD if none is named. InputError where there is no such commit."""
    wanted = revision or "HEAD"
    known = _run(git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
    if known.returncode:
        raise InputError(
            f"{root} has no revision {wanted!r}{_last_line(known.stderr)}; "
            f"`git -C {root} log --all --oneline` lists its commits"
        )
    return GitRepository(
        label=label,
        group=group,
        root=root,
        git_dir=git_dir,
        commit=known.stdout.decode().strip(),
        prose=prose,
        below=below,
    )


def _read_blobs(git_dir: Path, blobs: Sequence[bytes]) -> Generator[bytes | str, None, None]:
    """Each blob's bytes, or what is wrong with it. A damaged one ends git, so a new one goes on behind it."""
    position = 0
    while position < len(blobs):
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told:
            asked.write(b"".join(blob + b"\n" for blob in blobs[position:]))
            asked.seek(0)
            try:
                process = subprocess.Popen(
                    [*_command(git_dir), "cat-file", "--batch", "--buffer"],
                    stdin=asked,  # a file: a pipe that both sides fill would stop both
                    stdout=subprocess.PIPE,
                    stderr=told,
                    env=_environment(),
                    bufsize=1 << 16,
                )
            except FileNotFoundError:
                raise _not_installed(git_dir) from None
            assert process.stdout is not None
            try:
                while position < len(blobs):
                    found = _next_blob(process.stdout)
                    if found is None:
                        break
                    yield found
                    position += 1
            finally:
                process.kill()
                process.communicate()
            if position < len(blobs):
                if not os.path.lexists(git_dir):
                    raise InputError(f"{git_dir} is gone since it was listed; run the same command again")
                told.seek(0)
                yield f"git cannot read blob {blobs[position].decode()}{_last_line(told.read())}"
                position += 1


def _next_blob(answers: IO[bytes]) -> bytes | str | None:
    """The next answer of `git cat-file --batch`, or None where it broke off."""
    header = answers.readline().split()
    if len(header) == 2:
        return f"git has no blob {header[0].decode()}"
    if len(header) != 3:
        return None
    size = int(header[2])
    data = answers.read(size + 1)
    return data[:-1] if len(data) == size + 1 else None


def _run(git_dir: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [*_command(git_dir), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
        )
    except FileNotFoundError:
        raise _not_installed(git_dir) from None


def _not_installed(git_dir: Path) -> InputError:
    return InputError(f"{git_dir} is a git repository and git is not installed; install git, or export the files")


def _command(git_dir: Path) -> list[str]:
    return ["git", "--no-pager", f"--git-dir={git_dir}"]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f" ({lines[-1]})" if lines else ""
