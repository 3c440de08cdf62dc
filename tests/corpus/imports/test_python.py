import importlib.machinery
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.imports.oracles import disagreements, edges, imports_of_ast, real_files
from midspan.corpus.imports import dependencies, python

PACKAGES = Path(sysconfig.get_path("purelib"))

PYTHON = [
    "import a",
    "import a.b.c as d, e",
    "from a import b",
    "from . import b as c, d",
    "from .a import (b, c as d,  # not (e)\n    f,\n)",
    "from .. a . b import *",
    "from ...a import(b)",
    "from a \\\n  import b, \\\n  c",
    "import \\\n a",
    "def f():\n    import a",
    "if x: import a; from b import c",
    "try: import a\nexcept ImportError: from b import a",
    "x = 'import a'; import b",
    "x = '''\nimport a\n'''\nimport b",
    '"""Doc.\n\nfrom a import b\n"""\nfrom c import d',
    "r'''\\\\'''\nimport a",
    "r'''\\'''\nimport a\n'''",
    "x = \"it's\"  # don't\nimport a",
    "x = '\\\nimport a'\nimport b",
    "# import a\nimport b  # import c",
    "x = f'{y!r:>{z}}'\nimport a",
    "def f():\n    raise E from e\nimport a",
    "def f():\n    yield from x\nimport été",
    "importlib.import_module('a')\nfromage = important = 1\nimport a",
    'x = """ \\""" import a\n"""\nimport b',
    "x = ''''a' ''' \nimport b",
    "x = ''\nimport a\ny = ''\nimport b",
    "class A:\n\timport a",
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_scan_finds_what_the_parser_finds(text):
    assert python.imports(text) == imports_of_ast(text)
    assert python.imports(text + "\n") == imports_of_ast(text)


@given(st.lists(st.sampled_from(PYTHON), max_size=8).map("\n".join))
def test_python_scan_finds_what_the_parser_finds_in_any_sequence(text):
    assert python.imports(text) == imports_of_ast(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a\nprint 'Python 2'\nfrom b import c\n", [python.Import("a"), python.Import("b", 0, ("c",))]),
        ("def f(:\n  import a\n)))\nimport b\n", [python.Import("a"), python.Import("b")]),
        ("from a import (b, c\n= 1\nimport d", [python.Import("a", 0, ("b", "c")), python.Import("d")]),
        ("<<<<<<< HEAD\nimport a\n=======\nimport b\n>>>>>>>\n", [python.Import("a"), python.Import("b")]),
    ],
)
def test_python_scan_survives_syntax_errors(text, expected):
    assert imports_of_ast(text) is None
    assert python.imports(text) == expected


def agreement_with_ast(limit: int) -> None:
    folders = [Path(sysconfig.get_path("stdlib")), PACKAGES]
    count, wrong, where = disagreements(real_files(folders, (".py",), limit), python.imports, imports_of_ast)
    print(f"{count} import statements, {wrong} differ")
    assert count > limit
    assert wrong <= 0.001 * count, where[:5]


def test_python_scan_agrees_with_the_parser_on_real_files():
    agreement_with_ast(200)


@pytest.mark.slow
def test_python_scan_agrees_with_the_parser_on_thousands_of_real_files():
    agreement_with_ast(4000)


def test_python_absolute_and_relative_imports():
    assert edges(
        {
            "shop/__init__.py": "from shop.cart import Cart",
            "shop/cart.py": "from .prices import price\nfrom . import tax, VERSION\nimport json",
            "shop/prices.py": "import shop.tax",
            "shop/tax.py": "from .. import above_the_repository",
            "shop/json.py": "from __future__ import annotations",
            "shop/web/__init__.py": "",
            "shop/web/views.py": "from ..cart import Cart\nfrom ... import x\nfrom shop import web, tax",
        }
    ) == {
        "shop/__init__.py": ["shop/cart.py"],
        "shop/cart.py": ["shop/prices.py", "shop/tax.py", "shop/__init__.py"],  # and not shop/json.py
        "shop/prices.py": ["shop/tax.py"],
        "shop/web/views.py": ["shop/cart.py", "shop/web/__init__.py", "shop/tax.py"],
    }


def test_python_layouts():
    assert edges(
        {
            "src/shop/__init__.py": "",
            "src/shop/cart.py": "",
            "tests/test_cart.py": "import shop.cart, helpers\nfrom shop import Cart",
            "tests/helpers.py": "from google.cloud import storage",
            "lib/google/cloud/storage.py": "import tools.make",  # a namespace package has no __init__.py
            "tools/make.py": "import helpers",  # of another folder
            "other/deep/down/kit/__init__.py": "",
            "other/deep/down/kit/a.py": "",
            "tools/use.py": "from kit import a",  # a top-level package is found by its name
            "app/shop/__init__.py": "",
            "app/run.py": "import shop",  # the nearer of two
        }
    ) == {
        "tests/test_cart.py": ["src/shop/cart.py", "tests/helpers.py", "src/shop/__init__.py"],
        "tests/helpers.py": ["lib/google/cloud/storage.py"],
        "lib/google/cloud/storage.py": ["tools/make.py"],
        "tools/use.py": ["other/deep/down/kit/a.py"],
        "app/run.py": ["app/shop/__init__.py"],
    }


def test_python_modules_stand_before_their_stubs_and_behind_packages():
    files = {"a.py": "", "a.pyi": "", "b.pyi": "", "d.py": "", "d/__init__.py": "", "__init__.py": ""}
    found = edges(files | {"main.py": "import a, b, d\nfrom . import x"})
    assert found == {"main.py": ["a.py", "b.pyi", "d/__init__.py", "__init__.py"]}


def modules_of_importlib(path: Path, statement: python.Import) -> Iterator[str]:
    """The files that the interpreter's own path finder gives for a statement of a file in PACKAGES."""

    def file(name: str) -> str | None:
        where: list[str] | None = [str(PACKAGES)]
        origin = None
        for part in name.split("."):
            spec = importlib.machinery.PathFinder.find_spec(part, where) if where is not None else None
            if spec is None:
                return None
            where, origin = spec.submodule_search_locations and list(spec.submodule_search_locations), spec.origin
        return origin

    above = path.relative_to(PACKAGES).parts[:-1]
    package = ".".join(above[: len(above) - statement.level + 1]) if statement.level else ""
    module = ".".join(filter(None, (package, statement.module)))
    for name in statement.names or (None,):
        origin = file(module if name is None else f"{module}.{name}") or (file(module) if name else None)
        if origin and origin.endswith(".py") and Path(origin).is_relative_to(PACKAGES):
            yield Path(origin).relative_to(PACKAGES).as_posix()


@pytest.mark.parametrize("package", ["requests", "pip", "rich", "numpy", "hypothesis"])
def test_python_imports_lead_where_the_interpreter_finds_them(package):
    if not (PACKAGES / package).is_dir():
        pytest.skip(f"{package} is not installed in {PACKAGES}")
    paths = sorted((PACKAGES / package).rglob("*.py"))
    paths = random.Random(0).sample(paths, min(len(paths), 60))
    files = {
        path.relative_to(PACKAGES).as_posix(): ("python", path.read_text("utf-8"))
        for path in (PACKAGES / package).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    found = dependencies(files)
    expected_count = missed = extra = 0
    for path in paths:
        name = path.relative_to(PACKAGES).as_posix()
        statements = imports_of_ast(files[name][1]) or []
        expected = {file for statement in statements for file in modules_of_importlib(path, statement)} & set(
            files
        )
        expected.discard(name)
        expected_count += len(expected)
        missed += len(expected.difference(found[name]))
        extra += len(set(found[name]) - expected)
    assert expected_count > 20
    print(f"{package}: {expected_count} imports, {missed} missed, {extra} that are none")
    assert missed <= 0.02 * expected_count
    assert extra <= 0.02 * expected_count
