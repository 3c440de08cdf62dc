"""MultiPL-E, HumanEvalPack and APPS: known answers, through each language's own tools, to known scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.scripted import Scripted, run_task, task
from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.task import Chat, Decoding, Question, Text
from midspan.evaluate.tasks import humanevalpack
from midspan.evaluate.tasks.apps import same_output
from midspan.evaluate.tasks.braces import until_closed
from midspan.evaluate.tasks.humanevalpack import with_go_imports
from midspan.evaluate.tasks.multipl_e import LANGUAGES, MultiplE
from midspan.sandbox import Sandbox
from midspan.sandbox.languages import require, require_libraries
from midspan.tokenizer import Tokenizer

ONCE = Decoding()
SUMS = {
    "cpp": "    return x + y;\n}\nint more() {",
    "java": "        return x + y;\n    }\n    public static long more() {",
    "php": "    return $x + $y;\n}\nfunction more() {",
    "ts": "  return x + y;\n}\nfunction more() {",
    "cs": "        return x + y;\n    }\n    public static long More() {",
    "sh": "    echo $(( $1 + $2 ))\n}\nmore() {",
    "js": "  return x + y;\n}\nfunction more() {",
    "go": "    return x + y\n}\nfunc more() {",
    "rs": "    x + y\n}\nfn more() {",
}


def sums(question: Question, copy: int) -> str:
    """Right for the sum of two numbers, and for nothing else."""
    return SUMS[question.row["language"]]


def is_asked(question: Question) -> bool:
    return question.id.endswith(("/HumanEval_53_add", "/HumanEval_0_has_close_elements"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("variant", ["raw", "stripped"])
def test_multipl_e(
    language: str, variant: str, shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """A sum with more behind it, which stop words cut off, is right; the same for another task is not."""
    try:
        require(LANGUAGES[language])
    except InputError as error:
        pytest.skip(str(error))
    if variant == "stripped" and language not in ("js", "sh"):
        pytest.skip("one prompt is enough where a compiler takes its time")
    measured = task(f"multipl-e-{language}:{variant}", shared_data)
    scores, samples = run_task(measured, tokenizer, sums, tmp_path, sandbox=jail, choose=is_asked)
    assert scores == {f"{language} pass@1": 50.0}, [sample["reason"] for sample in samples.values()]
    assert samples[f"{language}/HumanEval_53_add"]["ended"] == "string"


def test_a_mean_over_languages_counts_each_once(
    shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    def choose(question: Question) -> bool:
        return is_asked(question) and question.id != "sh/HumanEval_0_has_close_elements"

    measured = MultiplE(data=Data(shared_data), asked=("js", "sh"))
    scores, _ = run_task(measured, tokenizer, sums, tmp_path, sandbox=jail, choose=choose)
    assert scores == {"js pass@1": 50.0, "sh pass@1": 100.0, "mean of languages pass@1": 75.0}


@pytest.mark.parametrize("variant", ["synthesize", "fix", "fix-chat"])
def test_humanevalpack(
    variant: str, shared_data: Path, chat_tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """The solution is right, with or without chatter; the planted bug is wrong."""
    kinds: dict[str, str] = {}

    def script(question: Question, copy: int) -> str:
        row = question.row
        kinds[question.id] = kind = ("right", "chatty", "bug")[len(kinds) % 3]
        code = row["buggy_solution" if kind == "bug" else "canonical_solution"]
        if variant == "fix-chat":
            code = f"Here:\n\n```\n{row['declaration']}{code}\n```\n"
        if kind == "chatty":
            code += "\nThat } mends it." if "python" not in question.id else "\nprint('mended')"
        return code

    def choose(question: Question) -> bool:
        language, _, number = question.id.split("/")
        wants_md5 = question.id == "js/JavaScript/162"  # from a package that the jail does not have
        return language in ("python", "js") and int(number) % 20 in (2, 7, 18) and not wants_md5

    measured = task(f"humanevalpack:{variant}", shared_data)
    _, samples = run_task(measured, chat_tokenizer, script, tmp_path, sandbox=jail, choose=choose)
    for name, sample in samples.items():
        assert (sample["verdict"] == "passed") == (kinds[name] != "bug"), (kinds[name], sample)


def test_a_whole_function_replaces_a_beginning_that_ends_in_a_comment(shared_data: Path, jail: Sandbox) -> None:
    """C++'s numbers 10, 32, 38 and 50 have a comment behind the function's first line."""
    try:
        require("cpp")
    except InputError as error:
        pytest.skip(str(error))
    rows = Data(shared_data).rows(humanevalpack.source_of("cpp"))
    for number in (10, 32, 38, 50):
        row = {**rows[number], "language": "cpp"}
        for solution, status in (("canonical_solution", "passed"), ("buggy_solution", "failed")):
            program = humanevalpack.program_of(row, row["prompt"] + row[solution], is_whole=True)
            verdict = jail.judge_one(program)
            assert verdict.status == status or (status, verdict.status) == ("failed", "timeout"), (number, verdict)


@pytest.mark.parametrize("language", ["cpp", "java", "go", "rust"])
def test_humanevalpack_compiled(
    language: str, shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """A solution, a planted bug, and Go's number 72 and C++'s 38, whose rows are odd."""
    try:
        require_libraries(language)
    except InputError as error:
        pytest.skip(str(error))

    def script(question: Question, copy: int) -> str:
        return str(question.row["buggy_solution" if question.id.endswith("/1") else "canonical_solution"])

    odd = {"cpp": "/38", "go": "/72"}.get(language, "/2")
    measured = task(f"humanevalpack-{language}", shared_data)
    scores, samples = run_task(
        measured, tokenizer, script, tmp_path, sandbox=jail, choose=lambda q: q.id.endswith((odd, "/1"))
    )
    assert scores[f"{language} pass@1"] == 50.0, [sample["reason"] for sample in samples.values()]


def test_a_function_ends_at_its_brace_and_keeps_its_helpers() -> None:
    body = "  if (x == '}' || y == \"{\") { return '//'; } // }\n  return `}`;\n}"
    assert until_closed(f"{body}\nI hope {{ this }} helps.") == body
    helper = "\n\nfunc other() int {\n\treturn 1\n}"
    assert until_closed(f"\treturn other()\n}}{helper}\nmore") == f"\treturn other()\n}}{helper}"
    assert until_closed("  return {") == "  return {"


@pytest.mark.parametrize("variant", ["two-shot", "bigcode", "instruct"])
def test_apps(variant: str, shared_data: Path, chat_tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path) -> None:
    """Solutions pass as processes and as functions; output that is wrong is told from a crash and from a limit."""
    said = {"0111": "print('no such number')", "4184": "class Solution: pass", "0001": "import sys; sys.exit(3)"}

    def script(question: Question, copy: int) -> str:
        code = said.get(question.row["problem_id"], question.row["solutions"][0])
        return f"'''\n{code}\n'''" if variant == "instruct" else f"{code}\n\n'''\n\nQ: more"

    measured = task(f"apps-sample:{variant}", shared_data)
    scores, samples = run_task(measured, chat_tokenizer, script, tmp_path, sandbox=jail, decoding=ONCE)
    right = {name for name, sample in samples.items() if sample["verdict"] == "passed"}
    assert right == {"apps/2287", "apps/2404"}, samples
    assert samples["apps/0111"]["reason"] == "wrong output"
    assert "status 3" in samples["apps/0001"]["reason"] or "SystemExit" in samples["apps/0001"]["reason"]
    assert scores["pass@1"] == 40.0
    assert {"introductory pass@1", "interview pass@1"} <= scores.keys()


def test_outputs_are_compared_by_words_and_fractions_about() -> None:
    assert same_output("1 2\n3\n", "1  2 3")
    assert same_output("0.3333333", "0.333333333")
    assert not same_output("3", "4")
    assert not same_output("1000000", "1000001")
    assert not same_output("1 2", "1 2 3")
    assert not same_output("a.b", "a.c")


def test_prompts(shared_data: Path, tokenizer: Tokenizer) -> None:
    model = Scripted(tokenizer, lambda question, copy: "")
    asked = task("apps-sample:two-shot", shared_data).questions(model)
    assert isinstance(asked[0].prompt, Text)
    assert asked[0].prompt.text.count("Q: ") == 3
    assert asked[0].prompt.text.endswith("Please read from and write to standard IO.\nA:\n'''\n")
    chat = task("apps-sample:instruct", shared_data).questions(model)[-1].prompt
    assert isinstance(chat, Chat)
    assert "use the provided function signature" in chat.message
    found = task("multipl-e", shared_data).questions(model)
    counts = {language: sum(q.groups == (language,) for q in found) for language in LANGUAGES}
    assert counts == {
        "cpp": 161,
        "java": 158,
        "php": 161,
        "ts": 159,
        "cs": 158,
        "sh": 158,
        "js": 0,
        "go": 0,
        "rs": 0,
    }
    assert len(task("humanevalpack", shared_data).questions(model)) == 6 * 164


def test_go_imports_what_is_used_and_nothing_else() -> None:
    """Go/17's own solution uses a package that no field of its row names; Go/27's row names one too many."""
    row = {"test_setup": 'package main\n\nimport (\n    "testing"\n    "math/rand"\n)\n', "import": ""}
    source = (
        'import (\n    "strings"\n)\n\n// One at a time.\nfunc F(s string) int {\n\treturn strconv.Atoi(s)\n}\n'
    )
    text = with_go_imports(row, source, "func TestF(t *testing.T) {}\n")
    assert text.startswith('package main\n\nimport (\n\t"testing"\n\t"strconv"\n)\n')
    assert text.count("import (") == 1
