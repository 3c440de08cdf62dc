"""What tests and solutions look like in a language: how they are read, run and hollowed out.

A test is one assertion on a line of its own that calls the function asked for. Python's are read by its own
parser; the others by their lines, which is why a test that runs over several lines is refused there.

    assertion   assert unique([1, 1]) == [1]       assert.deepStrictEqual(unique([1, 1]), [1]);
    stub        def unique(*a, **k): return None   function unique(...a) { return undefined; }

A stub has the function's name and solves nothing; tests that it passes are vacuous.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from midspan.errors import InputError

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


_PROBLEM = (
    "Write a function that keeps the first of every run of equal neighbours in a list, and drops the others."
)
_UNFINISHED = re.compile(
    r"\b(?:todo|fixme)\b|your code here|not[ _]?implemented|implementation here", re.IGNORECASE
)


def _python_tests(text: str) -> UnitTests:
    setup, found, called = list[str](), list[str](), list[Counter[str]]()
    for node in _parsed(text).body:
        source = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            setup.append(source)
        elif isinstance(node, ast.Assert):
            if source not in found:
                found.append(source)
                calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
                names = [func.id for func in calls if isinstance(func, ast.Name)]
                called.append(Counter(name for name in names if not hasattr(builtins, name)))
        else:
            raise MalformedError("a test is no assertion")
    return _tests("\n".join(setup), found, called)


def _tests(setup: str, found: list[str], called: list[Counter[str]]) -> UnitTests:
    if len(found) < LEAST_TESTS:
        raise MalformedError("fewer than two different tests")
    imported = set(re.findall(r"\w+", setup))
    common = set.intersection(*(set(names) for names in called)) - imported
    ours = [name for name in called[0] if name in common]  # in order of appearance
    if not ours:
        raise MalformedError("the tests call no function in common")
    entry = max(ours, key=lambda name: sum(each[name] for each in called))
    return UnitTests(setup, found[:MOST_TESTS], entry)


def _python_solution(code: str, entry: str) -> str:
    """The code without what it does beside defining: its own tests, prints, and the part for scripts."""
    lines = code.split("\n")
    defined: set[str] = set()
    for place, node in enumerate(_parsed(code).body):
        is_docstring = place == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Expr | ast.Assert | ast.If | ast.For | ast.While) and not is_docstring:
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if entry not in defined:
        raise MalformedError("the function that the tests call is not defined")
    tidy = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip() + "\n"
    _parsed(tidy)  # two statements on a line are not parted
    return tidy


def _parsed(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MalformedError("it is no Python") from None


def _python_stubs(entry: str) -> tuple[str, ...]:
    nothing = f"def {entry}(*args, **named):\n    return None\n"
    same = f"def {entry}(*args, **named):\n    return args[0] if args else None\n"
    return nothing, same


PYTHON = Form(
    name="python",
    title="Python",
    tag="PYTHON",
    fence="python",
    comment="#",
    assertion="one `assert` that calls the function",
    example=(
        _PROBLEM,
        (
            "assert drop_repeats([1, 1, 2, 1]) == [1, 2, 1]",
            "assert drop_repeats([]) == []",
            "assert drop_repeats(['a', 'a', 'a']) == ['a']",
        ),
        "def drop_repeats(items):\n    kept = []\n    for item in items:\n"
        "        if not kept or kept[-1] != item:\n            kept.append(item)\n    return kept",
    ),
    read_tests=_python_tests,
    read_solution=_python_solution,
    whole=lambda setup, tests: "\n".join([*([setup] if setup else []), *tests]) + "\n",
    stubs=_python_stubs,
)


def _lines(assertion: str, library: str) -> Callable[[str], UnitTests]:
    """A reader of tests that stand on one line each.

    Args:
        assertion: a pattern that captures what is asserted.
        library: names that may be called beside the function.
    """
    pattern, known = re.compile(assertion), frozenset(library.split())

    def read(text: str) -> UnitTests:
        found, called = list[str](), list[Counter[str]]()
        for line in map(str.strip, text.splitlines()):
            if not line or line.startswith("//"):
                continue
            match = pattern.fullmatch(line)
            if match is None:
                raise MalformedError("a test is no assertion on one line")
            if line not in found:
                found.append(line)
                names = re.findall(r"(?<![\w.:>])([A-Za-z_]\w*)\s*\(", match[1])
                called.append(Counter(name for name in names if name not in known))
        return _tests("", found, called)

    return read


def _text_solution(definition: str) -> Callable[[str, str], str]:
    """A reader of code that only looks for the definition; `NAME` in the pattern is the function's name."""

    def read(code: str, entry: str) -> str:
        if not re.search(definition.replace("NAME", re.escape(entry)), code):
            raise MalformedError("the function that the tests call is not defined")
        return code.strip() + "\n"

    return read


def _php_solution(code: str, entry: str) -> str:
    code = re.sub(r"\A\s*<\?php\s*|\s*\?>\s*\Z", "", code)
    return "<?php\n" + _text_solution(r"(?m)^\s*function\s+&?\s*NAME\s*\(")(code, entry)


_JS_EXAMPLE = (
    "assert.deepStrictEqual(dropRepeats([1, 1, 2, 1]), [1, 2, 1]);",
    "assert.deepStrictEqual(dropRepeats([]), []);",
    "assert.deepStrictEqual(dropRepeats(['a', 'a', 'a']), ['a']);",
)
_JS_LIBRARY = "Array BigInt Boolean Date Map Number Object Set String parseFloat parseInt"
JAVASCRIPT = Form(
    name="javascript",
    title="JavaScript",
    tag="JAVASCRIPT",
    fence="javascript",
    comment="//",
    assertion="one call of `assert.deepStrictEqual` on one line, which calls the function",
    example=(
        _PROBLEM,
        _JS_EXAMPLE,
        "function dropRepeats(items) {\n  return items.filter((item, i) => i === 0 || items[i - 1] !== item);\n}",
    ),
    read_tests=_lines(r"assert(?:\.\w+)?\((.*)\);?", _JS_LIBRARY),
    read_solution=_text_solution(
        r"(?m)^\s*(?:export\s+)?(?:(?:async\s+)?function\s*\*?\s*NAME\b|(?:const|let|var)\s+NAME\b)"
    ),
    whole=lambda _, tests: "{\nconst assert = require('node:assert');\n" + "\n".join(tests) + "\n}\n",
    stubs=lambda entry: (
        f"function {entry}() {{ return undefined; }}\n",
        f"function {entry}(first) {{ return first; }}\n",
    ),
)
TYPESCRIPT = Form(
    name="typescript",
    title="TypeScript",
    tag="TYPESCRIPT",
    fence="typescript",
    comment="//",
    assertion=JAVASCRIPT.assertion,
    example=(
        _PROBLEM,
        _JS_EXAMPLE,
        "function dropRepeats<T>(items: T[]): T[] {\n"
        "  return items.filter((item, i) => i === 0 || items[i - 1] !== item);\n}",
    ),
    read_tests=JAVASCRIPT.read_tests,
    read_solution=JAVASCRIPT.read_solution,
    whole=lambda _, tests: (
        "declare var require: any;\n{\nconst assert: any = require('node:assert');\n" + "\n".join(tests) + "\n}\n"
    ),
    stubs=lambda entry: (
        f"function {entry}(...all: any[]): any {{ return undefined; }}\n",
        f"function {entry}(...all: any[]): any {{ return all[0]; }}\n",
    ),
)
PHP = Form(
    name="php",
    title="PHP",
    tag="PHP",
    fence="php",
    comment="//",
    assertion="one call of `assert` on one line that compares by `===` what the function returns",
    example=(
        _PROBLEM,
        (
            "assert(drop_repeats([1, 1, 2, 1]) === [1, 2, 1]);",
            "assert(drop_repeats([]) === []);",
            "assert(drop_repeats(['a', 'a', 'a']) === ['a']);",
        ),
        "function drop_repeats($items) {\n    $kept = [];\n    foreach ($items as $item) {\n"
        "        if (!$kept || end($kept) !== $item) {\n            $kept[] = $item;\n        }\n    }\n"
        "    return $kept;\n}",
    ),
    read_tests=_lines(r"assert\((.*)\);?", "abs array array_values count implode in_array round strlen"),
    read_solution=_php_solution,
    # PHP as it is installed may skip assertions.
    whole=lambda _, tests: "".join(
        re.sub(r"^assert\((.*)\);?$", r"if (!(\1)) { exit(1); }", test) + "\n" for test in tests
    ),
    stubs=lambda entry: (
        f"<?php\nfunction {entry}(...$all) {{ return null; }}\n",
        f"<?php\nfunction {entry}(...$all) {{ return $all[0] ?? null; }}\n",
    ),
)
CPP = Form(
    name="cpp",
    title="C++",
    tag="CPP",
    fence="cpp",
    comment="//",
    assertion="one `assert` on one line, which calls the function with values of explicit types",
    example=(
        _PROBLEM,
        (
            "assert(drop_repeats(std::vector<int>{1, 1, 2, 1}) == (std::vector<int>{1, 2, 1}));",
            "assert(drop_repeats(std::vector<int>{}) == (std::vector<int>{}));",
            "assert(drop_repeats(std::vector<int>{7, 7, 7}) == (std::vector<int>{7}));",
        ),
        "#include <vector>\n\nstd::vector<int> drop_repeats(const std::vector<int>& items) {\n"
        "    std::vector<int> kept;\n    for (int item : items) {\n"
        "        if (kept.empty() || kept.back() != item) {\n            kept.push_back(item);\n        }\n    }\n"
        "    return kept;\n}",
    ),
    read_tests=_lines(r"assert\((.*)\);?", "abs fabs make_pair map pair set string to_string vector"),
    read_solution=_text_solution(r"(?m)^[\w:<>,&*\s\[\]]+[\s&*]NAME\s*\("),
    whole=lambda _, tests: "int main() {\n" + "".join(f"    {test.rstrip(';')};\n" for test in tests) + "}\n",
    stubs=lambda entry: (
        "#include <bits/stdc++.h>\nusing namespace std;\nstruct Nothing {};\n"
        "template <class T> bool operator==(const Nothing&, const T&) { return false; }\n"
        "template <class T> bool operator!=(const Nothing&, const T&) { return true; }\n"
        f"template <class... T> Nothing {entry}(const T&...) {{ return {{}}; }}\n",
    ),
)
FORMS = {form.name: form for form in (PYTHON, JAVASCRIPT, TYPESCRIPT, PHP, CPP)}


def form_of(name: str) -> Form:
    """The form of a language. InputError naming those there are."""
    if name not in FORMS:
        raise InputError(f"questions cannot be asked in {name!r}; the languages are {', '.join(FORMS)}")
    return FORMS[name]


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
