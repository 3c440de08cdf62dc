"""What `make demo CODE=...` makes of a user's folders before it begins."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from midspan.corpus import HELD_OUT, TRAIN, Corpus, CorpusConfig, build

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
assert _spec is not None
assert _spec.loader is not None
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with one package of eight modules, two in a folder, and a file that is not committed."""
    folder = tmp_path / "project"
    for number in range(8):
        path = folder / "src" / "package" / ("part" if number < 2 else "") / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def f{number}_{i}(x):\n    return x + {i * number}\n\n\n" for i in range(30)))
    git = ["git", "-C", folder, "-c", "user.email=a@b.c", "-c", "user.name=a"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    (folder / "src" / "package" / "scratch.py").write_text("x = 1\n")
    return folder


def test_of_an_only_repository_some_is_held_out_and_the_rest_is_trained_on(
    repository: Path, tmp_path: Path
) -> None:
    """As it stands at HEAD; as one group it could only be held out whole, or not at all."""
    folder = demo.folder_of_packages(demo.plain_folder(repository, tmp_path / "aside"))
    assert folder == tmp_path / "aside" / "project" / "src" / "package"
    assert not (folder / "scratch.py").exists()
    assert demo.plain_folder(repository, tmp_path / "aside") == tmp_path / "aside" / "project"
    held_out = demo.held_out_of([folder], 0.1)
    build([str(folder)], tmp_path / "corpus", CorpusConfig(held_out=tuple(held_out.split(","))))
    kept = Corpus.open(tmp_path / "corpus").manifest.kept
    assert 1 <= kept[HELD_OUT] <= 2
    assert kept[HELD_OUT] + kept[TRAIN] == 8


def test_what_is_held_out_is_about_the_share_and_never_most(tmp_path: Path) -> None:
    """Whatever the sizes: a large package beside small ones, one file alone, two folders."""
    for name, size in {"large": 9000, "a": 300, "b": 300, "c": 400}.items():
        (tmp_path / "one" / name).mkdir(parents=True)
        (tmp_path / "one" / name / "code.py").write_text("#" * size)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "only.py").write_text("#" * 10)
    chosen = demo.held_out_of([tmp_path / "one"], 0.1).split(",")
    assert {"a", "b", "c"} >= set(chosen)
    assert demo.held_out_of([tmp_path / "one"], 0.02) in ("a", "b", "c")
    assert demo.held_out_of([tmp_path / "two"], 0.1) == "only.py"
    assert demo.held_out_of([], 0.1) == ""
    assert "large" not in demo.held_out_of([tmp_path / "one", tmp_path / "two"], 0.1).split(",")


def test_a_repository_without_a_commit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "new"], check=True)
    with pytest.raises(SystemExit, match="has no commit that git can read; commit its files"):
        demo.plain_folder(tmp_path / "new", tmp_path / "aside")
    assert not (tmp_path / "aside" / "new").exists()
