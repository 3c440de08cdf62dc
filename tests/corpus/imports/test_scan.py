"""The shared scan, and what holds for every language."""

import os
import random
import time
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.imports.oracles import (
    disagreements,
    imports_of_go,
    imports_of_java,
    imports_of_javascript,
    includes_of_tree_sitter,
    real_files,
)
from corpus.imports.test_go import GO_FILES
from midspan.corpus.imports import c, dependencies, go, java, javascript, python
from midspan.corpus.imports.scan import by_folder, nearest
from midspan.corpus.language import language_of


def test_every_path_has_an_entry_and_the_order_of_the_mapping_does_not_matter():
    files = {
        path: (language_of(path), text) for path, text in {**GO_FILES, "a.py": "import b", "b.py": ""}.items()
    }
    shuffled = dict(random.Random(1).sample(sorted(files.items()), len(files)))
    assert dependencies(shuffled) == dependencies(files)
    assert list(dependencies(shuffled)) == sorted(files)


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(st.lists(PATHS, min_size=1), PATHS)
def test_the_nearest_shares_the_most_leading_folders(candidates, path):
    def shared(one: str) -> int:
        pairs = zip(one.split("/"), path.split("/"), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    assert shared(nearest(sorted(candidates, key=by_folder), path)) == max(map(shared, candidates))


HOSTILE = [
    *("import ", "from ", "from . ", "from 'a", "import {", "import(/*", "import(/**/", "require('", "from /* */"),
    *(
        '"',
        "'",
        "`",
        '"""',
        "'''",
        "\\",
        "\\\n",
        "\n",
        " ",
        "\t",
        "(",
        "/",
        "/[",
        " /[",
        "=/",
        "/*",
        "*/",
        "//",
        "#",
    ),
    *(
        "\nimport a,",
        "\nfrom a import (",
        "\nfrom a import b \\\n",
        ";import a",
        "\nfrom .",
        "\nimport a.",
        "\n import",
    ),
    *(
        '"""\\',
        "'\\",
        '""" """',
        "a.",
        "import a.b.",
        "package a.",
        "import static ",
        "\nimport (",
        '\nimport ("a"\n',
    ),
    *(
        'R"(',
        'R"x(',
        ')x"',
        "\n#include <",
        '\n#include "',
        "\n# ",
        "\n#include /*",
        "<script",
        '<script "',
        "<script>",
    ),
    *("A", "A ", "1'", "é", "${", "}", "\x00", "\r", "import a;", "from.", "\n;"),
]
SCANS = {
    "python": python.imports,
    "javascript": javascript.imports,
    "component": lambda text: javascript.imports(text, component=True),
    "configuration": lambda text: javascript._read(text),
    "java": lambda text: [java.package(text), *java.imports(java.without_noise(text))],
    "go": go.imports,
    "c": c.includes,
}
LAST = {"python": "\nimport a", "javascript": "\nimport 'a'", "java": ";import a;", "go": '\nimport "a"'}


NAMES = ["a", "b", "index", "__init__", "package", "tsconfig", "util", "A", "go", "main_test"]
ENDINGS = [".py", ".pyi", ".ts", ".js", ".d.ts", ".vue", ".java", ".go", ".mod", ".c", ".h", ".json", ""]
SPECIFIERS = [
    "a",
    "./a",
    "..",
    "../b",
    "a.b",
    ".",
    "",
    "/",
    "@a/b",
    "a/util",
    "util.h",
    "../util.h",
    "a.A",
    "a.*",
    "?a",
]
STATEMENTS = """
import {}
from {} import a, b
import '{}'
require('{}')
import {};
package {};
module {}
#include "{}"
#include <{}>
import "{}"
{"name": "{}", "main": "{}"}
{"extends": "./{}.json"}
{"compilerOptions": {"baseUrl": "{}", "paths": {"{}/*": ["{}"]}}}
<script>import '{}'</script>
A b;
""".strip().split("\n")
ANY_PATH = st.tuples(PATHS | st.just(""), st.sampled_from(NAMES), st.sampled_from(ENDINGS)).map(
    lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}".removeprefix("/")
)
ANY_TEXT = st.lists(
    st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(SPECIFIERS)).map(
        lambda two: two[0].replace("{}", two[1])
    )
    | st.sampled_from(HOSTILE)
).map("\n".join)


@given(st.dictionaries(ANY_PATH, ANY_TEXT, max_size=12), st.randoms())
def test_any_files_give_edges_inside_the_repository(texts, rng):
    files = {path: (language_of(path), text) for path, text in texts.items()}
    found = dependencies(files)
    assert list(found) == sorted(files)
    for path, needed in found.items():
        assert set(needed) <= files.keys() - {path}
        assert len(set(needed)) == len(needed)
    assert dependencies(dict(rng.sample(list(files.items()), len(files)))) == found


@pytest.mark.parametrize("scan", SCANS)
def test_scans_take_linear_time_on_hostile_text(scan):
    """100 kB of anything repeated take some 10 milliseconds; a quadratic scan would take many seconds."""
    pairs = [(one, other) for one in HOSTILE for other in random.Random(one).sample(HOSTILE, 1)]
    for pair in [*((one,) for one in HOSTILE), *pairs]:
        unit = "".join(pair)
        text = unit * (100_000 // len(unit)) + LAST.get(scan, '\n#include "a"')
        begun = time.process_time()
        SCANS[scan](text)
        assert time.process_time() - begun < 0.7, unit


@pytest.mark.parametrize("piece", ["a.", "a/", "../", "./", "..", "@a/", "a", "/"])
def test_names_of_any_length_take_linear_time(piece):
    name = piece * (300_000 // len(piece)) + "a"
    text = "\n".join(STATEMENTS).replace("{}", name)
    files = {path: (language_of(path), text) for path in ("a.py", "a.ts", "a.java", "a.go", "a.c")}
    begun = time.process_time()
    dependencies(files)
    assert time.process_time() - begun < 2


def test_a_repository_of_many_equal_names_takes_linear_time():
    files = {f"p{i}/util.h": ("c", '#include "x/util.h"\n#include <util.h>') for i in range(20_000)}
    files |= {f"p{i}/util.py": ("python", "import util, kit\nfrom kit import a") for i in range(20_000)}
    files |= {f"q{i}/kit/__init__.py": ("python", "") for i in range(20_000)}
    begun = time.process_time()
    found = dependencies(files)
    assert time.process_time() - begun < 10
    assert found["p7/util.h"] == []
    assert len(found["p7/util.py"]) == 1


def test_scans_agree_with_the_parsers_on_sources_at_hand():
    """MIDSPAN_SOURCES names folders of JavaScript, TypeScript, Java, Go, C or C++, such as checkouts."""
    if not os.environ.get("MIDSPAN_SOURCES"):
        pytest.skip("set MIDSPAN_SOURCES to folders of real code, separated by ':'")
    folders = [Path(folder) for folder in os.environ["MIDSPAN_SOURCES"].split(os.pathsep)]
    kinds = [
        ((".js", ".mjs", ".jsx", ".cjs"), javascript.imports, imports_of_javascript),
        ((".ts", ".mts"), javascript.imports, lambda text: imports_of_javascript(text, "typescript")),
        ((".tsx",), javascript.imports, lambda text: imports_of_javascript(text, "tsx")),
        ((".java",), lambda text: java.imports(java.without_noise(text)), imports_of_java),
        ((".go",), go.imports, imports_of_go),
        ((".c",), c.includes, lambda text: includes_of_tree_sitter(text, "c")),
        ((".h", ".cc", ".cpp"), c.includes, lambda text: includes_of_tree_sitter(text, "c++")),
    ]
    for endings, found, expected in kinds:
        count, wrong, where = disagreements(real_files(folders, endings, 1000), found, expected)
        print(f"{' '.join(endings)}: {count} imports, {wrong} differ")
        assert wrong <= 0.005 * count, where[:5]
