"""Data sets: what solved questions teach, preferences as TRL reads them, rows whose answers alone are trained."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from midspan.errors import InputError
from midspan.instruct.dataset import BuildConfig, build, preference, safety_set, taught
from midspan.instruct.imports import check, entries
from midspan.instruct.questions import question_id
from midspan.instruct.workshop import read_rows, write_rows
from midspan.rows import Conversations, Rows, RowsConfig, Source, compile_rows
from midspan.tokenizer.chat_templates import with_chat
from vocabularies import small_vocabulary


def solved(number: int, *statuses: str, kept: int | None = 0) -> dict[str, Any]:
    question = f"Write a function add_{number} that adds {number} to a number."
    answers = [
        {"code": f"def add_{number}(n):\n    return n + {number} + {place}\n", "status": status, "reason": ""}
        for place, status in enumerate(statuses)
    ]
    return {
        "id": question_id("python", question),
        "language": "python",
        "question": question,
        "entry": f"add_{number}",
        "setup": "",
        "tests": [f"assert add_{number}(1) == {number + 1}", f"assert add_{number}(0) == {number}"],
        "shown": number % 2,
        "answers": answers,
        "kept": kept,
        "fault": "" if kept is not None else "no solution passes",
        "mutants": 2,
        "noticed": 2,
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    rows = [solved(n, "failed", "passed", "passed", kept=1) for n in range(200)]
    rows += [solved(n, "malformed", "passed", kept=1) for n in range(200, 220)]
    rows += [solved(n, "failed", kept=None) for n in range(220, 240)]
    write_rows(folder / "solutions.jsonl", rows)
    return folder


def test_what_is_built_is_what_training_reads(work: Path, tmp_path: Path) -> None:
    others = tmp_path / "others.jsonl"
    multi = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}] * 3
    write_rows(others, [{"conversations": multi}, {"conversations": multi}])
    out, pairs = tmp_path / "all.jsonl", tmp_path / "pairs.jsonl"
    found = build(out, BuildConfig(sources=(work, others), safety=True), preferences=pairs)
    counts = {row["what"]: row["count"] for row in found.rows}
    assert counts == {
        "preferences": 200,
        "self-instructed": 220,
        "imported": 1,
        "safety": len(safety_set()),
        "conversations": 221 + len(safety_set()),
    }
    assert found.dropped == {"exact duplicate": 1}
    assert len(list(Conversations.open(out))) == counts["conversations"]
    again = tmp_path / "again.jsonl"
    build(again, BuildConfig(sources=(work, others), safety=True))
    assert again.read_bytes() == out.read_bytes()


def test_rows_of_it_train_answers_alone(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    build(out, BuildConfig(sources=(work,), safety=True))
    tokenizer = with_chat(small_vocabulary())
    config = RowsConfig(row_tokens=1024, window_documents=30)
    compile_rows([Source(corpus=Conversations.open(out))], tokenizer, config, 6, tmp_path / "rows")
    known = {m["content"] for row in read_rows(out) for m in row["messages"] if m["role"] == "assistant"}
    rows = Rows(tmp_path / "rows")
    for row in (rows[n] for n in range(6)):
        targets = row.targets
        runs = [list(run) for run in _runs([int(t) + 1 for t in targets])]
        for run in runs:
            text = tokenizer.decode(
                [int(row.ids[place]) for place in run if not tokenizer.is_special(row.ids[place])]
            )
            assert text.strip() in {answer.strip() for answer in known}


def _runs(places: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def test_who_asks_for_tags_gets_tags() -> None:
    conversations = [taught(solved(n, "passed")) for n in range(400)]
    tagged = [c for c in conversations if "[PYTHON]" in c[0].content]
    assert 160 < len(tagged) < 240
    for asked, answer in conversations:
        check([asked, answer])
        wants = "[PYTHON]" in asked.content
        pattern = r"\[PYTHON\]\n.*\n\[/PYTHON\]" if wants else r"```python\n.*\n```"
        assert re.fullmatch(pattern, answer.content, re.DOTALL)
    assert any("assert" not in asked.content for asked, _ in conversations)


def test_preferences_load_in_trl(work: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install 'midspan[bench]'")
    data_utils = pytest.importorskip("trl.data_utils", reason="pip install 'midspan[bench]'")
    pairs = tmp_path / "pairs.jsonl"
    build(tmp_path / "all.jsonl", BuildConfig(sources=(work,)), preferences=pairs)
    loaded = datasets.load_dataset("json", data_files=str(pairs), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 200
    example = loaded[0]
    assert data_utils.is_conversational(example)
    tokenizer = pytest.importorskip("transformers").AutoTokenizer
    folder = tmp_path / "vocabulary"
    with_chat(small_vocabulary()).save(folder)
    applied = data_utils.apply_chat_template(example, tokenizer.from_pretrained(folder))
    assert applied["prompt"].endswith("<|im_start|>assistant\n")
    assert "return n + 0 + 1" in applied["chosen"]
    assert "return n + 0 + 0" in applied["rejected"]
    assert preference(solved(1, "passed")) is None
    assert preference(solved(1, "failed", kept=None)) is None


def test_benchmarks_are_kept_clear_of(work: Path, tmp_path: Path, shared_data: Path) -> None:
    leaked = solved(7, "passed")
    with gzip.open(shared_data / "mbpp" / "mbpp.jsonl.gz", "rt", encoding="utf-8") as file:
        leaked["question"] = json.loads(file.readline())["text"]
    rows = [*list(read_rows(work / "solutions.jsonl"))[:10], leaked]
    write_rows(work / "solutions.jsonl", rows)
    found = build(
        tmp_path / "out", BuildConfig(sources=(work,), benchmarks=(shared_data / "mbpp" / "mbpp.jsonl.gz",))
    )
    assert found.dropped["a benchmark's"] == 1
    assert leaked["question"] not in (tmp_path / "out").read_text()


def test_bad_entries_end_the_work_or_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "others.jsonl"
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"messages": []}) + "\n")
    with pytest.raises(InputError, match=r"others\.jsonl, line 2: there are no messages \(--skip-bad"):
        build(tmp_path / "out", BuildConfig(sources=(path,)))
    assert not (tmp_path / "out").exists()
    found = build(tmp_path / "out", BuildConfig(sources=(path,), skip_bad=True))
    assert found.dropped == {"cannot be used": 1}
    with pytest.raises(InputError, match="nothing to build from"):
        build(tmp_path / "out", BuildConfig())
    with pytest.raises(InputError, match=r"has no solutions\.jsonl yet"):
        build(tmp_path / "out", BuildConfig(sources=(tmp_path,)))


def test_the_safety_set_is_pairs_that_can_be_learnt_from() -> None:
    found = safety_set()
    assert len(found) >= 40
    for messages in found:
        check(messages)
    for declined, answered in zip(found[::2], found[1::2], strict=True):
        assert "```" not in declined[1].content
        assert len(declined[1].content) > 80, "a refusal says what can be done instead"
        for code in re.findall(r"```python\n(.*?)```", answered[1].content, re.DOTALL):
            compile(code, "<answer>", "exec")


def test_the_recipes_files_of_conversations_are_read() -> None:
    path = Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "conversations.jsonl"
    assert all(not entry.fault for entry in entries(path))
