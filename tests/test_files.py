"""Whole or absent: after exceptions, after SIGKILL at any point, and beside processes that live."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midspan import files
from midspan.errors import InputError
from midspan.files import atomic_file, atomic_folder, write_json, write_text


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def make(folder: Path, text: str = "old") -> Path:
    with atomic_folder(folder, replace=True) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "a.txt").write_text(text)
    return folder


def test_a_folder_appears_whole_and_its_parents_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "x" / "y" / "folder"
    with atomic_folder(folder) as aside:
        (aside / "a.txt").write_text("a")
        assert not folder.exists()
        assert aside.parent == folder.parent  # one file system, so that a rename suffices
    assert content(tmp_path) == {"x/y/folder/a.txt": "a"}


def write_half(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_and_keeps_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    for replace in (False, True):
        folder = tmp_path / "folder"
        with pytest.raises(error), atomic_folder(folder, replace=replace) as aside:
            write_half(aside / "a.txt", error)
        assert content(tmp_path) == ({"folder/deep/a.txt": "old"} if replace else {})
        make(folder)
    with pytest.raises(error), atomic_file(tmp_path / "file") as aside:
        write_half(aside, error)
    assert list(tmp_path.iterdir()) == [folder]


def test_replacing_takes_the_old_files_away(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder")
    with atomic_folder(folder, replace=True) as aside:
        (aside / "b.txt").write_text("new")
        assert content(folder) == {"deep/a.txt": "old"}
    assert content(tmp_path) == {"folder/b.txt": "new"}


def test_replacing_a_link_leaves_what_it_names(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere")
    (tmp_path / "folder").symlink_to(elsewhere)
    make(tmp_path / "folder", "new")
    assert not (tmp_path / "folder").is_symlink()
    assert content(tmp_path) == {"elsewhere/deep/a.txt": "old", "folder/deep/a.txt": "new"}
    assert len(list(tmp_path.iterdir())) == 2


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "naïve.json"
    write_text(path, "one\n")
    with atomic_file(path) as aside:
        aside.write_text("two\n")
        assert path.read_text() == "one\n"
    assert path.read_text() == "two\n"
    write_json(path, {"b": [1, 2.5], "a": "ß"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    2.5\n  ],\n  "a": "ß"\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        make(tmp_path / "folder")
        write_text(tmp_path / "file", "")
    finally:
        os.umask(old)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_sentences(tmp_path: Path) -> None:
    folder, file = make(tmp_path / "folder"), tmp_path / "file"
    file.touch()
    for taken in (folder, file):
        with pytest.raises(InputError, match=f"{taken} is there already; choose another"), atomic_folder(taken):
            pytest.fail("the block must not run")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dangling is there already"), atomic_folder(dangling):
        pytest.fail("the block must not run")
    below = file / "below"
    with pytest.raises(InputError, match=rf"{below} cannot be made \(Not a directory\)"), atomic_folder(below):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match=rf"{below} cannot be made \(Not a directory\); choose another place"):
        write_text(below, "")
    with pytest.raises(InputError, match=f"{folder} is a folder; name a file"):
        write_text(folder, "")
    absent = tmp_path / "absent" / "file"
    with pytest.raises(InputError, match=rf"{absent} cannot be made \(No such file or directory\)"):
        write_json(absent, {})
    assert content(tmp_path) == {"folder/deep/a.txt": "old", "file": ""}


def test_a_place_that_was_filled_meanwhile_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(OSError, match="not empty"), atomic_folder(folder):
        make(tmp_path / "other", "theirs").rename(folder)
    assert content(tmp_path) == {"folder/deep/a.txt": "theirs"}


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "folder")
    rename, renamed = Path.rename, []

    def failing_second(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) == 2:
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing_second)
    with pytest.raises(OSError, match="disk on fire"):
        make(folder, "new")
    assert len(renamed) == 3
    assert content(tmp_path) == {"folder/deep/a.txt": "old"}


PROGRAM = """
import os, signal, sys
from pathlib import Path
from midspan import files

def killed_at(name, number):
    call, count = getattr(Path, name), [0]
    def wrapped(self, *arguments, **named):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(self, *arguments, **named)
    setattr(Path, name, wrapped)

how, target, name, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
killed_at(name, number)
if how == "file":
    files.write_text(target, "new")
else:
    with files.atomic_folder(target, replace=True) as aside:
        (aside / "a.txt").write_text("new")
"""


def kill(how: str, target: Path, name: str, number: int) -> None:
    """Write `target` in a process that kills itself before the nth call of a method of Path."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how, str(target), name, str(number)])
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["write_text", "rename"])
def test_a_kill_leaves_no_folder_and_the_next_writer_clears_the_rest(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    kill("folder", folder, name, 1)
    assert not folder.exists()
    assert len(list(tmp_path.iterdir())) == 1  # what it had written aside
    with atomic_folder(folder) as aside:
        (aside / "a.txt").write_text("next")
    assert content(tmp_path) == {"folder/a.txt": "next"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["write_text", "replace"])
def test_a_kill_keeps_the_old_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    kill("file", path, name, 1)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_text(path, "next")
    assert content(tmp_path) == {"file": "next"}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder")
    kill("folder", folder, "rename", 1)
    assert content(folder) == {"deep/a.txt": "old"}
    kill("folder", folder, "rename", 2)
    assert not folder.exists()
    with pytest.raises(InputError, match="is there already"), atomic_folder(folder):
        pytest.fail("the old folder is back, so the block must not run")
    assert content(tmp_path) == {"folder/deep/a.txt": "old"}
    kill("folder", folder, "rename", 2)
    make(folder, "new")
    assert content(tmp_path) == {"folder/deep/a.txt": "new"}


def test_only_the_dead_are_cleared(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        kept = [f".folder.tmp-{living.pid}", f".folder.old-{living.pid}"]
        kept += [".folder.tmp-", f".folder.tmp-{living.pid}x", f".folder.tmp-{1 << 80}", ".folder.txt"]
        kept += [f".other.tmp-{living.pid}", f"folder.tmp-{living.pid}"]
        for name in kept:
            (tmp_path / name).mkdir()
        make(tmp_path / "folder")
        assert sorted(os.listdir(tmp_path)) == sorted([*kept, "folder"])
        living.communicate(b"\n")
    make(tmp_path / "folder", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept[2:], "folder"])
    assert content(tmp_path) == {"folder/deep/a.txt": "new"}


def test_all_is_durable_before_the_rename_and_the_rename_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = files.fsync, Path.rename

    def seen_fsync(path: Path) -> None:
        calls.append(path.name)
        fsync(path)

    def seen_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(files, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    make(tmp_path / "folder")
    aside = f".folder.tmp-{os.getpid()}"
    assert sorted(calls[:3]) == sorted([aside, "deep", "a.txt"])
    assert calls[3:] == ["rename", tmp_path.name]
