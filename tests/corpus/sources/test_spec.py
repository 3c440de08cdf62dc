"""How sources are named: which kind each is, what it is called, and what cannot be used."""

import json
import tarfile

import pytest

from corpus.conftest import commit_all, git
from corpus.sources.reading import files, found, shards
from midspan.corpus.sources.archive import Archive
from midspan.corpus.sources.folder import Folder
from midspan.corpus.sources.git import GitRepository
from midspan.corpus.sources.rows import Rows
from midspan.errors import InputError


@pytest.fixture
def places(tree, tmp_path):
    """One place of every kind."""
    row = json.dumps({"content": "a", "path": "a.py"})
    tree("work", {"a.py": "1", "x/b.jsonl": row})
    commit_all(tree("app", {"a.py": "1"}), "first")
    git(tmp_path / "app", "tag", "v1")
    tree("rows", {"a.jsonl": row, "README.md": "about"})
    tree("", {"one.jsonl": row, "mail@home/a.py": "1", "notes.txt": "prose"})
    with tarfile.open(tmp_path / "app.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "app/a.py", "app/a.py")
    return tmp_path


def test_what_is_named_decides_the_kind(places):
    kinds = {
        "work": Folder,
        "app": GitRepository,
        "app@v1": GitRepository,
        "app/.git": GitRepository,
        "rows": Rows,
        "one.jsonl": Rows,
        "app.tar.gz": Archive,
        "mail@home": Folder,
    }
    for name, kind in kinds.items():
        for prefix in ("", "text:"):
            (source,) = found(f"{prefix}{places}/{name}")
            assert type(source) is kind
            assert source.prose is bool(prefix)
            assert source.label == ("app" if name == "app/.git" else name)


def test_a_data_set_is_its_rows_even_in_a_git_repository(places):
    """As one is cloned from a hub: in git lie pointers, in the work tree the rows."""
    commit_all(places / "rows", "first")
    assert type(found(places / "rows")[0]) is Rows
    assert type(found(f"{places}/rows@HEAD")[0]) is GitRepository


def test_names_take_the_parents_they_need(tree):
    roots = [tree(name, {"a.py": ""}) for name in ("x/src", "y/src", "lib", "mail@home")]
    assert [source.label for source in found(*roots)] == ["lib", "mail@home", "x/src", "y/src"]


def test_the_order_of_specs_plays_no_part(places):
    specs = [places / name for name in ("work", "app", "one.jsonl", "app.tar.gz")]
    told = [[(shard.name, shard.fingerprint) for shard in shards(*order)] for order in (specs, specs[::-1])]
    assert told[0] == told[1]


def test_shards_have_names_of_their_own_across_sources(places):
    assert (
        len(shards(places / "work", places / "app", f"{places}/app@v1", places / "rows", places / "one.jsonl"))
        == 6
    )


def test_two_revisions_of_one_repository_are_one_group(places):
    first, second = found(f"{places}/app@v1", places / "app")
    assert (first.label, second.label) == ("app", "app@v1")
    assert {file.group for file in files(f"{places}/app@v1", places / "app")} == {"app"}


def test_a_link_to_a_source_is_the_source(places):
    (places / "link").symlink_to("work")
    assert found(places / "link")[0].label == "work"
    with pytest.raises(InputError, match="is named twice"):
        found(places / "link", places / "work")


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ([], "no source was named"),
        (["{tmp}/absent"], "source '.*/absent' is not there; name a folder or a git repository"),
        (["https://example.org/a.git"], "source 'https://example.org/a.git' is not there"),
        ([""], "source '' is not there"),
        (["text:"], "source 'text:' is not there"),
        (["~no-such-user/a"], "source '~no-such-user/a' is not there"),
        (["{tmp}/loop"], "source '.*/loop' is not there"),
        (["{tmp}/notes.txt"], r"notes.txt' is a file of no kind that is read \(.jsonl, .*.whl\); name its folder"),
        (["/dev/null"], "source '/dev/null' is a file of no kind"),
        (["{tmp}/app", "{tmp}/app/../app"], "is named twice"),
        (["{tmp}/one.jsonl", "text:{tmp}/one.jsonl"], "is named twice"),
        (["{tmp}/app@v9"], "app has no revision 'v9'; `git -C .*/app log --all --oneline` lists its commits"),
        (["{tmp}/app@--help"], "has no revision '--help'"),
        (["{tmp}/work/x@v1"], "asks for a revision, and .*/x is no git repository; name the folder alone"),
        (["{tmp}/one.jsonl@v1"], "one.jsonl@v1' is not there"),
        (["{tmp}/app", "{tmp}/app.git"], "has the same name as another"),
    ],
)
def test_sources_that_cannot_be_used(places, specs, sentence):
    (places / "app.git").mkdir()
    (places / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=sentence):
        found(*(spec.format(tmp=places) for spec in specs))
