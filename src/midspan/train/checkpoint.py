"""Checkpoints: folders that exist only once their commit marker does.

    checkpoints/step-00000200/
      state.safetensors    float32 masters and AdamW moments, by parameter name
      COMMIT               JSON: step, rows read, fingerprints of rows and recipe, hashes of the files above

A checkpoint is written under another name, made durable and renamed. What a killed run leaves behind has no
marker and is not taken; what has one but does not match its hashes is refused, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from midspan.files import atomic_folder, write_json

MARKER = "COMMIT"
_STATE = "state.safetensors"


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


def save_checkpoint(folder: Path, progress: Progress, tensors: dict[str, Tensor], *, keep: int) -> Path:
    """Write a checkpoint below `folder` and remove the oldest beyond `keep`."""
    path = folder / f"step-{progress.step:08d}"
    with atomic_folder(path, replace=True) as aside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside / _STATE)
        marker = {"progress": asdict(progress), "sha256": {_STATE: _sha256(aside / _STATE)}}
        write_json(aside / MARKER, marker)
    for old in _candidates(folder)[keep:]:
        shutil.rmtree(old)
    return path


def latest_checkpoint(folder: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    """The newest whole checkpoint below `folder`; None where there is none."""
    for path in _candidates(folder):
        try:
            marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
            if all(_sha256(path / name) == digest for name, digest in marker["sha256"].items()):
                return Progress(**marker["progress"]), load_file(path / _STATE)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: the one before it is tried
    return None


def _candidates(folder: Path) -> list[Path]:
    """Checkpoints with a marker, newest first."""
    return sorted((p.parent for p in folder.glob(f"step-*/{MARKER}")), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
