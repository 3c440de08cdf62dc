"""Stage 1 beside the endpoint: near duplicates, benchmarks, the user's own code, and who may see it."""

import gzip
import json
from pathlib import Path

import pytest

from instruct.scripted import Script, question, serving
from midspan.corpus import CorpusConfig
from midspan.corpus import build as build_corpus
from midspan.engine.server import Server
from midspan.errors import InputError
from midspan.fim import Draws
from midspan.instruct import Paid, QuestionsConfig, Workshop, Yield, ask_questions
from midspan.instruct.asking import Endpoint, open_asker
from midspan.instruct.prompts import SUBJECTS, questions_prompt
from midspan.instruct.python_form import PYTHON
from midspan.instruct.questions import check_seeds
from midspan.instruct.workshop import read_rows


def ask(folder: Path, script: Script, config: QuestionsConfig) -> Yield:
    with serving(script) as url, Workshop(folder) as shop:
        return ask_questions(shop, Paid(Endpoint(Server(url)), shop.paid), config)


def test_near_duplicates_go_if_asked_to(tmp_path: Path) -> None:
    long = (
        "Write a function that is given a list of orders, each with a name, a price and a number of pieces, and "
    )
    long += "returns the sum of what has to be paid for all of them together, rounded to two digits"
    near = [f"{long}.", f"{long} please.", question(1)]
    script = Script(questions=lambda _: near)
    config = QuestionsConfig(number=3, per_request=3)
    assert len(list(read_rows(_questions(tmp_path / "a", script, config)))) == 3
    found = ask(tmp_path / "b", script, QuestionsConfig(number=3, per_request=3, near_duplicates=True))
    assert found.dropped == {"near duplicate": 1}
    assert [row["question"] for row in read_rows(tmp_path / "b" / "questions.jsonl")] == [near[0], near[2]]


def _questions(folder: Path, script: Script, config: QuestionsConfig) -> Path:
    ask(folder, script, config)
    return folder / "questions.jsonl"


def test_questions_of_benchmarks_go(tmp_path: Path, shared_data: Path) -> None:
    benchmarks = (shared_data / "mbpp" / "mbpp.jsonl.gz",)
    with gzip.open(benchmarks[0], "rt", encoding="utf-8") as file:
        leaked = json.loads(file.readline())["text"]
    config = QuestionsConfig(number=2, per_request=2, benchmarks=benchmarks)
    found = ask(tmp_path, Script(questions=lambda _: [leaked, question(1)]), config)
    assert found.dropped == {"a benchmark's": 1}


def test_questions_about_the_users_own_code(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    body = "\n".join(f"    total += item.price * {n}" for n in range(6))
    (source / "orders.py").write_text(f"def secret_total(items):\n    total = 0\n{body}\n    return total\n" * 3)
    (source / "short.py").write_text("x = 1\n")
    build_corpus([str(source)], tmp_path / "corpus", CorpusConfig())
    script = Script(questions=lambda n: [question(n)])
    ask(tmp_path / "work", script, QuestionsConfig(number=4, per_request=2, seeds=tmp_path / "corpus"))
    assert len(script.log) == 2
    assert all("secret_total" in said and "without naming the code" in said for _, said in script.log)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "short.py").write_text("x = 1\n" + "# a comment of some length\n" * 2)
    build_corpus([str(empty)], tmp_path / "small", CorpusConfig())
    with pytest.raises(InputError, match="has no function of 4 to 40 lines"):
        ask(tmp_path / "work", script, QuestionsConfig(number=4, per_request=2, seeds=tmp_path / "small"))


def test_own_code_leaves_the_machine_only_if_that_is_said() -> None:
    elsewhere = "https://api.example.com/v1"
    with pytest.raises(InputError, match=r"would send code of code to https://api\.example\.com"):
        check_seeds(Path("code"), elsewhere, send_code=False)
    check_seeds(Path("code"), elsewhere, send_code=True)
    check_seeds(Path("code"), "http://127.0.0.1:8000", send_code=False)
    check_seeds(Path("code"), None, send_code=False)
    check_seeds(None, elsewhere, send_code=False)


def test_requests_differ_and_are_the_same_again() -> None:
    prompts = [questions_prompt(PYTHON, 50, Draws(0, 0, n))[0].content for n in range(40)]
    assert len(set(prompts)) == 40
    assert prompts[7] == questions_prompt(PYTHON, 50, Draws(0, 0, 7))[0].content
    assert len(set(SUBJECTS)) == len(SUBJECTS)


@pytest.mark.parametrize("option", ["number", "per_request", "parallel"])
def test_bad_settings_are_one_sentence(option: str) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} is 0"):
        QuestionsConfig(**{option: 0})


def test_somebody_has_to_be_asked() -> None:
    def load(name: str) -> object:
        raise AssertionError(name)

    with pytest.raises(InputError, match="nobody is named to ask"):
        open_asker(None, None, load=load)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'nowhere'"):
        open_asker("nowhere", None, load=load)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is no address of a server"):
        open_asker("m", "localhost", load=load)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be read"):
        open_asker("m", "http://127.0.0.1:1", load=load, api_key_file=Path("nowhere"))  # type: ignore[arg-type]
