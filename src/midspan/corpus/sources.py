"""Where files come from: a plain folder, or a git repository at one commit.

    /data/packages          plain folder     group = first-level entry ("requests", "six.py")
    /data/app               git repository   group = "app", files of HEAD
    /data/app@v1.2          git repository   group = "app", files of that revision

A folder with `.git` at its root is read as HEAD's tracked files and never as the work tree: the result then
has a commit that names it, and build outputs, ignored files and a forgotten `.env` stay out. Uncommitted
changes stay out too; commit them first. A folder below a repository's root is a plain folder.

A source lists its files first (`entries`: names and sizes only) and reads one when asked (`read`). Git is
asked through plumbing that runs no hooks, with GIT_* variables removed (inside a git hook they would point
elsewhere) and all transports closed, so that a partial clone cannot reach the network.

Left out on purpose: following symbolic links (they lead out of the source or twice to one file), git LFS
(a pointer is a small text), submodules (name them as sources), and the folders in `SKIPPED`, which hold what
tools wrote or fetched: their files leave no row.
"""

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from midspan.corpus.document import Reason
from midspan.errors import InputError

SKIPPED = frozenset({b".git", b".hg", b".svn", b"__pycache__", b"node_modules", b".tox", b".venv"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file that a source lists. `raw` is its path below the source in bytes, `size` in bytes as found."""

    source: "Source"
    raw: bytes
    size: int
    blob: bytes = b""
    problem: Reason | None = None

    @property
    def path(self) -> str:
        """The path as text, bytes that are not UTF-8 as backslash escapes."""
        return self.raw.decode("utf-8", "backslashreplace")

    @property
    def group(self) -> str:
        """The unit that a held-out split keeps whole."""
        return self.source.group or self.path.split("/", 1)[0]


class Source:
    """A place that lists entries and reads them.

    `label` names it in every row; `group` is "" where each first-level entry is a group of its own.
    """

    label: str
    group: str = ""
    commit: str | None = None

    def entries(self) -> Iterator[Entry]:
        """Every file outside `SKIPPED`, in any order."""
        raise NotImplementedError

    def read(self, entry: Entry, limit: int) -> bytes | None:
        """At most `limit` bytes of a file, or None if it cannot be read (any more)."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what reading holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Folder(Source):
    """A plain folder; `excluded` is a folder inside it that is passed over (the corpus being built)."""

    def __init__(self, root: Path, name: str, excluded: Path) -> None:
        self.label = name
        self._root = os.fsencode(root)
        self._excluded = os.fsencode(excluded)

    def entries(self) -> Iterator[Entry]:
        """Walk the folder without following links; a folder that cannot be opened is one unreadable entry."""
        pending = [b""]
        while pending:
            below = pending.pop()
            try:
                found = list(os.scandir(os.path.join(self._root, below)))
            except OSError as error:
                if not below:
                    raise InputError(
                        f"source {os.fsdecode(self._root)!r} cannot be read ({error.strerror}); name another"
                    ) from None
                yield Entry(source=self, raw=below, size=0, problem=Reason.UNREADABLE)
                continue
            for item in found:
                raw = os.path.join(below, item.name)
                if item.name in SKIPPED or item.path == self._excluded:
                    continue
                if item.is_dir(follow_symlinks=False):
                    pending.append(raw)
                else:
                    yield self._entry(raw, item)

    def _entry(self, raw: bytes, item: "os.DirEntry[bytes]") -> Entry:
        try:
            status = item.stat(follow_symlinks=False)
        except OSError:
            return Entry(source=self, raw=raw, size=0, problem=Reason.UNREADABLE)
        problem = None
        if stat.S_ISLNK(status.st_mode):
            problem = Reason.SYMBOLIC_LINK
        elif not stat.S_ISREG(status.st_mode):
            problem = Reason.NOT_A_FILE
        return Entry(source=self, raw=raw, size=status.st_size, problem=problem)

    def read(self, entry: Entry, limit: int) -> bytes | None:
        """Read from the file system."""
        try:
            with open(os.path.join(self._root, entry.raw), "rb") as file:
                return file.read(limit)
        except OSError:
            return None


class GitRepository(Source):
    """The files of one commit. `git_dir` is the folder (or `.git` file) that holds the objects."""

    def __init__(self, root: Path, git_dir: Path, name: str, revision: str | None) -> None:
        self.group = name
        self.label = name if revision is None else f"{name}@{revision}"
        self._root = root
        self._git = ["git", "-c", "protocol.allow=never", f"--git-dir={git_dir}"]
        self._reader: subprocess.Popen[bytes] | None = None
        wanted = revision or "HEAD"
        known = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
        if known.returncode:
            raise InputError(
                f"{root} has no revision {wanted!r}{_last_line(known.stderr)}; "
                f"`git -C {root} log --all --oneline` lists its commits"
            )
        self.commit = known.stdout.decode().strip()

    def entries(self) -> Iterator[Entry]:
        """The commit's tree, from `git ls-tree`."""
        assert self.commit is not None
        listing = self._run("ls-tree", "-r", "-z", "-l", "--full-tree", self.commit)
        if listing.returncode:
            raise InputError(
                f"git cannot list {self._root}{_last_line(listing.stderr)}; run `git -C {self._root} fsck`"
            )
        for line in listing.stdout.split(b"\0")[:-1]:
            about, raw = line.split(b"\t", 1)
            mode, kind, blob, size = about.split()
            if SKIPPED.intersection(raw.split(b"/")):
                continue
            problem = None
            if kind == b"commit":
                problem = Reason.SUBMODULE
            elif mode == b"120000":
                problem = Reason.SYMBOLIC_LINK
            num_bytes = int(size) if size.isdigit() else 0  # "-" for a submodule, "BAD" for a damaged blob
            yield Entry(source=self, raw=raw, size=num_bytes, blob=blob, problem=problem)

    def read(self, entry: Entry, limit: int) -> bytes | None:
        """Read a blob through one `git cat-file --batch` that lives as long as the source."""
        if self._reader is None:
            self._reader = subprocess.Popen(
                [*self._git, "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        asked, answer = self._reader.stdin, self._reader.stdout
        assert asked is not None
        assert answer is not None
        try:
            asked.write(entry.blob + b"\n")
            asked.flush()
            _, _, size = answer.readline().split()
        except (
            BrokenPipeError,
            ValueError,
        ):  # a blob that is damaged ends the reader, one that is absent has no size
            raise InputError(
                f"git cannot read {entry.path!r} at {self.commit}; run `git -C {self._root} fsck`"
            ) from None
        return answer.read(int(size) + 1)[:-1][:limit]

    def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            self._reader.communicate()
            self._reader = None

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run([*self._git, *arguments], capture_output=True, env=_environment())
        except FileNotFoundError:
            raise InputError(
                f"{self._root} is a git repository and git is not installed; install git, or export the files"
            ) from None


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def open_sources(specs: Sequence[str], *, excluded: Path) -> list[Source]:
    """The sources that the user named, each `folder`, `repository` or `repository@revision`.

    A source is called by its folder's name, with as many parent folders as it takes to tell it from the
    others, so that rows are the same on every machine. InputError if one is absent, a file, or named twice.
    """
    if not specs:
        raise InputError("no source was named; name a folder or a git repository")
    parsed = [_parse(spec) for spec in specs]
    for spec, place in zip(specs, parsed, strict=True):
        if parsed.count(place) > 1:
            raise InputError(f"source {spec!r} is named twice; name it once")
    roots = {root for root, _ in parsed}
    sources: list[Source] = []
    for spec, (root, revision) in zip(specs, parsed, strict=True):
        git_dir = _git_dir(root)
        name = _short_name(root, roots)
        if git_dir is not None:
            sources.append(GitRepository(root, git_dir, name, revision))
        elif revision is None:
            sources.append(Folder(root, name, excluded))
        else:
            raise InputError(
                f"source {spec!r} asks for a revision, and {root} is no git repository; name the folder alone"
            )
    return sources


def _parse(spec: str) -> tuple[Path, str | None]:
    """Split `path@revision`; an `@` that belongs to an existing path is not a revision's."""
    cuts = [len(spec), *(index for index, letter in enumerate(spec) if letter == "@")]
    for cut in cuts:
        root = Path(spec[:cut]).expanduser().resolve()
        if spec[:cut] and root.is_dir():
            return (root.parent if root.name == ".git" else root), spec[cut + 1 :] or None
    if Path(spec).expanduser().is_file():
        raise InputError(f"source {spec!r} is a file; name its folder")
    raise InputError(f"source {spec!r} is not there; name a folder or a git repository on this machine")


def _git_dir(root: Path) -> Path | None:
    if (root / ".git").exists():
        return root / ".git"
    if (root / "HEAD").is_file() and (root / "objects").is_dir() and (root / "refs").is_dir():
        return root
    return None


def _short_name(root: Path, roots: set[Path]) -> str:
    """The fewest last parts of a path that no other source shares, without a bare repository's `.git`."""

    def tail(path: Path, depth: int) -> str:
        return "/".join(path.parts[-depth:]).removesuffix(".git")

    for depth in range(1, len(root.parts) + 1):
        if sum(tail(other, depth) == tail(root, depth) for other in roots) == 1:
            return tail(root, depth)
    raise InputError(f"source {str(root)!r} has the same name as another; rename one of the two folders")
