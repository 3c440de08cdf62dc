"""What trackers were told, read back from what they wrote; nothing is imported unless a recipe asks."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from midspan.errors import InputError
from midspan.train import load_recipe, train
from midspan.train.metrics import read_evaluations, read_metrics
from midspan.train.trackers import check_trackers

QUIET = Console(quiet=True)
WATCHED = ["train.steps=4", "watch.evaluate_every_steps=3", "watch.evaluate_holes=2", "watch.evaluate_documents=2"]


def _told(run: Path) -> dict[str, dict[int, float]]:
    """Every value of metrics.jsonl by name and step."""
    found: dict[str, dict[int, float]] = {}
    path = run / "metrics.jsonl"
    for one in (*read_metrics(path), *read_evaluations(path)):
        for name, value in one.values().items():
            found.setdefault(name, {})[one.step] = value
    assert {"train/loss", "speed/tokens_per_second", "evaluation/exact_match/spm"} <= found.keys()
    return found


def test_tensorboard_reads_what_was_written(tiny_recipe: Path, tmp_path: Path) -> None:
    """Also of a run that was stopped and went on: each step once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    settings = [*WATCHED, "watch.tensorboard=true", "train.precision=fp32", "checkpoint.every_steps=2"]
    code = """if True:
        import sys
        from pathlib import Path
        from midspan.train import checkpoint, load_recipe, train
        real = checkpoint.Checkpoints.save
        def save(self, *args):
            real(self, *args)
            self.wait()
            sys.exit(7)
        checkpoint.Checkpoints.save = save
        train(load_recipe(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2]))
    """
    stopped = subprocess.run([sys.executable, "-c", code, tiny_recipe, run, *settings], check=False)
    assert stopped.returncode == 7
    train(load_recipe(tiny_recipe, settings), run, resume=True, console=QUIET)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name, values in _told(run).items():
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(values, rel=1e-6)
        assert len(events.Scalars(name)) == len(values)


def test_wandb_offline_writes_files_and_no_more(tiny_recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    run = tmp_path / "run"
    train(load_recipe(tiny_recipe, [*WATCHED, "watch.wandb=offline"]), run, console=QUIET)
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, dict[int, float]] = {}
    config: dict[str, object] = {}
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        for name, value in values.items():
            found.setdefault(name, {})[int(values["_step"])] = value
        config |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
    told = _told(run)
    for name, values_by_step in told.items():
        assert found[name] == pytest.approx(values_by_step)
    assert {name for name in found if not name.startswith("_")} == set(told)
    assert config["name"] == "tiny"


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log in blocks of 32 KiB, behind a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield whole
            whole = b""


@pytest.mark.slow  # to import it alone takes seconds
def test_trackio_keeps_the_run_on_this_machine(tiny_recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = tmp_path / "run"
    asked = [*WATCHED, "watch.trackio=true", "watch.project=ours"]
    settings = [word for setting in asked for word in ("--set", setting)]
    command = [sys.executable, "-m", "midspan", "train", str(tiny_recipe), "--out", str(run), *settings]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (file,) = (tmp_path / "trackio").glob("ours*.db")
    with sqlite3.connect(file) as base:
        lines = base.execute("select step, metrics from metrics").fetchall()
    found: dict[str, dict[int, float]] = {}
    for step, metrics in lines:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, {})[step] = value
    for name, values in _told(run).items():
        assert found[name] == pytest.approx(values)


def test_nothing_is_imported_unless_asked_for(tiny_recipe: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from midspan.train import load_recipe, train\n"
        "train(load_recipe(Path(sys.argv[1]), ['train.steps=1']), Path(sys.argv[2]))\n"
        "assert not {'wandb', 'trackio', 'tensorboard', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tiny_recipe, tmp_path / "run"], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_what_is_not_installed_is_said_first(
    tiny_recipe: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "offline" if name == "wandb" else "true"
    recipe = load_recipe(tiny_recipe, [f"watch.{name}={value}"])
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == name else object())
    with pytest.raises(InputError, match=rf"watch\.{name} is {value}, which needs the package {name}; install it"):
        train(recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()
    check_trackers(load_recipe(tiny_recipe).watch)
