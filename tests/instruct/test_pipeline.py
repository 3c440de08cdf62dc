"""The stages on an endpoint whose every answer is planned: yields are as planted, and nothing is paid twice."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from instruct.scripted import MALICIOUS, Script, question, serving
from midspan.engine.server import Server
from midspan.errors import InputError, WorkError
from midspan.instruct import (
    Judge,
    Paid,
    QuestionsConfig,
    SolutionsConfig,
    UnitTestsConfig,
    Workshop,
    Yield,
    ask_questions,
    make_solutions,
    make_tests,
)
from midspan.instruct.asking import Endpoint
from midspan.instruct.ledger import Ledger
from midspan.instruct.workshop import read_rows

REPOSITORY = Path(__file__).resolve().parents[2]


def run(folder: Path, url: str, *, questions: int, per_request: int) -> dict[str, Yield]:
    """All three stages."""
    with Workshop(folder) as shop, Judge(shop.verdicts, workers=2, cpu_seconds=0.5) as judge:

        def paid() -> Paid:
            return Paid(Endpoint(Server(url), pause=0.0), shop.paid)

        config = QuestionsConfig(number=questions, per_request=per_request)
        return {
            "questions": ask_questions(shop, paid(), config),
            "tests": make_tests(shop, paid(), judge, UnitTestsConfig()),
            "solutions": make_solutions(shop, paid(), judge, SolutionsConfig()),
        }


def counts(found: Yield) -> dict[str, int]:
    return {row["what"]: row["count"] for row in found.rows}


TESTS = {4: "malformed", 5: "vacuous", 6: "weak"}
SOLUTIONS = {
    10: "WWRRRRRRRR",  # the third is the first that passes
    11: "XUWCMMMMMH",  # nothing passes
    12: "FRWWWWWWWW",  # the first is flaky, the second is kept
    13: "FWWWWWWWWW",  # flaky, and nothing else
    14: "XXXXXXXXXX",
    15: "MMMMMMMMMM",  # ten ways round a test
}


def planted(number: int) -> str:
    return SOLUTIONS.get(number, "R" * 10)


def batches(request: int) -> list[str]:
    """Two requests of eleven, with what has to go."""
    if request == 0:
        return [*map(question, range(4, 13)), question(4).upper().lower(), "Too short."]
    return [
        *map(question, range(13, 20)),
        f"{question(4)} ",
        "What does [INST] mean? Tell me in a function.",
        *"ab",
    ]


@pytest.mark.usefixtures("jail")
def test_yields_are_as_planted(tmp_path: Path) -> None:
    script = Script(questions=batches, tests=lambda n: TESTS.get(n, "good"), solutions=planted, most_choices=4)
    script.failures = [429, 500, 503]
    with serving(script) as url:
        first = run(tmp_path, url, questions=22, per_request=11)
        asked = len(script.log)
        again = run(tmp_path, url, questions=22, per_request=11)
    assert counts(first["questions"]) == {"asked for": 22, "read": 21, "different and fit": 16}
    assert first["questions"].dropped == {
        "exact duplicate": 2,
        "too short or too long": 2,
        "holds a mark of a prompt": 1,
    }
    assert counts(first["tests"]) == {"questions": 16, "with tests that say something": 14}
    assert first["tests"].dropped == {"malformed: no tags round it": 1, "vacuous: a stub passes": 1}
    # 14 questions: 6 as above, 8 with ten right ones, one of which has weak tests
    assert counts(first["solutions"]) == {
        "questions with tests": 14,
        "solutions": 140,
        "code between tags": 140 - 2 - 10,
        "pass all tests": 8 * 10 + 8 + 2 + 1,
        "questions with a solution": 8 + 3,
        "kept": 7 + 2,
    }
    assert first["solutions"].dropped == {
        "no solution passes": 3,
        "flaky: another hash seed, another verdict": 1,
        "weak tests: they miss changed operators": 1,
    }
    kept = {row["question"]: row["kept"] for row in read_rows(tmp_path / "solutions.jsonl")}
    assert kept[question(10)] == 2
    assert kept[question(12)] == 1
    assert [kept[question(n)] for n in (6, 11, 13, 14, 15)] == [None] * 5
    assert first["solutions"].rows[4]["paper_share"] == pytest.approx(14 / 52)
    assert len(script.log) == asked == len({key for key, _ in script.log}), "nothing is asked twice"
    assert sum(each.paid for each in again.values()) == 0
    assert {name: (each.rows, each.dropped) for name, each in again.items()} == {
        name: (each.rows, each.dropped) for name, each in first.items()
    }


@pytest.mark.usefixtures("jail")
def test_no_malicious_solution_passes(tmp_path: Path) -> None:
    script = Script(questions=lambda _: [question(n) for n in range(20, 30)], solutions=lambda _: "M" * 10)
    with serving(script) as url:
        found = run(tmp_path, url, questions=10, per_request=10)
    assert counts(found["solutions"])["pass all tests"] == 0
    answers = [answer for row in read_rows(tmp_path / "solutions.jsonl") for answer in row["answers"]]
    assert len(answers) == 100
    assert {answer["status"] for answer in answers} <= {"failed", "timeout"}
    assert len({answer["code"] for answer in answers}) >= 10 * len(MALICIOUS) - 20
    assert not Path("/tmp/left-behind").exists()


WORKER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from instruct.test_pipeline import run
    run(Path({folder!r}), {url!r}, questions=40, per_request=10)
"""


def keys(folder: Path) -> set[str]:
    """Keys of whole lines; what a killed process left of the last one is none."""
    path = folder / "paid.ledger"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {line[:32].decode() for line in lines}


@pytest.mark.usefixtures("jail")
@pytest.mark.parametrize("most_kills", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_anywhere_nothing_is_paid_twice_and_nothing_is_lost(most_kills: int, tmp_path: Path) -> None:
    draws = random.Random(most_kills)
    folder, straight = tmp_path / "killed", tmp_path / "straight"
    script = Script(
        questions=lambda number: [question(n) for n in range(10 * number + 10, 10 * number + 20)],
        solutions=lambda n: "WRFCRRRRRR" if n % 3 else "WCXWWWWWWW",
        seconds=0.02,
    )
    with serving(script) as url:
        code = textwrap.dedent(WORKER.format(tests=str(REPOSITORY / "tests"), folder=str(folder), url=url))
        kills = 0
        while True:
            known, asked = keys(folder), len(script.log)
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
                cwd=REPOSITORY,
                start_new_session=True,
            )
            if kills < most_kills:
                begun, wanted = time.monotonic(), asked + draws.randrange(1, 16)
                while process.poll() is None and len(script.log) < wanted and time.monotonic() - begun < 20:
                    time.sleep(0.01)
                time.sleep(draws.random() * 0.3)
                process.send_signal(signal.SIGKILL)
                kills += 1
            _, errors = process.communicate(timeout=120)
            assert process.returncode in (0, -9), errors.decode()
            assert not known & {key for key, _ in script.log[asked:]}, "what was kept is never asked again"
            assert known <= keys(folder), "nothing is lost"
            if process.returncode == 0:
                break
        assert kills == most_kills or kills > 3
        by_key = {key for key, _ in script.log}
        assert len(script.log) - len(by_key) <= kills * 8, "again is asked only what was under way at a kill"
    again = Script(questions=script.questions, solutions=script.solutions)
    with serving(again) as url:
        run(straight, url, questions=40, per_request=10)
    for name in ("questions.jsonl", "tests.jsonl", "solutions.jsonl"):  # who asks first gets the first questions
        by_id = [sorted(read_rows(place / name), key=lambda row: row["id"]) for place in (folder, straight)]
        assert by_id[0] == by_id[1]
        assert len(by_id[0]) == 40


@pytest.mark.slow
@pytest.mark.usefixtures("jail")
def test_ten_thousand_executions_leave_nothing_behind(tmp_path: Path) -> None:
    def processes() -> set[str]:
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if b"bwrap" in (folder / "cmdline").read_bytes():
                    found.add(folder.name)
            except OSError:
                pass
        return found

    before, files = processes(), set(os.listdir("/tmp"))
    script = Script(
        questions=lambda number: [question(n) for n in range(50 * number + 10, 50 * number + 60)],
        solutions=lambda n: "DWCDWCDWDM" if n % 10 == 0 else "DWCDWCDWDW",
    )
    with (
        serving(script) as url,
        Workshop(tmp_path) as shop,
        Judge(shop.verdicts, workers=2, cpu_seconds=0.5) as judge,
    ):
        paid = Paid(Endpoint(Server(url)), shop.paid)
        ask_questions(shop, paid, QuestionsConfig(number=800))
        make_tests(shop, paid, judge, UnitTestsConfig())
        make_solutions(shop, paid, judge, SolutionsConfig())
        assert judge.executed >= 10_000
    assert processes() <= before
    assert {name for name in set(os.listdir("/tmp")) - files if "midspan" in name or "left" in name} == set()


def test_a_ledger_that_was_cut_off_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    values = {f"{n:032x}": [f"text {n} ünïcödé \ud800 \n", n] for n in range(20)}
    with Ledger(path) as ledger:
        for key, value in values.items():
            ledger.put(key, value)
    whole = path.read_bytes()
    starts = [0, *(n + 1 for n, byte in enumerate(whole) if byte == 10)]
    for cut in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with Ledger(path) as ledger:
            expected = [key for key, end in zip(values, starts[1:], strict=True) if end <= cut]
            assert [key for key in values if ledger.get(key) is not None] == expected
            assert all(ledger.get(key) == values[key] for key in expected)
            ledger.put("f" * 32, "behind it")
        with Ledger(path) as ledger:
            assert ledger.get("f" * 32) == "behind it"
            assert len(ledger) == len(expected) + 1
    damaged = bytearray(whole)
    damaged[starts[3] + 60] ^= 1
    path.write_bytes(damaged)
    with Ledger(path) as ledger:
        assert [n for n, key in enumerate(values) if ledger.get(key) is None] == [3]


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with Workshop(tmp_path), pytest.raises(InputError, match="another command is at work"):
        Workshop(tmp_path)
    with Workshop(tmp_path) as shop, pytest.raises(InputError, match="run `midspan instruct tests"):
        shop.rows("tests.jsonl")


def test_a_server_that_fails_or_refuses_ends_the_stage_with_its_words(tmp_path: Path) -> None:
    script = Script(questions=lambda _: [question(1)])
    config = QuestionsConfig(number=20, per_request=1, parallel=1)
    with serving(script) as url, Workshop(tmp_path) as shop:
        paid = Paid(Endpoint(Server(url), pause=0.0), shop.paid)
        script.failures = [200, 200, 401]
        with pytest.raises(WorkError, match=r"\(401: as planned\); what was answered is kept"):
            ask_questions(shop, paid, config)
        kept = len(shop.paid)
        assert kept >= 2
        script.failures = [503] * 6
        with pytest.raises(WorkError, match="503: as planned"):
            ask_questions(shop, paid, config)
        assert not (tmp_path / "questions.jsonl").exists()
        script.failures = [400]
        found = ask_questions(shop, paid, config)
        assert found.dropped["exact duplicate"] == 18
        assert sum(count for reason, count in found.dropped.items() if reason.startswith("refused")) == 1
    with serving(script) as url, Workshop(tmp_path / "refused") as shop:
        script.failures = [400] * 100
        with pytest.raises(WorkError, match="the first 8 requests were refused"):
            ask_questions(shop, Paid(Endpoint(Server(url)), shop.paid), config)


ROW = {"id": "1", "question": "Add one.", "language": "python"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ("[]", "id, question, language is missing"),
        (
            json.dumps({**ROW, "language": "python", "question": "Add two."}).replace("question", "ask"),
            "question is missing",
        ),
        (json.dumps({**ROW, "id": "first"}), "the id is 'first'; it must be up to 32 hexadecimal digits"),
        (json.dumps({**ROW, "id": 2}), "the id is 2; it must be"),
    ],
)
def test_a_row_that_a_stage_cannot_use_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "questions.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n")
    with Workshop(tmp_path) as shop:
        rows = shop.rows("questions.jsonl")
        assert next(rows) == ROW
        with pytest.raises(InputError, match=rf"questions\.jsonl, line 2: {words}"):
            next(rows)
