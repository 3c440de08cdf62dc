"""Checkpoints: folders that exist only once their commit marker does.

    checkpoints/step-00000200/
      __0_0.distcp, __1_0.distcp ...   each rank's parts of the float32 masters and AdamW moments
      .metadata                        which part of what lies where
      COMMIT                           JSON: step, rows read, fingerprints of rows and recipe, hashes of the files

The files are torch.distributed.checkpoint's, so that what 64 ranks wrote one can read, and the other way round.
A checkpoint is written under another name, made durable and renamed. What a killed run leaves behind has no
marker and is not taken; what has one but does not match its hashes is refused, and the one before it is used.

    train ── copy ── train ── train ── ...
               └── a thread: write, hash, mark, rename, remove the oldest

With memory for a copy of the state, training goes on while it is written; without, it waits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from midspan.errors import WorkError
from midspan.files import atomic_folder, write_json
from midspan.train.ranks import Ranks

MARKER = "COMMIT"
State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: everything that is needed to go on, beside the tensors."""

    step: int
    """Steps done."""
    rows_read: int
    tokens: int
    """Tokens read, and `targets` trained, since the start."""
    targets: int
    seconds: float
    """Time spent training, over all interruptions."""
    rows_fingerprint: str
    recipe_hash: str

    @staticmethod
    def start(rows_fingerprint: str, recipe_hash: str) -> Progress:
        """Nothing done yet."""
        identity = {"rows_fingerprint": rows_fingerprint, "recipe_hash": recipe_hash}
        return Progress(step=0, rows_read=0, tokens=0, targets=0, seconds=0.0, **identity)

    def after(self, *, rows: int, tokens: int, targets: int, seconds: float) -> Progress:
        """The progress once a step more is done."""
        return replace(
            self,
            step=self.step + 1,
            rows_read=self.rows_read + rows,
            tokens=self.tokens + tokens,
            targets=self.targets + targets,
            seconds=self.seconds + seconds,
        )


class Checkpoints:
    """The checkpoints of a run. Every rank has one, and calls it when the others do."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        *,
        keep: int = 2,
        background: bool = False,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            folder: on a disk that all ranks see.
            keep: how many are left, newest first.
            background: let training go on while one is written, where there is memory for a copy.
            report: told of a checkpoint that is damaged.
        """
        self._folder, self._keep, self._background, self._report = folder, keep, background, report
        self._thread: threading.Thread | None = None
        self._failure: WorkError | None = None
        # A group of its own: a thread's messages must not meet the training's.
        self._ranks = ranks.with_own_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is being written is finished, unless the process has a reason to end at once."""
        if kind is None:
            self.wait()
        elif issubclass(kind, WorkError) and self._thread is not None:
            self._thread.join()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self._folder / f"step-{step:08d}"

    def save(self, progress: Progress, state: State) -> None:
        """Write a checkpoint, or begin to; remove the oldest beyond those kept.

        Raises:
            WorkError: it, or the one before it, could not be written.
        """
        self.wait()
        if not self._background or not self._has_room(state):
            self._write(progress, state)
            return
        from torch.distributed.checkpoint.staging import BlockingAsyncStager

        copy = BlockingAsyncStager().stage(state)
        self._thread = threading.Thread(target=self._write_aside, args=(progress, copy), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what is being written is there.

        Raises:
            WorkError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def load(self, state: State) -> Progress | None:
        """Read the newest whole checkpoint into the tensors of `state`; None where there is none."""
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        if self._ranks.is_first:
            for left in self._folder.glob(".step-*"):  # of a run that was killed as it wrote
                shutil.rmtree(left, ignore_errors=True)
        for path in self._ranks.agreed(self._candidates()):
            progress = self._read_marker(path)
            if progress is None:
                if self._ranks.is_first:
                    self._report(f"{path} is damaged: it is set aside, and the one before it is used")
                    path.rename(path.with_name(f"damaged-{path.name}-{time.time_ns()}"))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is one process
                load(state, storage_reader=FileSystemReader(path), process_group=self._ranks.control)
            return progress
        return None

    def _write_aside(self, progress: Progress, state: State) -> None:
        try:
            self._write(progress, state)
        except WorkError as error:
            self._failure = error

    def _write(self, progress: Progress, state: State) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        failure = ""
        try:
            with ExitStack() as stack, warnings.catch_warnings():
                aside = self._folder_aside(stack, progress)
                warnings.simplefilter("ignore")  # that there is one process
                save(state, storage_writer=FileSystemWriter(aside), process_group=self._ranks.control)
                self._mark(aside, progress)
        except CheckpointException as error:
            failure = _reason(next(iter(error.failures.values()))[0])
        except (OSError, ValueError, RuntimeError) as error:
            failure = _reason(error)
        failure = next(filter(None, self._ranks.everyone(failure)), "")
        if failure:
            good = next(iter(self._candidates()), None)
            raise WorkError(
                f"the checkpoint of step {progress.step} could not be written ({failure}); "
                + (f"{good} is whole: " if good else "there is none before it: ")
                + "make room on the disk and go on with --resume"
            )
        if self._ranks.is_first:
            for old in self._candidates()[self._keep :]:
                shutil.rmtree(old)

    def _folder_aside(self, stack: ExitStack, progress: Progress) -> Path:
        """The folder that all ranks write into; rank 0 makes it, and renames it as the stack closes well."""
        made: Path | str = ""
        if self._ranks.is_first:
            try:
                made = stack.enter_context(atomic_folder(self.path(progress.step), replace=True))
            except (OSError, ValueError) as error:
                made = _reason(error)
        made = self._ranks.agreed(made)
        if isinstance(made, str):
            raise OSError(made)
        return made

    def _mark(self, aside: Path, progress: Progress) -> None:
        """Hash what each rank wrote, and write the marker."""
        own = [path for path in sorted(aside.iterdir()) if path.name.startswith(f"__{self._ranks.rank}_")]
        if self._ranks.is_first:
            own.append(aside / ".metadata")
        hashes = self._ranks.everyone({path.name: _sha256(path) for path in own})
        if self._ranks.is_first:
            sha256 = {name: digest for each in hashes for name, digest in each.items()}
            write_json(aside / MARKER, {"progress": asdict(progress), "sha256": sha256})

    def _read_marker(self, path: Path) -> Progress | None:
        """The progress that a checkpoint holds if it is whole; each rank hashes its share of the files."""
        try:
            marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
            progress, files = Progress(**marker["progress"]), sorted(marker["sha256"].items())
            mine = files[self._ranks.rank :: self._ranks.world]
            whole = bool(files) and all(_sha256(path / name) == digest for name, digest in mine)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        return progress if all(self._ranks.everyone(whole)) else None

    def _candidates(self) -> list[Path]:
        """Checkpoints with a marker, newest first."""
        return sorted((p.parent for p in self._folder.glob(f"step-*/{MARKER}")), reverse=True)

    def _has_room(self, state: State) -> bool:
        """Whether every rank's host has memory for its copies, twice over."""
        own = sum(_own_bytes(tensor) for tensor in state.values())
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return all(self._ranks.everyone(2 * own * beside < _free_memory()))


def _own_bytes(tensor: Tensor) -> int:
    own: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own.numel() * own.itemsize


def _free_memory() -> int:
    """Bytes that this host can still give; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
