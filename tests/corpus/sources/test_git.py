"""Real git repositories, whole and broken; `git archive` is the oracle for what a revision holds."""

import io
import os
import subprocess
import tarfile
import threading

import pytest

from corpus.conftest import commit_all, git
from corpus.sources.reading import MIB, contents, files, found, problems, shards
from midspan.corpus import Reason
from midspan.errors import InputError


def archive(root, revision):
    data = subprocess.run(["git", "archive", revision], cwd=root, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


@pytest.fixture
def repository(tree):
    root = tree("app", {"src/a.py": "a = 1\n", "README": b"text\r\n", "é.py": "x", "data.bin": b"\0\1\n\n" * 999})
    commit_all(root, "first")
    git(root, "tag", "v1")
    (root / "src/a.py").write_text("a = 2\n")
    (root / "src/b.py").write_text("")
    (root / "src/a\nb.py").write_text("newline")
    (root / "src/A.py").write_text("case")
    with open(os.fsencode(root) + b"/\xff.py", "w") as file:
        file.write("bytes")
    (root / "link.py").symlink_to("src/a.py")
    commit_all(root, "second")
    (root / "src/a.py").write_text("a = 'never committed'\n")
    (root / "untracked.py").write_text("secret = 1\n")
    return root


def damage(path, offset, data):
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("revision", [None, "v1", "HEAD", "HEAD~1", "HEAD@{0}"])
def test_a_repository_is_what_git_archive_gives(repository, revision):
    spec = str(repository) if revision is None else f"{repository}@{revision}"
    expected = archive(repository, revision or "HEAD")
    if "\udcff.py" in expected:
        expected["\\xff.py"] = expected.pop("\udcff.py")
    assert contents(spec) == expected
    (source,) = found(spec)
    assert source.commit == git(repository, "rev-parse", revision or "HEAD")
    assert source.label == ("app" if revision is None else f"app@{revision}")
    read = files(spec)
    assert {(file.group, file.commit) for file in read} == {("app", source.commit)}
    paths = [file.path.replace("\\xff", "\udcff") for file in read]
    assert paths == sorted(paths, key=os.fsencode)


def test_bare_clones_worktrees_packed_refs_and_the_git_folder_itself(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(repository), "copy.git")
    git(tmp_path / "copy.git", "pack-refs", "--all")
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "v1")
    bare, tree, inside = tmp_path / "copy.git", tmp_path / "tree", repository / ".git"
    assert [source.label for source in found(bare, tree, inside)] == ["app", "copy", "tree"]
    whole = contents(repository)
    assert contents(bare) == contents(inside) == whole
    assert contents(tree) == contents(f"{bare}@v1") == archive(repository, "v1")


def test_a_shallow_clone_is_read(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    assert contents(tmp_path / "shallow") == contents(repository)


def test_links_and_submodules_are_recorded(repository, tree):
    outer = tree("outer", {"a.py": "a = 1\n"})
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repository), "vendored")
    commit_all(outer, "first")
    head = git(repository, "rev-parse", "HEAD")
    assert problems(outer) == {"vendored": (Reason.SUBMODULE, f"at {head}")}
    assert problems(repository) == {"link.py": (Reason.SYMBOLIC_LINK, "")}


def test_a_folder_below_a_repository_is_a_plain_folder(repository):
    assert contents(repository / "src")["a.py"] == b"a = 'never committed'\n"


def test_commits_made_while_reading_change_nothing(tree):
    root = tree("app", {f"src/{number:04}.py": f"a = {number}\n" * 50 for number in range(500)})
    commit_all(root, "first")
    expected = contents(root)
    (source,) = found(root)
    stop = threading.Event()

    def work():
        for number in range(1000):
            if stop.is_set():
                return
            (root / f"src/{number % 500:04}.py").write_text(f"changed {number}")
            commit_all(root, str(number))
            if number % 5 == 4:
                git(root, "gc", "-q", "--prune=now")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(8):
            listed = list(source.shards())
            read = {file.path: file.data for shard in listed for file in shard.files(lambda path: True, MIB)}
            assert read == expected
    finally:
        stop.set()
        worker.join()
    assert git(root, "rev-list", "--count", "HEAD") > "2"
    assert contents(root) != expected


def test_shards_stay_as_they_are_when_their_blobs_do(tree):
    root = tree("app", {f"src/{number:05}.py": f"{number}" for number in range(3500)})
    first = commit_all(root, "first")
    before = {shard.name: shard.fingerprint for shard in shards(root)}
    (root / "src/01234.py").write_text("changed")
    second = commit_all(root, "second")
    after = shards(root)
    assert len([shard for shard in after if before.get(shard.name) != shard.fingerprint]) == 1
    assert {shard.commit for shard in after} == {second} != {first}


def test_git_variables_of_a_hook_do_not_redirect(repository, tree, monkeypatch):
    other = tree("other", {"b.py": "b = 1\n"})
    commit_all(other, "first")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    assert "src/a.py" in contents(repository)


def test_replacement_objects_are_not_what_a_commit_names(repository):
    git(
        repository,
        "replace",
        git(repository, "rev-parse", "HEAD:src/a.py"),
        git(repository, "rev-parse", "v1:README"),
    )
    assert contents(repository)["src/a.py"] == b"a = 2\n"


def test_a_partial_clone_never_reaches_for_its_remote(repository, tmp_path):
    """A repository's own configuration may name a command as its remote: it must not run."""
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{repository}", "partial.git")
    partial, marker = tmp_path / "partial.git", tmp_path / "ran"
    git(partial, "config", "protocol.ext.allow", "always")
    git(partial, "config", "remote.origin.url", f"ext::touch {marker}")
    subprocess.run(["git", "cat-file", "-p", "HEAD:README"], cwd=partial, capture_output=True)
    assert marker.exists()  # the trap works
    marker.unlink()
    with pytest.raises(
        InputError, match=r"is a partial clone that lacks files of \w+; `git -C .* fetch --refetch"
    ):
        shards(partial)
    assert not marker.exists()


@pytest.mark.parametrize("where", ["header", "content"])
def test_a_damaged_blob_is_recorded_and_its_neighbours_are_read(tree, where):
    texts = {f"{name}.py": os.urandom(3000).hex() for name in "abcde"}
    root = tree("app", texts)
    commit_all(root, "first")
    blob = git(root, "rev-parse", "HEAD:c.py")
    path = root / ".git/objects" / blob[:2] / blob[2:]
    damage(path, 0 if where == "header" else path.stat().st_size // 2, b"\xff" * 20)
    ((name, (reason, detail)),) = problems(root).items()
    assert (name, reason) == ("c.py", Reason.UNREADABLE)
    assert detail.startswith(f"git cannot read blob {blob}" + (" (" if where == "content" else ""))
    assert contents(root) == {name: text.encode() for name, text in texts.items() if name != "c.py"}


def test_a_blob_that_is_gone_since_it_was_listed_is_recorded(repository):
    (shard,) = shards(repository)
    blob = git(repository, "rev-parse", "HEAD:src/a.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    read = {file.path: file.detail for file in shard.files(lambda path: True, MIB) if file.problem}
    assert read == {"link.py": "", "src/a.py": f"git has no blob {blob}"}


def test_a_repository_that_is_gone_since_it_was_listed_is_said(repository):
    (shard,) = shards(repository)
    repository.rename(repository.with_name("moved"))
    with pytest.raises(InputError, match=r"app/\.git is gone since it was listed; run the same command again"):
        list(shard.files(lambda path: True, MIB))


def test_a_corrupted_pack_is_said(tree):
    root = tree("app", {f"{number}.py": os.urandom(2000).hex() for number in range(50)})
    commit_all(root, "first")
    git(root, "gc", "-q")
    (pack,) = root.glob(".git/objects/pack/*.pack")
    damage(pack, pack.stat().st_size // 2, b"\xff" * 3000)
    bad = problems(root)
    assert 0 < len(bad) < 50
    assert all(
        reason == Reason.UNREADABLE and detail.startswith("git cannot read blob")
        for reason, detail in bad.values()
    )
    assert len(contents(root)) == 50 - len(bad)
    damage(pack, 0, b"\xff" * pack.stat().st_size)
    with pytest.raises(
        InputError, match=r"app has no revision 'HEAD'|git cannot list .*app .*; run `git -C .*app fsck`"
    ):
        shards(root)


def test_pointers_of_git_lfs_are_recorded(tree):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    root = tree("app", {"model.bin": pointer})
    commit_all(root, "first")
    assert problems(root) == {"model.bin": (Reason.NOT_A_FILE, "git LFS pointer to 12345 bytes")}


def test_large_and_unwanted_blobs_are_not_asked_for(repository):
    assert problems(repository, max_bytes=100)["data.bin"] == (Reason.TOO_LARGE, "3996 bytes, more than 100")
    read = files(repository, wanted=lambda path: path == "README", max_bytes=100)
    assert {file.path for file in read if file.data is not None} == {"README"}
    assert {file.path for file in read if file.problem} == {"link.py"}


def test_reading_may_stop_anywhere(repository):
    for shard in shards(repository):
        reading = shard.files(lambda path: True, MIB)
        next(reading)
        reading.close()


def test_a_repository_without_a_commit_is_said(tmp_path):
    git(tmp_path, "init", "-q", "fresh")
    with pytest.raises(InputError, match="fresh has no revision 'HEAD'"):
        found(tmp_path / "fresh")


def test_without_git_the_remedy_is_said(repository, monkeypatch, tmp_path):
    listed = shards(repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed; install git"):
        found(repository)
    with pytest.raises(InputError, match="git is not installed; install git"):
        list(listed[0].files(lambda path: True, MIB))
