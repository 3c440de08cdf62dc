"""Where else a run's metrics go, when its recipe asks: TensorBoard's files, Weights & Biases, Trackio.

None of them is needed, none is imported unless asked for, and only `watch.wandb = "online"` reaches the network;
what each sends or writes is the numbers of `metrics.jsonl` and the resolved recipe, nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from midspan.errors import InputError, WorkError
from midspan.files import write_text
from midspan.train.recipe import Recipe, WatchConfig


class Tracker(Protocol):
    """Something that numbers of a run are told to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step."""

    def close(self) -> None:
        """Make sure that nothing is lost."""


def check_trackers(config: WatchConfig) -> None:
    """Make sure, before anything is loaded, that what a recipe asks for is installed.

    Raises:
        InputError: a package is lacking.
    """
    for name, value in _asked(config).items():
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"watch.{name} is {value}, which needs the package {name}; install it with "
                f"`pip install 'midspan[watch]'`, or take watch.{name} out of the recipe"
            )


def open_trackers(recipe: Recipe, run: Path, *, done: int) -> list[Tracker]:
    """The trackers that a recipe asks for, ready to go on behind step `done`."""
    makers: dict[str, Callable[[Recipe, Path, int], Tracker]]
    makers = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
    return [makers[name](recipe, run, done) for name in _asked(recipe.watch)]


def _asked(config: WatchConfig) -> dict[str, str]:
    """Packages that are asked for, and by what value."""
    values = {"tensorboard": str(config.tensorboard).lower(), "wandb": config.wandb}
    values["trackio"] = str(config.trackio).lower()
    return {name: value for name, value in values.items() if value not in ("false", "off")}


class TensorBoard:
    """Event files in the run's folder `tensorboard/`; what a killed run wrote behind its checkpoint is hidden."""

    def __init__(self, recipe: Recipe, run: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = {"purge_step": done + 1} if done else {}
        self._writer: Any = SummaryWriter(str(run / "tensorboard"), **purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run in the folder `wandb/`, sent as it grows where the recipe says `online`.

    Its watching of the machine, of the console and of the working folder's code is off.
    """

    def __init__(self, recipe: Recipe, run: Path, done: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        try:
            self._run = wandb.init(
                project=recipe.watch.project,
                name=run.name,
                id=_own_id(run / "wandb" / "midspan-id"),
                resume="allow",
                dir=str(run),
                config=recipe.resolved(),
                mode="online" if recipe.watch.wandb == "online" else "offline",
                settings=settings,
            )
        except wandb.errors.Error as error:
            raise WorkError(
                f"Weights & Biases did not begin ({error}); log in with `wandb login`, or give watch.wandb the "
                "value 'offline' and send the run later with `wandb sync`"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run in Trackio's own data base on this machine; `trackio show` displays it."""

    def __init__(self, recipe: Recipe, run: Path, done: int) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            import trackio

            self._run: Any = trackio.init(
                project=recipe.watch.project,
                name=f"{run.name}-{_own_id(run / 'trackio-id')}",
                resume="allow",
                config=recipe.resolved(),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()  # and not the run's own: that one would be called once more when the process ends


def _own_id(path: Path) -> str:
    """The name of a run among all others, made once and kept, so that a resumed run goes on under it."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")
