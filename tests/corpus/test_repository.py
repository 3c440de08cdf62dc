import random
import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus.document import Document
from midspan.corpus.imports import dependencies
from midspan.corpus.language import LANGUAGES, language_of
from midspan.corpus.repository import _COMMENT_OF, order, path_header, reading_order, repository_documents
from midspan.errors import InputError

PACKAGES = Path(sysconfig.get_path("purelib"))


def files(texts: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {path: (language_of(path), text) for path, text in texts.items()}


def document(
    path: str, text: str, group: str = "shop", source: str = "code", commit: str | None = None
) -> Document:
    return Document(source=source, group=group, path=path, text=text, language=language_of(path), commit=commit)


# The order

SHOP = {
    "README.md": "# Shop",
    "LICENSE": "",
    "docs/README.md": "",
    "docs/guide.md": "",
    "setup.py": "",
    "src/shop/__init__.py": "from .cart import Cart",
    "src/shop/cart.py": "from shop import prices",
    "src/shop/prices.py": "",
    "src/shop/prices.csv": "1,2",
    "src/shop/unused.py": "",
    "src/shop/web/README.txt": "",
    "src/shop/web/about.html": "",
    "src/shop/web/views.py": "import shop.cart",
    "tests/data/a/cart.json": "{}",
    "tests/test_cart.py": "import shop",
}
SHOP_ORDER = [
    *("README.md", "LICENSE", "setup.py", "docs/README.md", "docs/guide.md"),
    *(
        "src/shop/prices.csv",
        "src/shop/unused.py",
        "src/shop/prices.py",
        "src/shop/cart.py",
        "src/shop/__init__.py",
    ),
    *("src/shop/web/README.txt", "src/shop/web/about.html", "src/shop/web/views.py"),
    *("tests/data/a/cart.json", "tests/test_cart.py"),
]


def test_dependencies_first_and_files_without_links_before_those_of_their_folder():
    assert reading_order(files(SHOP)) == SHOP_ORDER


def test_the_order_of_the_mapping_does_not_matter():
    shuffled = dict(random.Random(0).sample(sorted(SHOP.items()), len(SHOP)))
    assert reading_order(files(shuffled)) == SHOP_ORDER


def test_one_repository_of_several_languages():
    assert reading_order(
        files(
            {
                "main.c": '#include "util.h"',
                "util.h": "",
                "web/app.ts": "import './lib'",
                "web/lib.ts": "",
                "a.py": "import b",
                "b.py": "",
            }
        )
    ) == ["b.py", "a.py", "util.h", "main.c", "web/lib.ts", "web/app.ts"]


def test_a_repository_without_links_is_sorted_with_each_readme_first():
    names = ["b.txt", "a/z.txt", "a/README", "a/b/c.txt", "readme.rst", "a.txt"]
    assert order({name: [] for name in names}) == [
        "readme.rst",
        "a.txt",
        "b.txt",
        "a/README",
        "a/z.txt",
        "a/b/c.txt",
    ]
    assert order({}) == []


def test_a_file_that_uses_a_cycle_comes_after_the_cycle():
    """DeepSeek's rule would take `a`, which waits for one file, before `x`, `y` and `z`, which wait for two."""
    needs = {"a": ["x"], "x": ["y", "z"], "y": ["x", "z"], "z": ["x", "y"]}
    assert order(needs).index("x") < order(needs).index("a")


def test_a_cycle_is_opened_where_the_fewest_imports_are_lost():
    needs = {"a": ["hub"], "b": ["hub"], "c": ["hub", "a", "b"], "hub": ["c"]}
    assert order(needs) == ["hub", "a", "b", "c"]


GRAPHS = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join).map("{}.py".format),
    st.lists(st.integers(0, 30), max_size=4),
    max_size=16,
)


def graph(drawn: dict[str, list[int]], *, acyclic: bool) -> dict[str, list[str]]:
    paths = list(drawn)
    needs = {}
    for number, (path, wanted) in enumerate(drawn.items()):
        others = paths[:number] if acyclic else [other for other in paths if other != path]
        needs[path] = sorted({others[index % len(others)] for index in wanted} if others else set())
    return needs


@given(GRAPHS)
def test_no_edge_of_an_acyclic_graph_is_violated(drawn):
    needs = graph(drawn, acyclic=True)
    found = order(needs)
    assert sorted(found) == sorted(needs)
    place = {path: index for index, path in enumerate(found)}
    assert all(place[other] < place[path] for path, others in needs.items() for other in others)


def reachable(needs: dict[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    pending = [start]
    while pending:
        for other in needs[pending.pop()]:
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return seen


@given(GRAPHS, st.randoms())
def test_only_edges_of_a_cycle_are_violated(drawn, rng):
    needs = graph(drawn, acyclic=False)
    found = order(needs)
    assert sorted(found) == sorted(needs)
    place = {path: index for index, path in enumerate(found)}
    for path, others in needs.items():
        for other in others:
            assert place[other] < place[path] or path in reachable(needs, other)
    assert order(dict(rng.sample(list(needs.items()), len(needs)))) == found


@given(GRAPHS)
def test_unlinked_files_of_a_folder_stay_together(drawn):
    needs = graph(drawn, acyclic=False)
    linked = {path for path, others in needs.items() for path in (path, *others) if others}
    found = order(needs)
    for folder in {path.rpartition("/")[0] for path in needs}:
        places = [index for index, path in enumerate(found) if path.rpartition("/")[0] == folder]
        unlinked = [index for index in places if found[index] not in linked]
        if unlinked:
            assert not {path.rpartition("/")[0] for path in found[unlinked[0] : unlinked[-1]]} - {folder}
            assert unlinked[-1] < min([index for index in places if found[index] in linked], default=len(found))


def test_a_long_chain_and_a_large_repository_take_near_linear_time():
    chain = {f"{index:06}.py": [f"{index + 1:06}.py"] for index in range(19_999)} | {"019999.py": []}
    rng = random.Random(0)
    paths = [f"p{index // 300}/q{index % 300 // 20}/{index}.py" for index in range(20_000)]
    needs = {
        path: [paths[rng.randrange(20_000 if rng.random() < 0.02 else index + 1)] for _ in range(5)]
        for index, path in enumerate(paths)
    }
    begun = time.process_time()
    assert order(chain) == sorted(chain, reverse=True)
    assert len(order(needs)) == 20_000
    assert time.process_time() - begun < 4  # 100,000 files are in benchmarks/corpus/repository.py


@pytest.mark.parametrize("package", ["requests", "rich", "hypothesis"])
def test_the_order_of_real_packages(package):
    if not (PACKAGES / package).is_dir():
        pytest.skip(f"{package} is not installed in {PACKAGES}")
    paths = sorted((PACKAGES / package).rglob("*.py"))
    needs = dependencies(
        {path.relative_to(PACKAGES).as_posix(): ("python", path.read_text("utf-8")) for path in paths}
    )
    place = {path: index for index, path in enumerate(order(needs))}
    edges = [(path, other) for path, others in needs.items() for other in others]
    late = [(path, other) for path, other in edges if place[other] > place[path]]
    assert len(edges) > 50
    assert len(late) < 0.15 * len(edges)
    assert all(path in reachable(needs, other) for path, other in late)


# Documents


def test_a_repository_becomes_one_document():
    given = [
        document("a.py", "import b\n\n\n", commit="c0ffee"),
        document("README.md", "# Shop", commit="c0ffee"),
        document("b.py", "x = 1\n", commit="c0ffee"),
    ]
    assert list(repository_documents(given)) == [
        Document(
            source="code",
            group="shop",
            path="",
            text="<!-- path: README.md -->\n# Shop\n# path: b.py\nx = 1\n# path: a.py\nimport b\n",
            language="python",
            commit="c0ffee",
        )
    ]


def test_repositories_follow_each_other_and_one_is_held_at_a_time():
    read = []

    def stream():
        for source, group in (("s", "a"), ("s", "b"), ("t", "b")):
            for name in ("x.py", "y.py"):
                read.append((source, group, name))
                yield document(name, "", group, source)

    documents = repository_documents(stream())
    first = next(documents)
    assert (first.source, first.group, len(read)) == ("s", "a", 3)  # the first file of the next one tells the end
    assert [(one.source, one.group, one.path) for one in documents] == [("s", "b", ""), ("t", "b", "")]
    assert list(repository_documents([])) == []


def test_a_long_repository_is_split_at_file_borders():
    given = [document("a.py", "import b"), document("b.py", "x" * 30), document("c.go", "y" * 100)]
    whole = [path_header(one.path, one.language) + one.text + "\n" for one in (given[2], given[1], given[0])]
    fits = len(whole[1]) + len(whole[2])
    assert [(one.path, one.text) for one in repository_documents(given, max_chars=fits)] == [
        ("part-1", whole[0]),
        ("part-2", whole[1] + whole[2]),
    ]
    parts = list(repository_documents(given, max_chars=fits - 1))
    assert [(one.path, one.text) for one in parts] == [
        ("part-1", whole[0]),
        ("part-2", whole[1]),
        ("part-3", whole[2]),
    ]
    assert [one.language for one in parts] == ["go", "python", "python"]
    assert len({one.id for one in parts}) == 3
    assert [one.path for one in repository_documents(given, max_chars=len("".join(whole)))] == [""]


@pytest.mark.parametrize("max_chars", [0, -1])
def test_a_length_that_is_none_is_an_error(max_chars):
    with pytest.raises(InputError, match=f"max_chars is {max_chars}"):
        list(repository_documents([], max_chars=max_chars))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["x.py", "d/y.py", "d/z.c", "README.md", "w", "e/v.html"]),
            st.text(st.sampled_from("ab\n#: é<"), max_size=30),
        ),
        max_size=12,
    ),
    st.none() | st.integers(1, 80),
)
def test_every_file_is_found_whole_and_once(drawn, max_chars):
    given = [document(path, text, group) for group, path, text in sorted(drawn, key=lambda item: item[0])]
    found = list(repository_documents(given, max_chars=max_chars))
    for group in {one.group for one in given}:
        sections = [
            path_header(one.path, one.language) + one.text.rstrip("\n") + "\n"
            for one in given
            if one.group == group
        ]
        texts = [one.text for one in found if one.group == group]
        assert sum(map(len, texts)) == sum(map(len, sections))
        for text in texts:  # each is a sequence of sections, which are used up
            while text:
                section = max((one for one in sections if text.startswith(one)), key=len)
                sections.remove(section)
                text = text.removeprefix(section)
            assert max_chars is None or len(text) <= max_chars or text.count("path: ") == 1
        assert sections == []


def test_headers_are_comments_of_their_language():
    assert set(_COMMENT_OF) <= LANGUAGES
    assert path_header("a/b.py", "python") == "# path: a/b.py\n"
    assert path_header("b.ts", "typescript") == "// path: b.ts\n"
    assert path_header("a.css", "css") == "/* path: a.css */\n"
    assert path_header("index.html", "html") == "<!-- path: index.html -->\n"
    assert path_header("x", "no such language") == "# path: x\n"
    assert path_header("a\nb.sql", "sql") == "-- path: a\\nb.sql\n"  # a name never makes a second line
