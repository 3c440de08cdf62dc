"""What tests and solutions look like in a language: how they are read, run and hollowed out.

A test is one assertion that calls the function asked for.

    assertion   assert unique([1, 1]) == [1]       assert.deepStrictEqual(unique([1, 1]), [1]);
    stub        def unique(*a, **k): return None   function unique(...a) { return undefined; }

A stub has the function's name and solves nothing; tests that it passes are vacuous.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST_TESTS = 2
"""One is shown to the model, at least one is not."""
MOST_TESTS = 10


@dataclass(frozen=True)
class UnitTests:
    """The tests of a question, each of them an assertion."""

    setup: str
    """Imports that they need."""
    tests: list[str]
    entry: str
    """The function that all of them call."""


class MalformedError(ValueError):
    """What a model wrote is not what it was asked for; the message is a reason to count by."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A language of questions."""

    name: str
    """The sandbox's."""
    title: str
    tag: str
    """Solutions stand between [TAG] and [/TAG]."""
    fence: str
    """The language's name in Markdown."""
    comment: str
    assertion: str
    """How a test is written, in words for a prompt."""
    example: tuple[str, tuple[str, ...], str]
    """A problem, its tests and a solution, which prompts show."""
    read_tests: Callable[[str], UnitTests]
    """Raises MalformedError."""
    read_solution: Callable[[str, str], str]
    """Code and the function's name → the code that is kept. Raises MalformedError."""
    whole: Callable[[str, Sequence[str]], str]
    """Setup and tests → the sandbox's test."""
    stubs: Callable[[str], tuple[str, ...]]
    """Programs of this name that solve nothing."""

    def test(self, tests: UnitTests) -> str:
        """The sandbox's test, of all tests."""
        return self.whole(tests.setup, tests.tests)


_UNFINISHED = re.compile(
    r"\b(?:todo|fixme)\b|your code here|not[ _]?implemented|implementation here", re.IGNORECASE
)


def assembled(setup: str, found: list[str], called: list[Counter[str]]) -> UnitTests:
    """Assertions and the names that each calls → tests of one function. Raises MalformedError."""
    if len(found) < LEAST_TESTS:
        raise MalformedError("fewer than two different tests")
    imported = set(re.findall(r"\w+", setup))
    common = set.intersection(*(set(names) for names in called)) - imported
    ours = [name for name in called[0] if name in common]  # in order of appearance
    if not ours:
        raise MalformedError("the tests call no function in common")
    entry = max(ours, key=lambda name: sum(each[name] for each in called))
    return UnitTests(setup, found[:MOST_TESTS], entry)


def unit_tests_of(form: Form, text: str) -> UnitTests:
    """The tests that an answer holds; small models like to repeat the prompt's own. Raises MalformedError."""
    tests = form.read_tests(between(text, "TESTS"))
    if tests.entry == form.read_tests("\n".join(form.example[1])).entry:
        raise MalformedError("they are the example's")
    return tests


def between(text: str, tag: str) -> str:
    """What stands between [TAG] and [/TAG], without a fence of Markdown round it. Raises MalformedError."""
    found = re.search(rf"\[{tag}\](.*?)\[/{tag}\]", text, re.DOTALL)
    if found is None:
        raise MalformedError("no tags round it")
    inner = found[1].strip("\n")
    fenced = re.fullmatch(r"\s*```[\w+]*\n(.*?)\n?```\s*", inner, re.DOTALL)
    return fenced[1] if fenced else inner


def solution_of(form: Form, text: str, entry: str) -> str:
    """The code that an answer holds. Raises MalformedError."""
    code = between(text, form.tag)
    if _UNFINISHED.search(code):
        raise MalformedError("it is unfinished")
    return form.read_solution(code, entry)
