"""Checkpoints: whole or not there, whatever happens and however many ranks wrote them."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from tests.train.ranks import on_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from midspan.errors import WorkError
from midspan.train import checkpoint
from midspan.train.checkpoint import Checkpoints, Progress
from midspan.train.ranks import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"), None)


def _progress(steps: int) -> Progress:
    progress = Progress.start("rows", "recipe")
    for _ in range(steps):
        progress = progress.after(rows=2, tokens=10, targets=5, seconds=0.5)
    return progress


def _save(folder: Path, steps: int, *, background: bool = False) -> Checkpoints:
    checkpoints = Checkpoints(folder, ALONE, keep=2, background=background)
    checkpoints.save(_progress(steps), {"a": torch.full((3,), float(steps))})
    return checkpoints


def _load(folder: Path, told: list[str] | None = None) -> tuple[Progress | None, list[float]]:
    state = {"a": torch.zeros(3)}
    report = (lambda _: None) if told is None else told.append
    progress = Checkpoints(folder, ALONE, report=report).load(state)
    return progress, state["a"].tolist()


def test_the_newest_is_taken_and_two_are_kept(tmp_path: Path) -> None:
    for steps in (1, 2, 10, 11):
        _save(tmp_path, steps)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    progress, tensor = _load(tmp_path)
    assert progress is not None
    assert (progress.step, progress.rows_read, progress.tokens, progress.targets) == (11, 22, 110, 55)
    assert tensor == [11.0] * 3


def test_one_without_a_marker_does_not_exist(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    (tmp_path / "step-00000002" / "COMMIT").unlink()
    progress, _ = _load(tmp_path)
    assert progress is not None
    assert progress.step == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "marker", "metadata"])
def test_a_damaged_one_gives_way_to_the_one_before_and_that_is_said(tmp_path: Path, damage: str) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    newest = tmp_path / "step-00000002"
    part = newest / (".metadata" if damage == "metadata" else "__0_0.distcp")
    data = bytearray(part.read_bytes())
    if damage == "cut":
        part.write_bytes(data[:-1])
    elif damage in ("flip", "metadata"):
        data[-1] ^= 1
        part.write_bytes(data)
    elif damage == "remove":
        part.unlink()
    else:
        (newest / "COMMIT").write_text("{")
    told: list[str] = []
    progress, tensor = _load(tmp_path, told)
    assert progress is not None
    assert (progress.step, tensor) == (1, [1.0] * 3)
    assert told == [f"{newest} is damaged: it is set aside, and the one before it is used"]
    _save(tmp_path, 3)
    assert _load(tmp_path)[1] == [3.0] * 3
    assert (tmp_path / "step-00000001").is_dir(), "the damaged one does not count among the kept"


def test_the_copy_is_of_the_moment_it_is_saved(tmp_path: Path) -> None:
    """Training changes its tensors while a thread writes."""
    tensor = torch.full((1000,), 7.0)
    checkpoints = Checkpoints(tmp_path, ALONE, background=True)
    checkpoints.save(_progress(1), {"a": tensor})
    tensor.zero_()
    checkpoints.wait()
    state = {"a": torch.zeros(1000)}
    assert Checkpoints(tmp_path, ALONE).load(state) == _progress(1)
    assert state["a"].unique().tolist() == [7.0]


def test_without_memory_for_a_copy_training_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_free_memory", lambda: 10)
    _save(tmp_path, 1, background=True)  # not waited for
    assert (tmp_path / "step-00000001" / "COMMIT").is_file()


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_is_one_sentence_and_the_last_one_stays(tmp_path: Path, background: bool) -> None:
    """No file may grow beyond 64 KiB, in a process of its own: what a full disk does to a write."""

    def fill(_: Ranks) -> str:
        _save(tmp_path, 1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        checkpoints = Checkpoints(tmp_path, ALONE, background=background)
        try:
            checkpoints.save(_progress(2), {"a": torch.ones(1 << 20)})
            checkpoints.wait()
        except WorkError as error:
            return str(error)
        return "no error"

    (said,) = on_ranks(1, fill)
    assert said.startswith("the checkpoint of step 2 could not be written (")
    assert said.endswith(f"{tmp_path / 'step-00000001'} is whole: make room on the disk and go on with --resume")
    assert "\n" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert _load(tmp_path)[1] == [1.0] * 3


def test_none_in_an_empty_folder(tmp_path: Path) -> None:
    assert _load(tmp_path / "nothing")[0] is None


def _parts(ranks: Ranks, whole: torch.Tensor) -> dict[str, torch.Tensor]:
    mesh = init_device_mesh("cpu", (ranks.world,))
    return {"a": distribute_tensor(whole, mesh, [Shard(0)]), "b": torch.arange(3.0)}


def test_what_two_ranks_wrote_one_and_three_read(tmp_path: Path) -> None:
    whole = torch.arange(70.0).reshape(7, 10)

    def write(ranks: Ranks) -> None:
        checkpoints = Checkpoints(tmp_path, ranks, background=True)
        checkpoints.save(_progress(1), _parts(ranks, whole))
        checkpoints.wait()
        checkpoints.save(_progress(2), _parts(ranks, whole + 1))
        checkpoints.wait()

    def read(ranks: Ranks) -> tuple[int, torch.Tensor]:
        state = _parts(ranks, torch.zeros(7, 10))
        progress = Checkpoints(tmp_path, ranks).load(state)
        assert progress is not None
        assert isinstance(state["a"], DTensor)
        return progress.step, state["a"].full_tensor()

    on_ranks(2, write)
    names = {p.name for p in (tmp_path / "step-00000002").iterdir()}
    assert names == {"__0_0.distcp", "__1_0.distcp", ".metadata", "COMMIT"}
    state = {"a": torch.zeros(7, 10), "b": torch.zeros(3)}
    assert Checkpoints(tmp_path, ALONE).load(state) == _progress(2)
    assert torch.equal(state["a"], whole + 1)
    assert torch.equal(state["b"], torch.arange(3.0))
    for step, tensor in on_ranks(3, read):
        assert step == 2
        assert torch.equal(tensor, whole + 1)

    part = tmp_path / "step-00000002" / "__1_0.distcp"  # of the other rank
    os.truncate(part, part.stat().st_size - 1)
    for step, tensor in on_ranks(3, read):
        assert step == 1
        assert torch.equal(tensor, whole)
