"""The languages of questions. All but Python are read by their lines: a test over several lines is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from midspan.errors import InputError
from midspan.instruct.form import Form, MalformedError, UnitTests, assembled
from midspan.instruct.python_form import PROBLEM, PYTHON


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
        return assembled("", found, called)

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
        PROBLEM,
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
        PROBLEM,
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
        PROBLEM,
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
        PROBLEM,
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
