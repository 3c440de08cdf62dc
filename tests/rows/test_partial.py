"""A folder made over several runs: what fits is gone on with, everything else is cleared or refused."""

import os
from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.rows.partial import partial_folder


def test_a_whole_folder_takes_its_place(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "new" / "rows", "a") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "new" / "rows").exists()
    assert os.listdir(tmp_path / "new") == ["rows"]
    assert os.listdir(tmp_path / "new" / "rows") == ["file"]


def interrupted(rows: Path, identity: str) -> None:
    """Begin a folder, with a file and a folder in it, and go no further."""
    with partial_folder(rows, identity) as folder:
        (folder / "file").write_text("x")
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("x")
        raise KeyboardInterrupt


def test_what_was_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "rows", "a")
    assert os.listdir(tmp_path) == [".rows.partial"]
    with partial_folder(tmp_path / "rows", "a") as folder:
        assert (folder / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["rows"]


def test_what_is_of_another_identity_is_cleared(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "rows", "a")
    with partial_folder(tmp_path / "rows", "b") as folder:
        assert not (folder / "file").exists()
        assert not (folder / "below").exists()


def test_bad_input_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), partial_folder(tmp_path / "rows", "a"):
        raise InputError("no document fits")
    assert os.listdir(tmp_path) == []


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "rows", "a") as folder:
        (folder / "file").write_text("x")
        with pytest.raises(InputError, match="another process is making"), partial_folder(tmp_path / "rows", "b"):
            pass
        assert (folder / "file").exists()
    with pytest.raises(InputError, match="is there already"), partial_folder(tmp_path / "rows", "a"):
        pass
