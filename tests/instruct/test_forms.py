"""Languages: worked examples pass their own tests, stubs fail them, and what is malformed is told apart."""

import pytest

from midspan.errors import InputError
from midspan.instruct.form import MalformedError, between, solution_of, unit_tests_of
from midspan.instruct.forms import FORMS, form_of
from midspan.instruct.mutants import mutants
from midspan.instruct.prompts import read_questions
from midspan.instruct.python_form import PYTHON
from midspan.sandbox import Program, Sandbox
from midspan.sandbox.languages import require


def ready(name: str) -> None:
    try:
        require(name)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("jail")
@pytest.mark.parametrize("name", FORMS)
def test_an_example_passes_a_stub_fails_and_mutants_are_noticed(name: str) -> None:
    ready(name)
    form = FORMS[name]
    _, shown, code = form.example
    tests = form.read_tests("\n".join(f"{form.comment} Test case {n}:\n{test}" for n, test in enumerate(shown, 1)))
    assert tests.entry in ("drop_repeats", "dropRepeats")
    source = solution_of(form, f"Here:\n[{form.tag}]\n```\n{code}\n```\n[/{form.tag}]", tests.entry)
    changed = mutants(source, name, 2)
    assert 1 <= len(changed) <= 2
    entry = tests.entry if name == "python" else None
    programs = [source, *form.stubs(tests.entry), *changed]
    with Sandbox(1, "strict") as sandbox:
        verdicts = [
            sandbox.judge_one(Program(source=each, language=name, test=form.test(tests), entry_point=entry))
            for each in programs
        ]
    assert verdicts[0].status == "passed", verdicts[0].reason
    assert "passed" not in [verdict.status for verdict in verdicts[1 : 1 + len(form.stubs("f"))]]
    assert "failed" in [verdict.status for verdict in verdicts[1 + len(form.stubs("f")) :]]


@pytest.mark.parametrize("name", FORMS)
def test_the_prompts_own_tests_are_no_answer(name: str) -> None:
    form = FORMS[name]
    shown = "\n".join(form.example[1])
    with pytest.raises(MalformedError, match="they are the example's"):
        unit_tests_of(form, f"[TESTS]\n{shown}\n[/TESTS]")
    other = shown.replace("drop_repeats", "keep_first").replace("dropRepeats", "keepFirst")
    assert unit_tests_of(form, f"[TESTS]\n{other}\n[/TESTS]").entry in ("keep_first", "keepFirst")


@pytest.mark.usefixtures("jail")
@pytest.mark.parametrize(
    ("name", "vacuous"),
    [
        ("python", ["assert f(1) in (None, 2)", "assert f(2) is None or True"]),
        ("javascript", ["assert(f(1) === undefined);", "assert.ok(f(2) == null || true);"]),
        ("cpp", ["assert(f(1) != 3);", "assert(f(2) != 4);"]),
        ("php", ["assert(f(1) === null);", "assert(!f(2));"]),
    ],
)
def test_vacuous_tests_let_a_stub_pass(name: str, vacuous: list[str]) -> None:
    ready(name)
    form = FORMS[name]
    tests = form.read_tests("\n".join(vacuous))
    assert tests.entry == "f"
    entry = "f" if name == "python" else None
    with Sandbox(1, "strict") as sandbox:
        stubs = [
            Program(source=stub, language=name, test=form.test(tests), entry_point=entry)
            for stub in form.stubs("f")
        ]
        assert "passed" in [sandbox.judge_one(stub).status for stub in stubs]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("assert f(1) == 2\nassert f(", "it is no Python"),
        ("assert f(1) == 2", "fewer than two"),
        ("assert f(1) == 2\nassert f(1) == 2", "fewer than two"),
        ("assert f(1) == 2\nassert g(1) == 2", "no function in common"),
        ("assert len([1]) == 1\nassert sum([1]) == 1", "no function in common"),
        ("assert f(1) == 2\ndef f(n): return n", "no assertion"),
        ("x = 3\nassert f(x) == 2\nassert f(1) == 2", "no assertion"),
    ],
)
def test_malformed_tests(text: str, fault: str) -> None:
    with pytest.raises(MalformedError, match=fault):
        PYTHON.read_tests(text)


def test_the_function_is_what_all_tests_call() -> None:
    text = "import math\nfrom collections import Counter\nassert math.isclose(mean(to_list([1])), 1.0)\n"
    text += "assert Counter(mean([1, 2])) == Counter(mean([2, 1]))\nassert sorted(mean([3])) == [3]"
    tests = PYTHON.read_tests(text)
    assert (tests.entry, len(tests.tests)) == ("mean", 3)
    assert tests.setup == "import math\nfrom collections import Counter"
    javascript = FORMS["javascript"].read_tests(
        "assert.equal(new Set(f([1])).size, 1);\nassert(Array(f([2]))[0]);"
    )
    assert javascript.entry == "f"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("def f(n): return n", "no tags"),
        ("[PYTHON]\ndef f(n): return n", "no tags"),
        ("[PYTHON]\ndef g(n): return n\n[/PYTHON]", "not defined"),
        ("[PYTHON]\ndef f(n):\n    # TODO\n    pass\n[/PYTHON]", "unfinished"),
        ("[PYTHON]\ndef f(n):\n    raise NotImplementedError\n[/PYTHON]", "unfinished"),
        ("[PYTHON]\ndef f(n) return n\n[/PYTHON]", "no Python"),
        ("[PYTHON]\nif True:\n    def f(n): return n\n[/PYTHON]", "not defined"),
    ],
)
def test_malformed_solutions(text: str, fault: str) -> None:
    with pytest.raises(MalformedError, match=fault):
        solution_of(PYTHON, text, "f")


def test_what_a_solution_does_beside_defining_goes() -> None:
    code = '"""Adds."""\nimport math\n\nOFFSET = 1\n\n\ndef f(n):\n    # one more\n    return n + OFFSET\n\n'
    tail = "assert f(1) == 2\nprint(f(1))\nfor n in range(3):\n    print(n)\n"
    tail += 'if __name__ == "__main__":\n    print(input())'
    assert solution_of(PYTHON, f"[PYTHON]\n{code}{tail}\n[/PYTHON] and more", "f") == code.strip() + "\n"
    assert between("[PYTHON]```python\nx = 1\n```[/PYTHON]", "PYTHON") == "x = 1"


def test_lists_of_questions() -> None:
    text = (
        "Here are the questions:\n\n1. **Reverse**: Write a function\n   that reverses a list.\n"
        "2) Count the vowels of a text.\n\n**3.** Sum the even numbers.\n4. Find the long"
    )
    assert read_questions(text) == [
        "Reverse: Write a function that reverses a list.",
        "Count the vowels of a text.",
        "Sum the even numbers.",
    ]
    assert read_questions("I cannot do that.") == []
    assert read_questions("1. Print 1. Then 2.\n") == ["Print 1. Then 2."]


def test_mutants_change_operators_and_nothing_in_strings() -> None:
    python = mutants("def f(a, b):\n    return 'x + y' if a < b and a in {1} else a + b\n", "python", 100)
    assert len(python) == 5
    assert all("'x + y'" in each for each in python)
    assert any("a >= b" in each for each in python)
    assert any("a - b" in each for each in python)
    script = 'const f = (a, b) => a + b; // a + b\nconst s = "a + b";\n'
    assert mutants(script, "javascript", 9) == [script.replace("=> a + b", "=> a - b")]
    assert mutants("def f(a):\n    return a\n", "python", 4) == []
    assert len(mutants("def f():\n    return " + " + ".join("abcdefgh"), "python", 3)) == 3


def test_unknown_languages_are_named() -> None:
    with pytest.raises(InputError, match="'cobol'; the languages are python, javascript"):
        form_of("cobol")
