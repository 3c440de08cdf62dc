"""Checkpoints: whole or not there."""

from pathlib import Path

import pytest
import torch

from midspan.train import checkpoint
from midspan.train.checkpoint import Progress, latest_checkpoint, save_checkpoint


def _save(folder: Path, steps: int) -> None:
    progress = Progress.start("rows", "recipe")
    for _ in range(steps):
        progress = progress.after(rows=2, tokens=10, targets=5, seconds=0.5)
    save_checkpoint(folder, progress, {"a": torch.full((3,), float(steps))}, keep=2)


def test_the_newest_is_taken_and_two_are_kept(tmp_path: Path) -> None:
    for steps in (1, 2, 10, 11):
        _save(tmp_path, steps)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    progress, tensors = found
    assert (progress.step, progress.rows_read, progress.tokens, progress.targets) == (11, 22, 110, 55)
    assert tensors["a"].tolist() == [11.0] * 3


def test_one_without_a_marker_does_not_exist(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    (tmp_path / "step-00000002" / "COMMIT").unlink()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0].step == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "marker"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    state = tmp_path / "step-00000002" / "state.safetensors"
    data = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1] ^= 1
        state.write_bytes(data)
    elif damage == "remove":
        state.unlink()
    else:
        (tmp_path / "step-00000002" / "COMMIT").write_text("{")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0].step == 1


def test_nothing_stays_of_a_save_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def full_disk(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sha256", full_disk)
    with pytest.raises(OSError, match="No space"):
        _save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_none_in_an_empty_folder(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nothing") is None
