"""The whole way: the same bytes however it is run, killed or repeated; refusals; real code as a corpus."""

import os
import random
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

from corpus.conftest import commit_all, git
from midspan.corpus import Corpus, CorpusConfig, build, remove
from midspan.corpus.card import data_card
from midspan.corpus.engine import LocalEngine, RayEngine
from midspan.errors import InputError

CODE = "def f(x):\n    return x + 1\n"
STDLIB = Path(sysconfig.get_path("stdlib"))


def bytes_of(corpus: Path) -> dict[str, bytes]:
    """What a corpus is, without what only makes the next build quick."""
    found = {path.name: path.read_bytes() for path in sorted((corpus / "files").iterdir())}
    return found | {"corpus.json": (corpus / "corpus.json").read_bytes()}


def rows_of(corpus: Path) -> list[dict[str, object]]:
    return [row for path in sorted((corpus / "files").iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def app(tree):
    return tree("app", {f"package{index}/a.py": f"value = {index}\n" for index in range(200)})


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Some packages of the standard library, with copies, near copies and a licence."""
    root = tmp_path_factory.mktemp("real") / "packages"
    for name in ("json", "email", "asyncio", "unittest"):
        shutil.copytree(STDLIB / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "test*"))
    (root / "fork").mkdir()
    for path in (root / "email").glob("*.py"):
        shutil.copy(path, root / "fork" / path.name)
    near = (root / "asyncio" / "tasks.py").read_text()
    (root / "fork" / "tasks.py").write_text(near.replace("ensure_future", "make_sure_of_future"))
    # Ranks decide who stays: "asyncio" has a permissive licence and "fork" none.
    tasks = root / "asyncio" / "tasks.py"
    tasks.write_text(f"# SPDX-License-Identifier: PSF-2.0\n{tasks.read_text()}")
    return root


CONFIG = CorpusConfig(held_out=("email",))


@pytest.fixture(scope="module")
def built(real, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "corpus"
    build([str(real)], out, CONFIG)
    return out


def test_copies_and_near_copies_go_and_the_held_out_ones_stay(built):
    rows = {row["path"]: row for row in rows_of(built)}
    assert rows["fork/message.py"]["reason"] == "exact duplicate of a held-out file"
    assert rows["fork/message.py"]["duplicate_of"] == "packages/email/message.py"
    assert rows["email/message.py"]["decision"] == "kept"
    assert rows["email/message.py"]["split"] == "held_out"
    near = rows["fork/tasks.py"]
    assert (near["reason"], near["duplicate_of"]) == ("near duplicate", "packages/asyncio/tasks.py")
    assert 0.7 <= near["similarity"] < 1
    assert near["cluster"] == rows["asyncio/tasks.py"]["cluster"] is not None
    assert near["text"] is None


@pytest.mark.parametrize("workers", [1, 2, 8, "ray"])
def test_the_bytes_do_not_depend_on_where_the_work_runs(real, built, tmp_path, workers):
    if workers == "ray":
        ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'midspan[ray]'")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        engine = RayEngine()
    else:
        engine = LocalEngine(workers)
    build([str(real)], tmp_path / "corpus", CONFIG, engine=engine)
    if workers == "ray":
        ray.shutdown()
    assert bytes_of(tmp_path / "corpus") == bytes_of(built)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_bytes_do_not_depend_on_kills(real, built, tmp_path, seed):
    out, draw = tmp_path / "corpus", random.Random(seed)
    program = (
        "import sys\nfrom midspan.corpus import CorpusConfig, build\n"
        "from midspan.corpus.engine import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    build([sys.argv[1]], sys.argv[2], CorpusConfig(held_out=('email',)), engine=LocalEngine(2))"
    )
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", program, str(real), str(out)])
        try:
            process.wait(timeout=draw.uniform(0.5, 6))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (out / "corpus.json").exists():
                Corpus.open(out)
    build([str(real)], out, CONFIG)
    assert bytes_of(out) == bytes_of(built)
    assert not [path for path in out.rglob("*") if ".tmp-" in path.name or "scratch-" in path.name]


def test_a_corpus_is_the_same_from_anywhere_in_any_order(app, tree, tmp_path):
    lib = tree("lib", {"one.py": CODE, "two.py": CODE + CODE})
    config = CorpusConfig(held_out_share=0.1)
    first = build([str(app), str(lib)], tmp_path / "first", config)
    elsewhere = tmp_path / "elsewhere"
    for root in (app, lib):
        shutil.copytree(root, elsewhere / root.name)
    second = build([str(elsewhere / "lib"), str(elsewhere / "app")], tmp_path / "second", config)
    assert first == second
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")


def test_files_are_left_out_by_name(tree, tmp_path):
    root = tree("app", {"one.py": CODE, "tests/test_one.py": CODE + "x\n", "api_old.py": CODE + "y\n"})
    build([str(root)], tmp_path / "all", CorpusConfig(near_duplicates=False))
    build([str(root)], tmp_path / "some", CorpusConfig(exclude=("tests/*", "*_old.py"), near_duplicates=False))
    assert len(list(Corpus.open(tmp_path / "all").documents())) == 3
    corpus = Corpus.open(tmp_path / "some")
    assert [document.path for document in corpus.documents()] == ["one.py"]
    assert data_card(corpus)["dropped"] == {"excluded by name": 2}


def test_a_second_build_does_only_what_changed(real, tmp_path):
    source, out = tmp_path / "packages", tmp_path / "corpus"
    shutil.copytree(real, source)
    build([str(source)], out, CONFIG)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    build([str(source)], out, CONFIG)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    (source / "json" / "scanner.py").write_text("changed = True\n" * 9)
    (source / "unittest" / "new.py").write_text("new = 1\n" * 9)
    manifest = build([str(source)], out, CONFIG)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    made = {path.name.split("-")[1] for path in after if after[path] != before.get(path)}
    assert made == {"json", "unittest"}
    assert manifest.files == Corpus.open(out).manifest.files == len(rows_of(out))
    shutil.rmtree(out / "cache")
    again = build([str(source)], tmp_path / "fresh", CONFIG)
    assert again == manifest
    assert bytes_of(tmp_path / "fresh") == bytes_of(out)


def test_removing_a_repository_brings_back_what_stood_for_it_and_writes_nothing_else(real, tmp_path):
    out = tmp_path / "corpus"
    build([str(real)], out, CONFIG)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "files").iterdir()}
    manifest = remove(out, ["asyncio"])
    assert manifest.removed == ("asyncio",)
    rows = {row["path"]: row for row in rows_of(out)}
    assert not [path for path in rows if path.startswith("asyncio/")]
    assert rows["fork/tasks.py"]["decision"] == "kept", "the file that it was a near duplicate of is gone"
    after = {path.name: path.stat().st_mtime_ns for path in (out / "files").iterdir()}
    made = {name.split("-")[1] for name in after if after[name] != before.get(name)}
    assert made == {"fork"}
    left = b"".join(path.read_bytes() for path in (out / "cache").rglob("*") if path.is_file())
    assert b"asyncio/tasks.py" not in left
    assert build([str(real)], out, CONFIG) == manifest, "a later build leaves it out too"
    with pytest.raises(InputError, match=r"holds no repository 'asyncio'; the nearest is"):
        remove(out, ["asyncio"])


def test_removing_needs_the_cache(app, tmp_path):
    out = tmp_path / "corpus"
    build([str(app)], out)
    shutil.rmtree(out / "cache")
    with pytest.raises(InputError, match=r"so .* cannot be changed; build it from its sources"):
        remove(out, ["package1"])


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
    manifest = build([str(root)], out, CorpusConfig(held_out_share=share))
    rows = rows_of(out)
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    assert sorted(row["path"] for row in rows) == sorted(str(path.relative_to(root)) for path in found)
    assert Counter(row["decision"] for row in rows) == +Counter(
        kept=sum(manifest.kept.values()), dropped=sum(manifest.dropped.values())
    )
    texts = [row["text"] for row in rows if row["decision"] == "kept"]
    assert len(set(texts)) == len(texts)
    for row in rows:
        if row["decision"] == "kept":
            assert row["text"]
        else:
            assert row["reason"]
            assert row["text"] is None


def test_git_and_folders_together(app, tree, tmp_path):
    repository = tree("repository", {"a.py": CODE, "package1.py": "value = 1\n"})
    commit = commit_all(repository, "first")
    manifest = build([str(repository), str(app)], tmp_path / "corpus", CorpusConfig(held_out=("repository",)))
    assert manifest.sources == ({"source": "app", "commit": None}, {"source": "repository", "commit": commit})
    corpus = Corpus.open(tmp_path / "corpus")
    assert {(document.path, document.commit) for document in corpus.documents("held_out")} == {
        ("a.py", commit),
        ("package1.py", commit),
    }
    assert manifest.dropped == {"exact duplicate of a held-out file": 1}
    assert all(document.path != "package1/a.py" for document in corpus.documents("train"))


def test_natural_language_is_judged_as_such_and_always_asked_for(app, tree, tmp_path):
    words = tree("words", {"talk/one.txt": "Something to read, and more of it.\n" * 9})
    build([str(app), f"text:{words}"], tmp_path / "corpus", CorpusConfig(languages=("python",)))
    (prose,) = (row for row in rows_of(tmp_path / "corpus") if row["source"] == "words")
    assert (prose["decision"], prose["language"]) == ("kept", "text")


def test_a_new_commit_that_leaves_a_shard_alone_is_still_the_rows_commit(tree, tmp_path):
    repository = tree("repository", {"a.py": CODE})
    commit_all(repository, "first")
    build([str(repository)], tmp_path / "corpus")
    second = git(repository, "commit", "-q", "--allow-empty", "-m", "second") or git(
        repository, "rev-parse", "HEAD"
    )
    build([str(repository)], tmp_path / "corpus")
    assert [row["commit"] for row in rows_of(tmp_path / "corpus")] == [second]


def test_progress_goes_from_listing_to_the_last_file(app, tmp_path):
    seen = []
    build([str(app)], tmp_path / "corpus", report=seen.append)
    assert [step for step, _ in Counter(done.step for done in seen).items()] == [
        *("listing", "examining", "licences", "exact duplicates", "near duplicates", "writing"),
    ]
    for step in ("examining", "writing"):
        of_step = [done for done in seen if done.step == step]
        assert of_step[-1].done == of_step[-1].total > 0
        assert [done.done for done in of_step] == sorted(done.done for done in of_step)


def test_a_build_that_fails_midway_leaves_the_former_corpus(app, tmp_path):
    out = tmp_path / "corpus"
    before = build([str(app)], out, CorpusConfig(seed=1))

    def stop(done):
        if done.step == "writing" and done.done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([str(app)], out, CorpusConfig(seed=2, held_out_share=0.5), overwrite=True, report=stop)
    assert Corpus.open(out).manifest == before
    assert sum(1 for _ in Corpus.open(out).documents()) == 200


def test_two_builds_of_one_corpus_do_not_meet(app, tmp_path):
    out = tmp_path / "corpus"

    def meanwhile(done):
        if done.step == "writing":
            with pytest.raises(InputError, match="another process builds"):
                build([str(app)], out)

    build([str(app)], out, report=meanwhile)


def test_a_corpus_of_other_sources_or_settings_is_changed_only_when_asked(app, tree, tmp_path):
    out = tmp_path / "corpus"
    build([str(app)], out)
    other = tree("other", {"a.py": CODE})
    with pytest.raises(InputError, match=r"was built with other sources, max_bytes; .* pass --overwrite"):
        build([str(other)], out, CorpusConfig(max_bytes=99))
    manifest = build([str(other)], out, CorpusConfig(max_bytes=99), overwrite=True)
    assert Corpus.open(out).manifest == manifest
    assert manifest.files == 1
    (out / "corpus.json").write_text("damaged")
    with pytest.raises(InputError, match=r"corpus\.json is damaged"):
        build([str(other)], out)
    assert build([str(other)], out, CorpusConfig(max_bytes=99), overwrite=True) == manifest


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_but_a_corpus_is_ever_touched(app, tmp_path, overwrite):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis holds more than a corpus \('chapter\.tex'\)"):
        build([str(app)], out, overwrite=overwrite)
    assert os.listdir(out) == ["chapter.tex"]
    assert (out / "chapter.tex").read_text() == "years of work"


def test_a_corpus_inside_its_own_source_is_not_read(app):
    out = app / "corpus"
    build([str(app)], out)
    assert build([str(app)], out).files == 200


def test_what_was_dropped_is_said_when_nothing_is_left(tree, tmp_path):
    root = tree("app", {"a.md": "words\n", "b.md": "words\n", "c.py": ""})
    with pytest.raises(
        InputError,
        match=r"nothing is left to train on of 3 files, dropped were 2 language not asked for, 1 empty",
    ):
        build([str(root)], tmp_path / "corpus", CorpusConfig(languages=("python",)))
    assert not (tmp_path / "corpus" / "corpus.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"held_out": ("pakage1",)}, "no group is called 'pakage1', .* the nearest is 'package1'"),
        ({"held_out": ("void",)}, r"no file of the held-out groups was kept \(1 empty\)"),
        ({"held_out_share": 1.5}, r"held-out share 1\.5 is not in \[0, 1\)"),
        ({"languages": ("pyton",)}, "no language is called 'pyton'"),
        ({"max_bytes": 0}, "a size cap of 0 bytes keeps nothing"),
        ({"licences": ("permisive",)}, "'permisive' is no kind of licence"),
        ({"decontaminate": ("absent.jsonl",)}, "absent.jsonl"),
    ],
)
def test_options_that_cannot_be_used(app, tmp_path, options, sentence):
    (app / "void").mkdir()
    (app / "void" / "a.py").touch()
    with pytest.raises(InputError, match=sentence):
        build([str(app)], tmp_path / "corpus", CorpusConfig(**options))
    assert not (tmp_path / "corpus" / "corpus.json").exists()


def test_an_empty_folder_and_a_place_that_cannot_be_made(app, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file was found in .*empty"):
        build([str(tmp_path / "empty")], tmp_path / "corpus")
    with pytest.raises(InputError, match=r"cannot be made .*; choose another folder"):
        build([str(app)], app / "package1/a.py/corpus")


def test_a_full_disk_is_a_sentence_and_loses_nothing(real, tmp_path):
    """On a real file system of 3 MB, where this machine lets a test mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = (
        f"mount -t tmpfs -o size=300k none {disk} && "
        f"exec {sys.executable} -m midspan corpus build {real} --out {disk}/corpus"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount in a user namespace here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("midspan: the disk is full")
    assert "Traceback" not in done.stderr


def test_no_network_is_used(real, tmp_path):
    """The whole build in a network namespace that has nothing, not even loopback."""
    command = [sys.executable, "-m", "midspan", "corpus", "build", str(real), "--out", str(tmp_path / "corpus")]
    done = subprocess.run(["unshare", "-rn", *command], capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert Corpus.open(tmp_path / "corpus").manifest.kept["train"] > 50


def test_real_code_comes_back_as_it_was(real, built):
    corpus = Corpus.open(built)
    held_out = {(document.group, document.text) for document in corpus.documents("held_out")}
    train = {(document.group, document.text) for document in corpus.documents("train")}
    assert len(held_out) + len(train) == sum(corpus.manifest.kept.values()) > 50
    for place in (0, 1):  # neither a group nor a text stands on both sides
        assert {item[place] for item in held_out}.isdisjoint({item[place] for item in train})
    redacted = {row["path"] for row in rows_of(built) if row["secrets"] or row["emails"] or row["ips"]}
    for document in corpus.documents():
        if document.path not in redacted:
            assert document.text == (real / document.path).read_text(encoding="utf-8-sig")
