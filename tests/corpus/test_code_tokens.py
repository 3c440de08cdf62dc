import io
import keyword
import sysconfig
import time
import tokenize
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus.code_tokens import code_tokens, token_weight

LANGUAGES = ("python", "c", "php", "ruby", "lua", "racket", "markdown")


def scan(code, language="python"):
    return code_tokens(np.frombuffer(code.encode(), np.uint8), language)


def same(first, second, language="python"):
    return all(
        np.array_equal(one, other)
        for one, other in zip(scan(first, language), scan(second, language), strict=True)
    )


def by_tokenize(code):
    """Tokens of Python by the standard library: (literal or None for a name, distance to its last use)."""
    literals, last = [], {}
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        text = token.string
        if token.type == tokenize.NAME and not keyword.iskeyword(text) and before != ".":
            literals.append((None, len(literals) - last.get(text, len(literals))))
            last[text] = len(literals) - 1
        elif token.type in (tokenize.NAME, tokenize.NUMBER):
            literals.append((text, 0))
        elif token.type == tokenize.STRING:
            content = text.lstrip("rRbBuUfF")
            if not content.startswith(('"""', "'''")):
                inside = content[1:-1].replace("\\", "")
                literals.append(("a string with a brace" if "{" in inside else ("string", inside), 0))
        elif token.type == tokenize.OP:
            literals += [(character, 0) for character in text if character not in ",;()"]
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = text
    return literals


@pytest.mark.parametrize("name", ["bisect", "shlex", "textwrap", "heapq", "sched", "queue", "functools", "copy"])
def test_python_tokens_are_those_of_the_standard_library(name):
    code = Path(sysconfig.get_path("stdlib"), f"{name}.py").read_text(encoding="utf-8")
    expected = by_tokenize(code)
    tokens, distances = scan(code)
    assert len(tokens) == len(expected)
    assert distances.tolist() == [distance for _, distance in expected]
    assert [token == 0 for token in tokens] == [literal is None for literal, _ in expected]
    pairs = {(literal, int(token)) for (literal, _), token in zip(expected, tokens, strict=True)}
    assert len(pairs) == len({literal for literal, _ in pairs}) == len({token for _, token in pairs})


CODE = "def total(xs, start=0):\n    for x in xs:\n        start += x.size * 2\n    return start\n"


def test_consistent_names_change_nothing_and_anything_else_does():
    assert same(CODE, CODE.replace("xs", "values").replace("start", "zero").replace("total", "f"))
    assert not same(CODE, CODE.replace("for x in xs", "for xs in xs"))  # two names become one
    assert not same(CODE, CODE.replace("return start", "return begin"))  # one name becomes two
    assert not same(CODE, CODE.replace(".size", ".length"))  # an attribute is no free name
    assert not same(CODE, CODE.replace("2", "3"))
    assert not same(CODE, CODE.replace("for", "while"))


@pytest.mark.parametrize(
    ("language", "first", "second"),
    [
        ("python", 'x = f("a", 1)  # why\n', "x = f(\n    'a',\n    1,\n)\n"),
        ("python", 'def f(x):\n    """Say why."""\n    return x\n', "def f(x):\n  return (x)\n"),
        ("python", r"re.sub(r'\w+', '')", r"re.sub('\\w+', '')"),
        ("javascript", "let x = f('a'); // why\n", 'let x = f(\n  "a"\n) /* why */\n'),
        ("c++", "int f(int x) { return x; } // it's\n", "int f(int x)\n{\n    return x;\n}\n"),
        ("lua", "local x = 1 -- why\n", "local x = 1"),
        ("racket", "(define (f x) x) ; why\n", "(define (f x)\n  x)"),
        ("ruby", "x = [1] # why\n", "x = [1]"),
        ("rust", "for i in 0..xs.len() {}", "for k in 0..values.len() {}"),
    ],
)
def test_layout_and_comments_are_no_tokens(language, first, second):
    assert same(first, second, language)


def test_weight_counts_what_is_not_common_thrice():
    def weight(code):
        return token_weight(scan(code)[0], "python")

    assert weight("for x in xs : return x + 1") == 9
    assert weight("x.append[17]") == 1 + 1 + 3 + 1 + 3 + 1
    assert weight('"text"') == 3


@given(st.text(st.sampled_from("ab1.'\"`\\/*#-;,(){}\n é漢\0"), max_size=60), st.sampled_from(LANGUAGES))
def test_any_text_has_tokens(text, language):
    tokens, distances = scan(text, language)
    assert len(tokens) == len(distances) <= len(text.encode())
    assert all(0 <= distance <= place for place, distance in enumerate(distances))
    for place, distance in enumerate(distances):
        assert distance == 0 or tokens[place] == tokens[place - distance] == 0


@pytest.mark.parametrize("unit", ["'", '"', "`", '"""\\', "/*", "\\", "'\\", "`\\", "a ", "(", "#", "x1 "])
@pytest.mark.parametrize("language", ["python", "c"])
def test_time_is_linear_in_what_never_closes(unit, language):
    scan("x", language)
    begun = time.process_time()
    scan(unit * (3_000_000 // len(unit)), language)
    assert time.process_time() - begun < 3


def test_many_names_are_told_apart():
    names = [f"n{number}" for number in range(5000)]
    distances = scan(" ".join(names + names))[1]
    assert distances.tolist() == [0] * 5000 + [5000] * 5000
