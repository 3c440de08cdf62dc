"""Tasks whose answers are run: a scripted model drives each to scores that are known beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.scripted import Scripted, run_task, task
from midspan.evaluate.task import Answer, Chat, Evidence, Hole, Question, Text
from midspan.sandbox import Sandbox
from midspan.tokenizer import Tokenizer

KINDS = ("right", "wrong", "empty", "chatty", "fenced", "cut")


def kind_of(question: Question) -> str:
    """Which of the six kinds of answer a question gets."""
    return KINDS[sum(question.id.encode()) % len(KINDS)]


def said(kind: str, code: str, whole: str) -> str:
    """An answer of a kind: code that goes on with a prompt, or a whole program."""
    return {
        "right": code,
        "wrong": "    return 'no such thing'\n",
        "empty": "",
        "chatty": f"{code}\n\nprint('I hope that this helps!')\nif you have questions, ask.",
        "fenced": f"Sure! Here it is:\n\n```python\n{whole}\n```\n\nIt does what was asked.",
        "cut": code[: len(code) // 2].rpartition("\n")[0] + "\n    x = (",
    }[kind]


def expected(samples: dict[str, dict], right: set[str], questions: dict[str, str]) -> None:
    """Every sample has the verdict that its kind of answer deserves."""
    for name, sample in samples.items():
        assert (sample["verdict"] == "passed") == (questions[name] in right), (questions[name], sample)


@pytest.mark.parametrize("variant", ["official", "stripped", "evalplus"])
def test_humaneval(variant: str, shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path) -> None:
    kinds: dict[str, str] = {}

    def script(question: Question, copy: int) -> str:
        kinds[question.id] = kind_of(question)
        lead = "\n" if variant == "stripped" else ""
        row = question.row
        return lead + said(
            kinds[question.id], row["canonical_solution"], row["prompt"] + row["canonical_solution"]
        )

    scores, samples = run_task(
        task(f"humaneval:{variant}", shared_data), tokenizer, script, tmp_path, sandbox=jail
    )
    expected(samples, {"right", "chatty"}, kinds)
    right = sum(kind in ("right", "chatty") for kind in kinds.values())
    assert len(kinds) == 164
    assert scores == {"pass@1": pytest.approx(100 * right / 164, abs=1e-4)}
    line = next(sample for sample in samples.values() if sample["verdict"] == "failed")
    assert {"prompt", "text", "programs", "verdict", "reason", "cpu_seconds", "wall_seconds"} <= line.keys()
    assert line["reason"]
    assert line["programs"][0]["source"].startswith(line["prompt"])


def test_humaneval_asked_in_chat(
    shared_data: Path, chat_tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """Whole functions, with or without a fence, with or without their imports."""
    kinds: dict[str, str] = {}

    def script(question: Question, copy: int) -> str:
        kinds[question.id] = kind = kind_of(question)
        row = question.row
        whole = row["prompt"] + row["canonical_solution"]
        alone = whole[whole.index(f"def {row['entry_point']}") :]
        return said(kind, whole, alone) if kind != "chatty" else f"Well.\n```\n{alone}"

    name = "humaneval:instruct"
    _, samples = run_task(task(name, shared_data), chat_tokenizer, script, tmp_path, sandbox=jail)
    helpers = {f"HumanEval/{number}" for number in (10, 32, 38, 50)}  # their prompts define more than the function
    for name in helpers & samples.keys():
        samples.pop(name)
    expected(samples, {"right", "chatty", "fenced"}, kinds)


@pytest.mark.parametrize("variant", ["paper-3shot", "incoder-0shot", "sanitized", "instruct"])
def test_mbpp(variant: str, shared_data: Path, chat_tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path) -> None:
    kinds: dict[str, str] = {}

    def script(question: Question, copy: int) -> str:
        kinds[question.id] = kind = kind_of(question)
        code = question.row["code"].replace("\r\n", "\n")
        match variant:
            case "instruct" if kind == "chatty":
                return f"Of course.\n[PYTHON]\n{code}\n[/PYTHON]\nEnjoy!"
            case "instruct":
                return said(kind, code, code)
            case "incoder-0shot" if kind == "chatty":
                return f"{code}\nassert nonsense"
            case _ if kind == "chatty":
                return f"{code}\n[DONE]\n\nYou are an expert"
        return said(kind, code, code)

    chosen = {"paper-3shot": 1, "incoder-0shot": 3, "sanitized": 2, "instruct": 3}[variant]
    _, samples = run_task(
        task(f"mbpp:{variant}", shared_data),
        chat_tokenizer,
        script,
        tmp_path,
        sandbox=jail,
        choose=lambda question: int(question.id.split("/")[1]) % chosen == 0 or question.id == "MBPP/367",
    )
    right = {"right", "chatty"} | ({"fenced"} if variant == "instruct" else set())
    expected(samples, right, kinds)
    assert all(("obeyed" in sample["scores"]) == (variant == "instruct") for sample in samples.values())


@pytest.mark.parametrize(
    ("text", "reason", "obeyed", "parses"),
    [
        ("[PYTHON]\ndef f():\n    return 1\n", "string", 1.0, 1.0),
        ("\n[PYTHON]\ndef f(:\n", "string", 1.0, 0.0),
        ("[PYTHON]\ndef f():\n    return 1\n", "length", 0.0, 1.0),
        ("Sure.\n[PYTHON]\nf = 1\n", "string", 0.0, 1.0),
        ("```python\nf = 1\n```", "eot", 0.0, 1.0),
        ("Here is how it is done.", "eot", 0.0, 0.0),
        ("", "eot", 0.0, 0.0),
    ],
)
def test_whether_an_answer_keeps_to_its_tags_and_is_python(
    text: str, reason: str, obeyed: float, parses: float, shared_data: Path, chat_tokenizer: Tokenizer
) -> None:
    mbpp = task("mbpp:instruct", shared_data)
    question = mbpp.questions(Scripted(chat_tokenizer, lambda question, copy: ""))[0]
    answer = Answer(question=question.id, temperature=0.0, copy=0, text=text, reason=reason, tokens=1, seconds=0.0)
    scores = mbpp.score(question, answer, Evidence())
    assert (scores["obeyed"], scores["parses"]) == (obeyed, parses)


def test_the_engine_stops_at_the_closing_tag(
    shared_data: Path, chat_tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """What the score takes for the end of an answer is what the stop rules report."""
    ends = {"MBPP/11": "\n[/PYTHON]", "MBPP/12": ""}
    scores, samples = run_task(
        task("mbpp:instruct", shared_data),
        chat_tokenizer,
        lambda question, copy: f"[PYTHON]\nx = 1{ends[question.id]}",
        tmp_path,
        sandbox=jail,
        choose=lambda question: question.id in ends,
    )
    assert {name: sample["scores"]["obeyed"] for name, sample in samples.items()} == {
        "MBPP/11": 1.0,
        "MBPP/12": 0.0,
    }
    assert (scores["between the tags"], scores["parses"], scores["pass@1"]) == (50.0, 100.0, 0.0)


def test_mbpp_is_500_questions_and_257_edited_ones(shared_data: Path, tokenizer: Tokenizer) -> None:
    model = Scripted(tokenizer, lambda question, copy: "")
    assert len(task("mbpp", shared_data).questions(model)) == 500
    assert len(task("mbpp:sanitized", shared_data).questions(model)) == 257


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("infilling-single-line:psm", 1033),
        ("infilling-multi-line:spm", 5815),
        ("infilling-random-span:psm-healed", 1640),
        ("infilling-random-span-light:spm-healed", 164),
    ],
)
def test_infilling(
    name: str, number: int, shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    kinds: dict[str, str] = {}
    one_line = "single-line" in name

    def script(question: Question, copy: int) -> str:
        middle = question.row["canonical_solution"]
        kinds[question.id] = kind = ("right", "wrong", "chatty")[len(kinds) % 3]
        if kind == "wrong":
            return "    (\n"
        return f"{middle}    and on it goes, without end\n" if kind == "chatty" else middle

    every = max(1, number // 60)
    places = iter(range(number))
    _, samples = run_task(
        task(name, shared_data),
        tokenizer,
        script,
        tmp_path,
        sandbox=jail,
        choose=lambda question: next(places) % every == 0,
    )
    assert next(places, None) is None, "so many questions"
    expected(samples, {"right", "chatty"} if one_line else {"right"}, kinds)


def test_prompts_are_golden(shared_data: Path, tokenizer: Tokenizer) -> None:
    """The texts that models see, word for word."""
    model = Scripted(tokenizer, lambda question, copy: "")

    def first(name: str) -> Question:
        return task(name, shared_data).questions(model)[0]

    official, stripped = first("humaneval").prompt, first("humaneval:stripped").prompt
    assert isinstance(official, Text)
    assert isinstance(stripped, Text)
    assert official.text.startswith("from typing import List\n\n\ndef has_close_elements(")
    assert official.text.endswith('    True\n    """\n')
    assert stripped.text == official.text.strip()
    evalplus = first("humaneval:evalplus").prompt
    assert isinstance(evalplus, Text)
    assert evalplus.text == official.text.strip() + "\n"
    assert first("humaneval").stops.strings == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    shots = first("mbpp").prompt
    assert isinstance(shots, Text)
    opening = "You are an expert Python programmer, and here is your task: "
    assert shots.text.count(opening) == 4
    assert shots.text.startswith(
        f"{opening}Write a function to find the similar elements from the given two tuple lists. Your code should "
        "pass these tests:\n\nassert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
    )
    assert shots.text.endswith('assert remove_Occ("PHP","P") == "H"\n[BEGIN]\n')
    assert "\r" not in shots.text
    assert first("mbpp:incoder-0shot").prompt == Text(
        text='"""\nWrite a python function to remove first and last occurrence of a given character from the '
        'string.\nassert remove_Occ("hello","l") == "heo"\n"""\n'
    )
    asked = first("mbpp:instruct").prompt
    assert isinstance(asked, Chat)
    assert asked.message.startswith(f"{opening}Write a python function to remove first and last occurrence")
    assert "[PYTHON]" in asked.message
    assert "[/PYTHON]" in asked.message
    hole = first("infilling-single-line:spm-healed").prompt
    assert isinstance(hole, Hole)
    assert (hole.layout, hole.heal) == ("spm", True)
    assert hole.prefix.endswith('    True\n    """\n\n')
    assert hole.suffix.startswith("        for idx2, elem2 in enumerate(numbers):\n")


def test_a_killed_evaluation_does_nothing_twice(
    shared_data: Path, tokenizer: Tokenizer, jail: Sandbox, tmp_path: Path
) -> None:
    """What is answered is not asked, what is scored is not judged; a half line is done again."""
    said_to: list[str] = []

    def script(question: Question, copy: int) -> str:
        said_to.append(question.id)
        return str(question.row["canonical_solution"])

    def few(question: Question) -> bool:
        return int(question.id.split("/")[1]) < 6

    measured = task("humaneval", shared_data)
    first, _ = run_task(measured, tokenizer, script, tmp_path, sandbox=jail, choose=few)
    assert (first, len(said_to)) == ({"pass@1": 100.0}, 6)
    answers, samples = tmp_path / "answers.jsonl", tmp_path / "samples.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:4]) + lines[4][:30])
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:3]))
    judged: list[int] = []
    original = Sandbox.judge

    class Counting:
        def judge(self, programs):  # type: ignore[no-untyped-def]
            chosen = list(programs)
            judged.append(len(chosen))
            return original(jail, chosen)

    again, _ = run_task(measured, tokenizer, script, tmp_path, sandbox=Counting(), choose=few)  # type: ignore[arg-type]
    assert again == first
    assert len(said_to) == 8
    assert sum(judged) == 3
    third, _ = run_task(measured, tokenizer, script, tmp_path, sandbox=Counting(), choose=few)  # type: ignore[arg-type]
    assert (third, len(said_to), sum(judged)) == (first, 8, 3)
