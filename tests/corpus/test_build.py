"""The whole way: order independence, all or nothing, refusals, and the standard library as a real corpus."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.conftest import commit_all
from midspan.corpus import Corpus, Progress, build
from midspan.errors import InputError

CODE = "def f(x):\n    return x + 1\n"


@pytest.fixture
def app(tree):
    return tree("app", {f"package{index}/a.py": f"x = {index}\n" for index in range(200)})


def test_a_corpus_is_the_same_from_anywhere_in_any_order(app, tree, tmp_path):
    lib = tree("lib", {"one.py": CODE, "two.py": CODE + CODE})
    first = build([str(app), str(lib)], tmp_path / "first", held_out_share=0.1)
    elsewhere = tmp_path / "elsewhere"
    for root in (app, lib):
        shutil.copytree(root, elsewhere / root.name)
    second = build([str(elsewhere / "lib"), str(elsewhere / "app")], tmp_path / "second", held_out_share=0.1)
    assert first == second
    for name in ("corpus.json", "files.parquet"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,2}\.(py|md|so)", fullmatch=True),
        st.one_of(st.binary(max_size=30), st.sampled_from([b"x = 1\n", b"x = 1\r\n", b"y = 2", b"a\0"])),
        max_size=12,
    ),
    share=st.sampled_from([0.0, 0.3]),
)
def test_any_tree_gives_one_row_a_file_and_never_one_text_twice(tmp_path_factory, files, share):
    root = tmp_path_factory.mktemp("tree")
    # One anchor falls on each side of the share, so that a build is never refused.
    for path, data in ({"anchor1.py": b"anchor = 1\n", "anchor3.py": b"anchor = 2\n"} | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    out = tmp_path_factory.mktemp("out") / "corpus"
    manifest = build([str(root)], out, held_out_share=share)
    rows = pq.read_table(out / "files.parquet").to_pylist()
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    assert sorted(row["path"] for row in rows) == sorted(str(path.relative_to(root)) for path in found)
    assert Counter(row["decision"] for row in rows) == +Counter(
        kept=sum(manifest.kept.values()), dropped=sum(manifest.dropped.values())
    )
    texts = [row["text"] for row in rows if row["decision"] == "kept"]
    assert len(set(texts)) == len(texts)
    for row in rows:
        if row["decision"] == "kept":
            assert row["text"] == (root / row["path"]).read_text(encoding="utf-8-sig")  # universal newlines
        else:
            assert row["reason"]
            assert row["text"] is None


def test_git_and_folders_together(app, tree, tmp_path):
    repository = tree("repository", {"a.py": CODE, "package1.py": "x = 1\n"})
    commit = commit_all(repository, "first")
    manifest = build([str(repository), str(app)], tmp_path / "corpus", held_out=["repository"])
    assert manifest.sources == ({"source": "app", "commit": None}, {"source": "repository", "commit": commit})
    corpus = Corpus.open(tmp_path / "corpus")
    assert {(document.path, document.commit) for document in corpus.documents("held_out")} == {
        ("a.py", commit),
        ("package1.py", commit),
    }
    assert manifest.dropped == {"exact duplicate of a held-out file": 1}
    assert all(document.path != "package1/a.py" for document in corpus.documents("train"))


def test_progress_ends_at_the_totals(app, tmp_path):
    seen: list[Progress] = []
    build([str(app)], tmp_path / "corpus", progress=seen.append)
    assert [done.files for done in seen] == [64, 128, 192, 200]
    assert (seen[-1].total_files, seen[-1].size) == (200, seen[-1].total_size)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_that_fails_midway_leaves_all_as_it_was(app, tmp_path, overwrite):
    out = tmp_path / "out" / "corpus"
    out.parent.mkdir()
    before = build([str(app)], out, seed=1) if overwrite else None

    def stop(done: Progress) -> None:
        if done.files > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([str(app)], out, seed=2, overwrite=overwrite, progress=stop)
    assert os.listdir(out.parent) == (["corpus"] if overwrite else [])
    if before is not None:
        assert Corpus.open(out).manifest == before


def test_a_killed_build_leaves_no_corpus_and_the_next_one_works(app, tmp_path):
    out = tmp_path / "corpus"
    program = (
        "import os, signal, sys\nfrom midspan.corpus import build\n"
        "build([sys.argv[1]], sys.argv[2], progress=lambda done: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(app), str(out)])
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(os.listdir(tmp_path)) == 2  # what it had written aside
    assert build([str(app)], out).kept["train"] == 200
    assert sorted(os.listdir(tmp_path)) == ["app", "corpus"]


def test_an_existing_corpus_is_replaced_only_when_asked(app, tree, tmp_path):
    out = tmp_path / "corpus"
    build([str(app)], out)
    with pytest.raises(InputError, match="corpus is there already; choose another folder, or ask to overwrite it"):
        build([str(app)], out)
    (out / "corpus.json").write_text("damaged")
    other = tree("other", {"a.py": CODE})
    manifest = build([str(other)], out, overwrite=True)
    assert Corpus.open(out).manifest == manifest
    assert manifest.files == 1
    assert sorted(os.listdir(tmp_path)) == ["app", "corpus", "other"]


def test_overwriting_never_deletes_anything_but_a_corpus(app, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="thesis holds more than a corpus, so it is not overwritten"):
        build([str(app)], out, overwrite=True)
    assert (out / "chapter.tex").read_text() == "years of work"


def test_a_corpus_inside_its_own_source_is_not_read(app):
    out = app / "corpus"
    build([str(app)], out)
    assert build([str(app)], out, overwrite=True).files == 200


def test_what_was_dropped_is_said_when_nothing_is_left(tree, tmp_path):
    root = tree("app", {"a.md": "words\n", "b.md": "words\n", "c.py": ""})
    with pytest.raises(
        InputError,
        match=r"nothing is left to train on of 3 files, dropped were 2 language not asked for, 1 empty",
    ):
        build([str(root)], tmp_path / "corpus", languages=["python"])
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"held_out": ["pakage1"]}, "no group is called 'pakage1', .* the nearest is 'package1'"),
        ({"held_out": ["void"]}, r"no file of the held-out groups was kept \(1 empty\)"),
        ({"held_out_share": 1.5}, r"held-out share 1\.5 is not in \[0, 1\)"),
        ({"languages": ["pyton"]}, "no language is called 'pyton'"),
        ({"max_bytes": 0}, "a size cap of 0 bytes keeps nothing"),
    ],
)
def test_options_that_cannot_be_used(app, tmp_path, options, sentence):
    (app / "void").mkdir()
    (app / "void" / "a.py").touch()
    with pytest.raises(InputError, match=sentence):
        build([str(app)], tmp_path / "corpus", **options)
    assert not (tmp_path / "corpus").exists()


def test_an_empty_folder_and_a_place_that_cannot_be_made(app, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file was found in .*empty"):
        build([str(tmp_path / "empty")], tmp_path / "corpus")
    with pytest.raises(InputError, match=r"cannot be made .*; choose another folder"):
        build([str(app)], app / "package1/a.py/corpus")


def test_the_standard_library(tmp_path):
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    names = ["json", "email", "asyncio", "unittest", "encodings", "lib2to3"]
    roots = [str(stdlib / name) for name in names]
    manifest = build(roots, tmp_path / "corpus", languages=["python"], held_out_share=0.1)
    corpus = Corpus.open(tmp_path / "corpus")
    assert manifest.files > 300
    held_out = {(document.group, document.text) for document in corpus.documents("held_out")}
    train = {(document.group, document.text) for document in corpus.documents("train")}
    assert len(held_out) + len(train) == sum(manifest.kept.values())
    for place in (0, 1):  # neither a group nor a text stands on both sides
        assert {item[place] for item in held_out}.isdisjoint({item[place] for item in train})
    for document in corpus.documents():
        expected = (stdlib / document.source / document.path).read_text(encoding="utf-8-sig")
        assert document.text == expected
