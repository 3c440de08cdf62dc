"""Where an infill ends: cases from editors, and what holds for every text however it comes in pieces."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midspan.errors import InputError
from midspan.fim.stops import EDITOR, Stopper, StopRules


def outcome(
    rules: StopRules, prefix: str, suffix: str, text: str, *, complete: bool = True
) -> tuple[str, str | None]:
    stopper = Stopper(rules, prefix, suffix)
    shown = stopper.push(text) + stopper.end(complete=complete)
    assert shown == stopper.text
    return shown, stopper.reason


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "expected"),
    [
        # the suffix's next line again, also behind blank lines
        ("def f(x):\n    y = x\n", "    return y + 1\n", "    y += 1\n    return y + 1\n\nf(2)\n", "    y += 1\n"),
        ("def f(x):\n    y = ", "\n    return y + 1\n", "x\n    return y + 1\n", "x"),
        ("def f(x):\n    y = ", "\n\n    return y + 1\n", "x\n\n\n    return y + 1\n", "x"),
        # at the end, without a newline
        ("def f(x):\n    y = ", "\n    return y + 1\n", "x\n    return y + 1", "x"),
        # the rest of the line again
        ("if x", ":\n    go()\n", " > 3:\n    stop()\n", " > 3"),
        ("x = call(a", ", flag=True)\n", ", b, flag=True)\n", ", b"),
        # a line that merely begins like the suffix's
        ("a\n", "    return y + 1\n", "    return y + 10\n", "    return y + 10\n"),
        # few characters prove nothing, until the next line agrees too
        ("", "\n}\nint main() {\n", "x = 1;\n}\nint other;", "x = 1;\n}\nint other;"),
        ("", "\n}\nint main() {\n", "x = 1;\n}\nint main() {\n", "x = 1;"),
        ("", "\n}\n", "x = 1;\n}\n", "x = 1;"),
    ],
)
def test_the_suffix_is_not_written_again(prefix: str, suffix: str, text: str, expected: str) -> None:
    found, reason = outcome(StopRules(suffix=True), prefix, suffix, text)
    assert found == expected
    assert reason == ("suffix" if found != text else None)


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "expected"),
    [
        ("def f(x):\n    ", "", "y = 1\n    return y\n\ndef g():\n    pass\n", "y = 1\n    return y\n"),
        ("def f(x):", "\n", "\n    return x\n\ndef g():\n", "\n    return x\n"),
        (
            "def f(x):",
            "\n",
            "\n    if x:\n        return 1\n    return 2\nf(1)",
            "\n    if x:\n        return 1\n    return 2",
        ),
        ("if x:", "\n", "\n    go()\nelse:\n    stop()\nrest()\n", "\n    go()\nelse:\n    stop()"),
        ("x = 1\n", "", "y = 2\n    z\nw\n", "y = 2\n    z\nw\n"),  # nothing lies further left than the margin
        ("  if (x) {\n    ", "\n  done();\n", "go();\n  }\n  more();\n", "go();\n  }"),
        ("  if (x) {\n    ", "\n  }\n", "go();\n  }\n  more();\n", "go();"),
        ("call(", "\n", "\n    a,\n    b,\n)\nother()\n", "\n    a,\n    b,\n)"),
        (
            "    x = ",
            "\n",
            "foo()\n    for y in x:\n        bar(y)\n    baz()\n",
            "foo()\n    for y in x:\n        bar(y)\n    baz()\n",
        ),
    ],
)
def test_the_block_is_not_left(prefix: str, suffix: str, text: str, expected: str) -> None:
    found, reason = outcome(StopRules(dedent=True), prefix, suffix, text)
    assert found.rstrip("\n") == expected.rstrip("\n")
    assert reason == ("dedent" if found != text else None)


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "expected"),
    [
        ("y = g(", ")\n", "x + 1)\nreturn y", "x + 1"),
        ("y = g(", "\n", "x + 1)\nreturn y", "x + 1)\nreturn y"),  # the suffix closes nothing, so the text may
        ("y = g(", ")\n", "h(x)[0], '))', 3))", "h(x)[0], '))', 3"),
        ("y = g(", ")\n", "x  # :)\n)\n", "x  # :)"),
        ("void f() {\n  ", "\n}\n", "if (x) {\n    go();\n  }\n}\n\nint g", "if (x) {\n    go();\n  }"),
        ("s = 'a(", "b'\nf(\n", "))", "))"),  # inside a string no bracket counts
        ("f(", ")", "g(x]) )", "g(x]) )"),  # brackets that do not match tell nothing
        ("// c(\nf(", ");\n", "x / 2, '\"') ;", "x / 2, '\"'"),
    ],
)
def test_brackets_of_the_suffix_are_not_closed(prefix: str, suffix: str, text: str, expected: str) -> None:
    found, reason = outcome(StopRules(brackets=True), prefix, suffix, text)
    assert found == expected
    assert reason == ("bracket" if found != text else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    x.pop()\n" * 9, "    x.pop()\n"),
        ("    x.pop()\n" * 2 + "y\n", "    x.pop()\n" * 2 + "y\n"),
        ("a()\nb()\n" * 5, "a()\nb()\n"),
        ("v = [" + "0, 1, " * 60, None),
        ("# " + "-" * 200 + "\n", "# " + "-" * 200 + "\n"),
        ("}\n}\n}\n", "}\n}\n}\n"),
    ],
)
def test_loops_are_noticed(text: str, expected: str | None) -> None:
    found, reason = outcome(StopRules(repetition=True), "", "", text)
    if expected is None:
        assert len(found) < 24
        assert reason == "repetition"
    else:
        assert found == expected
        assert reason == ("repetition" if found != text else None)


def test_strings_and_lines() -> None:
    assert outcome(StopRules(strings=("ab", "b\n")), "", "", "xxa" + "ab") == ("xxa", "string")
    assert outcome(StopRules(strings=("b\n", "aab")), "", "", "xxaab") == ("xx", "string")
    assert outcome(StopRules(max_lines=1), "", "", "\n\nx = 1\ny = 2\n") == ("\n\nx = 1", "lines")
    assert outcome(StopRules(max_lines=2), "", "", "x\ny") == ("x\ny", None)
    whole = StopRules(whole_lines=True)
    assert outcome(whole, "", "", "x = 1\ny = 2\nz =", complete=False) == ("x = 1\ny = 2", None)
    assert outcome(whole, "", "", "x = 1\ny = 2\nz =") == ("x = 1\ny = 2\nz =", None)
    assert outcome(whole, "", "", "\n  x =", complete=False) == ("\n  x =", None)


def test_nothing_is_held_back_for_long() -> None:
    """What cannot be cut any more is shown at once."""
    stopper = Stopper(EDITOR, "def f(x):\n    y = ", "\n    return y + 1\n")
    assert stopper.push("x * 2") == "x * 2"
    assert stopper.push("\n    ret") == ""
    assert stopper.push("ries") == ""  # whole lines only, behind the first
    assert stopper.push(" = 3\n") == "\n    retries = 3"
    free = Stopper(StopRules(suffix=True), "def f(x):\n    y = ", "\n    return y + 1\n")
    assert [free.push(piece) for piece in ("x", "\n    ret", "ries", " = 3")] == ["x", "", "\n    retries", " = 3"]


def test_a_blank_line_before_the_suffix_is_held_back_with_it() -> None:
    """However far it is indented."""
    stopper = Stopper(StopRules(suffix=True), "x = 1", "\nreturn y\n")
    assert "".join(map(stopper.push, "\n    \nreturn y\n")) == ""
    assert (stopper.text, stopper.reason) == ("", "suffix")


@pytest.mark.parametrize(
    "bad", [{"strings": ("a", "")}, {"max_lines": -1}], ids=["empty string", "negative lines"]
)
def test_bad_rules_are_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        StopRules(**bad)


_ATOMS = [
    "\n",
    "\n    ",
    "\n        ",
    " ",
    "x",
    "return y",
    ")",
    "(",
    "}",
    "{",
    "]",
    ":",
    "'",
    "# ",
    "else",
    "é",
    ", ",
]
_texts = st.lists(st.sampled_from(_ATOMS), max_size=40).map("".join)
_rules = st.builds(
    StopRules,
    strings=st.sampled_from([(), ("x)",), ("return", "\n\n")]),
    max_lines=st.integers(0, 3),
    suffix=st.booleans(),
    dedent=st.booleans(),
    brackets=st.booleans(),
    repetition=st.booleans(),
    whole_lines=st.booleans(),
)


@settings(max_examples=400)
@given(_rules, _texts, _texts, _texts, st.booleans(), st.integers(0, 2**16))
def test_pieces_change_nothing(
    rules: StopRules, prefix: str, suffix: str, text: str, complete: bool, seed: int
) -> None:
    """What was shown is never taken back, and the end is the same in one piece, in pieces, and by characters."""
    expected = outcome(rules, prefix, suffix, text, complete=complete)
    assert text.startswith(expected[0])
    rng = random.Random(seed)
    for longest in (1, 7):
        stopper, shown, rest = Stopper(rules, prefix, suffix), "", text
        while rest:
            size = rng.randint(1, longest)
            shown += stopper.push(rest[:size])
            rest = rest[size:]
            assert stopper.text.startswith(shown)
        shown += stopper.end(complete=complete)
        assert (shown, stopper.reason) == expected
