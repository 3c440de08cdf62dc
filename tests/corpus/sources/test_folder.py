"""Folders as they are found: links, pipes, closed and vanishing files, names of any bytes, giant files."""

import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from corpus.conftest import commit_all, git
from corpus.sources.reading import MIB, contents, files, found, problems, shards
from midspan.corpus import Reason
from midspan.errors import InputError

NOBODY = 65534


@contextmanager
def without_privileges():
    """Run the block as a user whom permissions bind."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder():
    """A folder that any user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


def test_files_come_by_group_and_path_with_their_bytes(tree):
    given = {"b/z.py": "1", "b/a/x.py": "2\r\n", "b.py": b"\xff", "a.py": "", "b/a.py": "3"}
    read = files(tree("packages", given))
    assert [(file.group, file.path) for file in read] == [
        ("b", "b/a.py"),
        ("b", "b/a/x.py"),
        ("b", "b/z.py"),
        ("a.py", "a.py"),
        ("b.py", "b.py"),
    ]
    assert {file.path: file.data for file in read} == {
        path: text.encode() if isinstance(text, str) else text for path, text in given.items()
    }
    assert all(file.size == len(file.data) and file.commit is None for file in read)


def test_the_order_of_entries_on_disk_plays_no_part(tree, monkeypatch):
    names = [f"g{number % 3}/{number:03}.py" for number in range(200)]
    first = tree("x/packages", dict.fromkeys(names, "a"))
    second = tree("y/packages", dict.fromkeys(reversed(names), "a"))
    for root in (first, second):
        for path in root.rglob("*.py"):
            os.utime(path, ns=(1, 1))
    told = [[(shard.name, shard.fingerprint) for shard in shards(root)] for root in (first, second)]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    told.append([(shard.name, shard.fingerprint) for shard in shards(first)])
    assert told[0] == told[1] == told[2]


def test_a_shard_changes_with_its_files_and_with_no_others(tree):
    root = tree("packages", {f"{group}/{number}.py": "a" for group in "abc" for number in range(9)})

    def by_name():
        return {shard.name: shard.fingerprint for shard in shards(root)}

    before = by_name()
    (root / "b/3.py").write_text("b")  # of the same size
    os.utime(root / "b/3.py", ns=(5, 5))
    after = by_name()
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == [name for name in before if "-b-" in name]
    tree("packages", {"d/1.py": "new", "loose.py": "new"})
    assert after.items() <= by_name().items()


def test_groups_have_shards_of_their_own_and_loose_files_share(tree):
    root = tree("packages", {"a/1.py": "", "b/1.py": "", **{f"{number}.py": "" for number in range(100)}})
    groups = [{file.group for file in shard.files(lambda path: True, MIB)} for shard in shards(root)]
    assert [len(each) for each in groups] == [1, 1, 100]


def test_links_are_recorded_and_never_followed(tree):
    root = tree("app", {"src/a.py": "a = 1\n"})
    (root / "src/self").symlink_to(".")
    (root / "src/up").symlink_to("../..")
    (root / "loop").symlink_to("loop")
    (root / "link.py").symlink_to("src/a.py")
    (root / "gone.py").symlink_to("/nowhere")
    assert contents(root) == {"src/a.py": b"a = 1\n"}
    assert problems(root) == dict.fromkeys(
        ("src/self", "src/up", "loop", "link.py", "gone.py"), (Reason.SYMBOLIC_LINK, "")
    )


def test_what_is_no_file_is_never_opened(tree, monkeypatch):
    root = tree("app", {"g/a.py": "a = 1\n"})
    monkeypatch.chdir(root / "g")  # a socket's path must be short
    expected = {"g/pipe": "pipe", "g/socket": "socket"}
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        if os.geteuid() == 0:
            os.mknod("device", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero has no end
            expected["g/device"] = "device"
        assert problems(root) == {path: (Reason.NOT_A_FILE, kind) for path, kind in expected.items()}


def test_what_cannot_be_opened_is_recorded(tree, public_folder):
    for path in ("closed/a.py", "b/closed.py", "b/open.py", "half/a.py"):
        (public_folder / path).parent.mkdir(exist_ok=True)
        (public_folder / path).write_text("a = 1\n")
    (public_folder / "closed").chmod(0)
    (public_folder / "b/closed.py").chmod(0)
    (public_folder / "half").chmod(0o744)  # may be listed and not entered
    try:
        with without_privileges():
            assert contents(public_folder) == {"b/open.py": b"a = 1\n"}
            assert problems(public_folder) == dict.fromkeys(
                ("closed", "b/closed.py", "half/a.py"), (Reason.UNREADABLE, "Permission denied")
            )
            with pytest.raises(InputError, match=r"closed' cannot be read \(Permission denied\); name another"):
                shards(public_folder / "closed")
    finally:
        for name in ("closed", "half"):
            (public_folder / name).chmod(0o755)


def test_a_giant_is_too_large_without_being_read(tree):
    root = tree("app", {"g/a.py": "a = 1\n"})
    with (root / "g/giant.py").open("wb") as file:
        file.truncate(1 << 30)
    before = bytes_read()
    assert problems(root) == {"g/giant.py": (Reason.TOO_LARGE, "1073741824 bytes, more than 1048576")}
    assert bytes_read() - before < 100_000


def test_files_that_change_between_listing_and_reading(tree):
    root = tree("app", {f"g/{name}.py": "a = 1\n" for name in ("gone", "grew", "giant", "link", "pipe", "folder")})
    (shard,) = shards(root)
    for name in ("gone", "link", "pipe", "folder"):
        (root / f"g/{name}.py").unlink()
    (root / "g/grew.py").write_text("a = 1\nb = 2\n")
    (root / "g/giant.py").write_text("a" * 5000)
    (root / "g/link.py").symlink_to("/etc/passwd")
    os.mkfifo(root / "g/pipe.py")
    (root / "g/folder.py").mkdir()
    read = {file.path: file for file in shard.files(lambda path: True, 1000)}
    assert (read["g/grew.py"].data, read["g/grew.py"].size) == (b"a = 1\nb = 2\n", 12)
    assert {path: (file.problem, file.detail) for path, file in read.items() if file.data is None} == {
        "g/gone.py": (Reason.UNREADABLE, "No such file or directory"),
        "g/giant.py": (Reason.TOO_LARGE, "5000 bytes, more than 1000"),
        "g/link.py": (Reason.UNREADABLE, "Too many levels of symbolic links"),
        "g/pipe.py": (Reason.NOT_A_FILE, "pipe since it was listed"),
        "g/folder.py": (Reason.NOT_A_FILE, "folder since it was listed"),
    }


def test_a_source_that_is_gone_since_it_was_listed_is_said(tree):
    """A disk that was unmounted must not read as a corpus of unreadable files."""
    root = tree("app", {"g/a.py": "a = 1\n"})
    (shard,) = shards(root)
    root.rename(root.with_name("moved"))
    with pytest.raises(InputError, match="app is gone since it was listed; run the same command again"):
        list(shard.files(lambda path: True, MIB))


def test_names_of_any_bytes_and_case(tree):
    root = tree("app", {"g/a\nb.py": "1", "g/README": "2", "g/readme": "3", "g/ä.py": "4"})
    with open(os.fsencode(root) + b"/g/\xff.py", "w") as file:
        file.write("5")
    os.mkdir(os.fsencode(root) + b"/\xfe")
    with open(os.fsencode(root) + b"/\xfe/x.py", "w") as file:
        file.write("6")
    read = {file.path: (file.group, file.data) for file in files(root)}
    assert read == {
        "g/README": ("g", b"2"),
        "g/a\nb.py": ("g", b"1"),
        "g/readme": ("g", b"3"),
        "g/ä.py": ("g", b"4"),
        "g/\\xff.py": ("g", b"5"),
        "\\xfe/x.py": ("\\xfe", b"6"),
    }


def test_a_path_too_long_to_open_is_recorded(tree, monkeypatch):
    root = tree("app", {"g/a.py": "1"})
    monkeypatch.chdir(root / "g")
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    Path("deep.py").write_text("2")
    os.chdir(root)
    assert contents(root) == {"g/a.py": b"1"}
    ((path, problem),) = problems(root).items()
    assert problem == (Reason.UNREADABLE, "File name too long")
    assert len(path) > 3000


def test_what_tools_left_and_the_corpus_itself_are_passed_over(tree):
    root = tree(
        "app",
        {
            "g/a.py": "1",
            "g/__pycache__/a.pyc": "2",
            "node_modules/x/i.js": "3",
            ".venv/b.py": "4",
            "out/corpus.json": "5",
            ".out.tmp-77/corpus.json": "6",
            "g/out/b.py": "7",
            "outer/c.py": "8",
        },
    )
    assert contents(root, excluded=root / "out") == {"g/a.py": b"1", "g/out/b.py": b"7", "outer/c.py": b"8"}


def test_the_corpus_may_lie_deep_inside_its_source(tree):
    root = tree("app", {"g/a.py": "1", "g/h/out/b.py": "2", "g/h/.out.old-5/b.py": "3", "g/h/c.py": "4"})
    assert contents(root, excluded=root / "g/h/out") == {"g/a.py": b"1", "g/h/c.py": b"4"}


def test_unwanted_files_are_not_opened(tree):
    root = tree("app", {"g/a.py": "1", "g/b.bin": "x" * 500_000})
    before = bytes_read()
    assert contents(root, wanted=lambda path: path.endswith(".py")) == {"g/a.py": b"1"}
    assert bytes_read() - before < 100_000
    assert problems(root, wanted=lambda path: path.endswith(".py"), max_bytes=10) == {}


def test_git_repositories_inside_are_read_as_such(tree, tmp_path):
    root = tree("work", {"plain/a.py": "1", "app/src/a.py": "committed"})
    commit = commit_all(root / "app", "first")
    (root / "app/src/a.py").write_text("changed")
    (root / "app/new.py").write_text("untracked")
    git(tmp_path, "clone", "-q", "--bare", str(root / "app"), str(root / "copy.git"))
    git(root, "init", "-q", "fresh")
    tree("work", {"dangling/a.py": "2", "dangling/.git": "gitdir: /nowhere"})
    (source,) = found(root)
    assert source.commit is None
    read = {file.path: (file.group, file.commit, file.data) for file in files(root)}
    assert read.pop("plain/a.py") == ("plain", None, b"1")
    assert read.pop("app/src/a.py") == ("app", commit, b"committed")
    assert read.pop("copy.git/src/a.py") == ("copy", commit, b"committed")
    assert set(read) == {"fresh", "dangling"}
    said = problems(root)
    assert said.keys() == {"fresh", "dangling"}
    assert "fresh has no revision 'HEAD'" in said["fresh"][1]
    assert all(reason == Reason.UNREADABLE for reason, _ in said.values())
    assert all(shard.source == "work" for shard in shards(root))


def test_pointers_of_git_lfs_are_recorded(tree):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    root = tree("app", {"g/a.py": pointer, "g/b.py": "# version https://git-lfs.github.com/spec/v1\n"})
    assert problems(root) == {"g/a.py": (Reason.NOT_A_FILE, "git LFS pointer to 12345 bytes")}


def test_natural_language_is_marked(tree):
    root = tree("notes", {"g/a.md": "prose"})
    (source,) = found(f"text:{root}")
    assert source.prose
    assert [shard.prose for shard in shards(f"text:{root}")] == [True]
    (file,) = files(f"text:{root}", wanted=lambda path: False)
    assert (file.language, file.data) == ("text", b"prose")
    assert shards(root)[0].fingerprint != shards(f"text:{root}")[0].fingerprint


def test_an_empty_folder_has_no_shards(tree):
    assert shards(tree("empty", {})) == []
