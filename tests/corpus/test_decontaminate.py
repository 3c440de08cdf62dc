import ast
import json
import pickle
import random
import re
import sysconfig
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midspan.corpus.decontaminate import Decontaminator, Hit, Item, Part, load_items

STDLIB = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def items(shared_data):
    return [item for item in load_items([shared_data]) if item.id not in ("test/0", "0")]  # `return 1`


@pytest.fixture(scope="module")
def index(items):
    return Decontaminator.build(items)


@pytest.fixture(scope="module")
def hosts():
    """Real modules with a definition to stand before."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(STDLIB.glob("*.py"))]
    return [text for text in texts if len(text) < 20_000 and "\ndef " in text]


def planted(text, hosts, number):
    """A real file with the text before one of its definitions."""
    host = hosts[number % len(hosts)]
    at = random.Random(number).choice([match.start() + 1 for match in re.finditer("\ndef ", host)])
    return f"{host[:at]}{text}\n{host[at:]}"


def one(item, kind):
    """The longest question, or the first part of another kind; an empty string where there is none."""
    texts = [part.text for part in item.parts if part.kind == kind] or [""]
    return max(texts, key=len) if kind == "question" else texts[0]


def language(item):
    return next((part.language for part in item.parts if part.language), "text")


def missed(index, items, hosts, text_of, hows=("verbatim", "whitespace", "renamed")):
    """The items that are not found where `text_of(item)` is planted."""
    return [
        (item.benchmark, item.id)
        for number, item in enumerate(items)
        if not any(
            (hit.benchmark, hit.id) == (item.benchmark, item.id) and hit.how in hows
            for hit in index.hits(planted(text_of(item), hosts, number), language(item))
        )
    ]


def whole(item):
    return "\n\n".join(filter(None, (one(item, kind) for kind in ("question", "solution", "tests"))))


def test_every_item_is_found_verbatim(index, items, hosts):
    assert missed(index, items, hosts, whole, hows=("verbatim",)) == []


def test_questions_alone_are_found_verbatim_however_short(index, items, hosts):
    short = [item for item in items if item.benchmark == "mbpp" and len(one(item, "question").split()) < 13]
    assert len(short) > 250
    assert missed(index, short, hosts, lambda item: one(item, "question"), hows=("verbatim",)) == []
    # the Rust prompts that are nothing but "Add two numbers x and y" and "Return n-th Fibonacci number."
    others = [item for item in items if item not in short]
    misses = missed(index, others, hosts, lambda item: one(item, "question"), hows=("verbatim",))
    assert misses == [("humaneval_x", "Rust/53"), ("humaneval_x", "Rust/55")]


def indented(unit):
    return lambda text: re.sub("^ +", lambda run: unit * (len(run[0]) // 4 + 1), text, flags=re.MULTILINE)


REFORMATS = {
    "tabs": indented("\t"),
    "two spaces": indented("  "),
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "wraps": lambda text: "\n".join(textwrap.wrap(text, 60)),
    "quotes": lambda text: text.replace("'", '"'),
    "line comments": lambda text: textwrap.indent(text, "// ", lambda line: True),
    "block comment": lambda text: "/*\n" + textwrap.indent(text, " * ", lambda line: True) + "\n */",
    "JSON": json.dumps,
    "carriage returns": lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    "capitals": str.upper,
}


@pytest.mark.parametrize("name", REFORMATS)
def test_reformatted_items_are_found(index, items, hosts, name):
    some = items[sorted(REFORMATS).index(name) :: 4]
    misses = missed(index, some, hosts, lambda item: REFORMATS[name](whole(item)), hows=("verbatim", "whitespace"))
    assert len(misses) <= 0.001 * len(some), misses


class Rename(ast.NodeTransformer):
    """Give every name that the program binds another one, and drop docstrings."""

    def __init__(self, tree):
        bound = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        self.names = {name: f"other_{number}" for number, name in enumerate(sorted(bound))}

    def generic_visit(self, node):
        super().generic_visit(node)
        for field in ("id", "arg", "name"):
            if isinstance(getattr(node, field, None), str) and not isinstance(node, ast.keyword | ast.alias):
                setattr(node, field, self.names.get(getattr(node, field), getattr(node, field)))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node


def renamed(item, *kinds):
    """The item's code, printed from its syntax tree with other names; None where it does not parse."""
    code, head = [one(item, kind).replace("\r\n", "\n") for kind in kinds], one(item, "question")
    for first in (code[0], f"{head}\n    {code[0]}"):
        try:
            tree = ast.parse("\n\n".join([first, *code[1:]]))
        except SyntaxError:
            continue
        return ast.unparse(Rename(tree).visit(tree))
    return None


@pytest.mark.parametrize("benchmark", ["humaneval", "mbpp"])
def test_renamed_code_is_found_without_its_question(index, items, hosts, benchmark):
    codes = {item: renamed(item, "solution", "tests") for item in items if item.benchmark == benchmark}
    some = [item for item, code in codes.items() if code]
    assert len(some) >= 0.97 * len(codes)
    misses = missed(index, some, hosts, codes.get)
    assert len(misses) <= 0.05 * len(some), misses


def test_an_inconsistent_change_of_names_is_another_program(index, items):
    (item,) = (item for item in items if item.benchmark == "mbpp" and item.id == "141")
    code = next(part.text for part in item.parts if part.kind == "solution")
    assert index.hits(code.replace("nums", "values"), "python") == (Hit("mbpp", "141", "renamed"),)
    assert (
        index.hits(code.replace("nums[0:arr_len]", "values[0:arr_len]").replace("arr_len-1", "n-1"), "python")
        == ()
    )


def test_real_code_is_not_flagged(index):
    paths = [path for folder in (STDLIB, STDLIB / "test") for path in sorted(folder.glob("*.py"))]
    flags = Counter()
    for path in paths:
        flags.update(index.hits(path.read_text(encoding="utf-8", errors="replace"), "python"))
    assert len(paths) > 200
    assert not flags


@pytest.mark.parametrize(
    "code",
    [
        "return x + y",
        "return len(string)",
        "return n**2",
        "return ''.join(strings)",
        "    while b:\n        a, b = b, a % b\n    return a\n",
        "def gcd(a, b):\n    while b != 0:\n        a, b = b, a % b\n    return a\n",
        "def average(lst):\n    return sum(lst) / len(lst)\n",
        "m = xs[0]\nfor x in xs:\n    if x > m:\n        m = x\nreturn m\n",
        "for x in xs:\n    if x not in seen:\n        seen.append(x)\nreturn seen\n",
        "if (n <= 1) {\n    return n;\n}\nreturn f(n - 1) + f(n - 2);\n}",
    ],
)
def test_what_code_says_everywhere_is_no_evidence(index, code):
    assert index.hits(code, "python") == index.hits(code, "java") == ()


def test_evidence_from_question_and_solution_adds_up():
    question, solution = (
        Part("question", "Return the length of it."),
        Part("solution", "return len(text_of_it) - 1", "python"),
    )
    index = Decontaminator.build([Item("b", "1", (question, solution))])
    assert index.hits("def f(text_of_it):\n    # Return the length of it.\n    return 1", "python") == ()
    assert index.hits("def f(text_of_it):\n    return len(text_of_it) - 1", "python") == ()
    both = "def f(text_of_it):\n    # Return the length of it.\n    return len(text_of_it) - 1"
    assert index.hits(both, "python") == (Hit("b", "1", "verbatim"),)


def test_a_short_question_ends_where_the_sentence_ends():
    index = Decontaminator.build(
        [Item("mbpp", "257", (Part("question", "Write a function to swap two numbers."),))]
    )
    for copy in ("Write a function to swap two numbers.", "// WRITE A FUNCTION to swap two numbers\nint a;"):
        assert index.hits(copy, "text") == (Hit("mbpp", "257", "verbatim" if "." in copy else "whitespace"),)
    assert index.hits("Write a function to swap two numbers using pointers.", "text") == ()
    twice = "Write a function to swap two numbers using pointers. Write a function to swap two numbers."
    assert index.hits(twice, "text") == (Hit("mbpp", "257", "verbatim"),)


def test_a_hit_names_every_benchmark_that_has_the_item(index, items):
    text = next(one(item, "question") for item in items if item.id == "HumanEval/10")
    assert {hit.benchmark for hit in index.hits(text, "python")} >= {
        "humaneval",
        "humaneval_infilling",
        "humaneval_x",
    }


def test_an_index_survives_files_and_processes(index, items, tmp_path):
    index.save(tmp_path / "index")
    text = whole(items[100])
    for copy in (Decontaminator.open(tmp_path / "index"), pickle.loads(pickle.dumps(index))):
        assert copy.fingerprint == index.fingerprint
        assert copy.hits(text, "python") == index.hits(text, "python") != ()


def test_the_fingerprint_names_the_items():
    item = Item("b", "1", (Part("question", "Return the length of a list of numbers."),))
    prints = {
        Decontaminator.build(some).fingerprint
        for some in ([], [item], [Item("b", "2", item.parts)], [Item("b", "1", (Part("question", "Another."),))])
    }
    assert len(prints) == 4
    assert Decontaminator.build([item]).fingerprint in prints
    assert Decontaminator.build([]).hits("Return the length of a list of numbers.", "text") == ()


@given(st.text(max_size=200), st.sampled_from(["python", "c", "text", "", "no such language"]))
@example("\ud800 a lone surrogate", "python")
@example("\\" * 7 + "u00", "python")
def test_any_text_can_be_searched(index, text, language):
    assert isinstance(index.hits(text, language), tuple)


@pytest.mark.parametrize(
    "unit", ["a", "a ", "return x + y\n", "漢", "\\n", "Write a function to swap two numbers. "]
)
def test_time_is_linear(index, unit):
    index.hits(unit, "python")
    begun = time.process_time()
    index.hits(unit * (5_000_000 // len(unit)), "python")
    assert time.process_time() - begun < 5


def test_a_file_of_all_items_takes_no_longer_than_another(index, items):
    text = "\n".join(part.text for item in items for part in item.parts)
    begun = time.process_time()
    assert len(index.hits(text, "python")) >= len(items) - 2
    assert time.process_time() - begun < 10
