"""Folders and real git repositories; `git archive` is the oracle for what a revision holds."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from corpus.conftest import commit_all, git
from midspan.corpus import Reason
from midspan.corpus.sources import open_sources
from midspan.errors import InputError

NOWHERE = Path("/nowhere")


def opened(*specs):
    return open_sources([str(spec) for spec in specs], excluded=NOWHERE)


def contents(source):
    """Path → bytes of every readable entry of a source."""
    with source:
        return {e.path: source.read(e, 1 << 20) for e in source.entries() if e.problem is None}


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
    (root / "link.py").symlink_to("src/a.py")
    commit_all(root, "second")
    (root / "src/a.py").write_text("a = 'never committed'\n")
    (root / "untracked.py").write_text("secret = 1\n")
    return root


@pytest.mark.parametrize("revision", [None, "v1", "HEAD", "HEAD~1", "HEAD@{0}"])
def test_a_repository_is_what_git_archive_gives(repository, revision):
    spec = str(repository) if revision is None else f"{repository}@{revision}"
    (source,) = opened(spec)
    assert contents(source) == archive(repository, revision or "HEAD")
    assert source.commit == git(repository, "rev-parse", revision or "HEAD")
    assert source.group == "app"
    assert source.label == ("app" if revision is None else f"app@{revision}")


def test_bare_clones_worktrees_and_the_git_folder_itself(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(repository), "copy.git")
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "v1")
    bare, tree, inside = opened(tmp_path / "copy.git", tmp_path / "tree", repository / ".git")
    assert (bare.label, tree.label, inside.label) == ("copy", "tree", "app")
    assert contents(bare) == contents(inside) == archive(repository, "HEAD")
    assert contents(tree) == archive(repository, "v1")


def test_links_and_submodules_are_decisions(repository, tree):
    outer = tree("outer", {"a.py": "a = 1\n"})
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repository), "vendored")
    commit_all(outer, "first")
    sources = opened(outer, repository)
    problems = {(s.label, e.path): e.problem for s in sources for e in s.entries() if e.problem}
    assert problems == {("outer", "vendored"): Reason.SUBMODULE, ("app", "link.py"): Reason.SYMBOLIC_LINK}


def test_a_folder_below_a_repository_is_a_plain_folder(repository):
    (source,) = opened(repository / "src")
    assert contents(source)["a.py"] == b"a = 'never committed'\n"
    assert source.commit is None


def test_groups_of_a_plain_folder_are_its_first_level(tree):
    (source,) = opened(tree("packages", {"json/a.py": "", "json/sub/b.py": "", "six.py": ""}))
    assert {e.path: e.group for e in source.entries()} == {
        "json/a.py": "json",
        "json/sub/b.py": "json",
        "six.py": "six.py",
    }


def test_git_variables_of_a_hook_do_not_redirect(repository, tree, monkeypatch):
    other = tree("other", {"b.py": "b = 1\n"})
    commit_all(other, "first")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    (source,) = opened(repository)
    assert "src/a.py" in contents(source)


def test_a_partial_clone_never_reaches_for_its_remote(repository, tmp_path):
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{repository}", "partial.git")
    (source,) = opened(tmp_path / "partial.git")
    with pytest.raises(InputError, match=r"git cannot (list|read) .*; run `git -C .* fsck`"):
        contents(source)


def test_a_damaged_blob_is_said(repository):
    blob = git(repository, "rev-parse", "HEAD:src/a.py")
    path = repository / ".git/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(b"garbage")
    (source,) = opened(repository)
    with pytest.raises(InputError, match="git cannot"):
        contents(source)


def test_names_take_the_parents_they_need(tree):
    roots = [tree(name, {"a.py": ""}) for name in ("x/src", "y/src", "lib", "mail@home")]
    assert [source.label for source in opened(*roots)] == ["x/src", "y/src", "lib", "mail@home"]


def test_two_revisions_of_one_repository_are_one_group(repository):
    first, second = opened(f"{repository}@v1", repository)
    assert (first.label, second.label) == ("app@v1", "app")
    assert first.group == second.group == "app"


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ([], "no source was named"),
        (["{tmp}/absent"], "source '.*/absent' is not there; name a folder or a git repository"),
        (["https://example.org/a.git"], "source 'https://example.org/a.git' is not there"),
        ([""], "source '' is not there"),
        (["{tmp}/app/README"], "is a file; name its folder"),
        (["{tmp}/app", "{tmp}/app/../app"], "is named twice"),
        (["{tmp}/app@v9"], "app has no revision 'v9'; `git -C .*/app log --all --oneline` lists its commits"),
        (["{tmp}/app@--help"], "has no revision '--help'"),
        (["{tmp}/app/src@v1"], "asks for a revision, and .*/src is no git repository; name the folder alone"),
        (["{tmp}/app", "{tmp}/app.git"], "has the same name as another"),
    ],
)
def test_sources_that_cannot_be_used(repository, tmp_path, specs, sentence):
    (tmp_path / "app.git").mkdir()
    with pytest.raises(InputError, match=sentence):
        opened(*(spec.format(tmp=tmp_path) for spec in specs))


def test_a_repository_without_a_commit_is_said(tmp_path):
    git(tmp_path, "init", "-q", "fresh")
    with pytest.raises(InputError, match="fresh has no revision 'HEAD'"):
        opened(tmp_path / "fresh")


def test_without_git_the_remedy_is_said(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed; install git"):
        opened(repository)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_cannot_be_opened_is_a_decision(tree):
    root = tree("app", {"closed/a.py": "", "b.py": ""})
    (root / "closed").chmod(0)
    (source,) = opened(root)
    assert {e.path: e.problem for e in source.entries()} == {"closed": Reason.UNREADABLE, "b.py": None}
    (root / "closed").chmod(0o755)
