"""Reference solutions through the judge: docs/results/canonical.json, one row per benchmark, `ours` beside `goal`.

    python scripts/canonical.py [--quick] [--only python,cpp] [--mode strict]

Data: MIDSPAN_DATA, or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from midspan.evaluate.tasks.humanevalpack import tests_of, with_go_imports
from midspan.files import write_json
from midspan.sandbox import Limits, Program, Sandbox, doctor

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MIDSPAN_DATA", ROOT.parent / "shared" / "data"))
PACK = {"python": "python", "cpp": "cpp", "java": "java", "javascript": "js", "go": "go", "rust": "rust"}
INFILLING = {
    "SingleLine": "SingleLineInfilling",
    "MultiLine": "MultiLineInfilling",
    "RandomSpan": "RandomSpanInfilling",
    "RandomSpanLight": "RandomSpanInfillingLight",
}
SLOW = Limits(cpu_seconds=15.0, memory_bytes=2 << 30)


def rows(name: str) -> list[dict[str, Any]]:
    """A gzipped JSON-lines file of the data folder."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def humaneval() -> Iterator[Program]:
    for row in rows("humaneval/HumanEval.jsonl.gz"):
        yield Program(
            key=row["task_id"],
            source=row["prompt"] + row["canonical_solution"],
            test=f"{row['test']}\ncheck({row['entry_point']})",
            entry_point=row["entry_point"],
            trusted=row["prompt"],
        )


def infilling(name: str) -> Iterator[Program]:
    for row in rows(f"humaneval_infilling/HumanEval-{name}.jsonl.gz"):
        yield Program(
            key=row["task_id"],
            source=row["prompt"] + row["canonical_solution"] + row["suffix"],
            test=f"{row['test']}\ncheck({row['entry_point']})",
            entry_point=row["entry_point"],
        )


def mbpp(*, sanitized: bool) -> Iterator[Program]:
    """The set-up code runs after the solution: two tasks need that."""
    if sanitized:
        found = json.loads((DATA / "mbpp/sanitized-mbpp.json").read_text(encoding="utf-8"))
    else:
        found = rows("mbpp/mbpp.jsonl.gz")
    for row in found:
        setup = "\n".join(row["test_imports"]) if sanitized else row["test_setup_code"]
        tests = row["test_list"] + row.get("challenge_test_list", [])
        yield Program(key=str(row["task_id"]), source=row["code"], test="\n".join([setup, *tests]), limits=SLOW)


def pack(language: str, folder: str, which: str) -> Iterator[Program]:
    """HumanEvalPack and HumanEval-X: prompt, solution and test as each language wants them."""
    name = PACK[language]
    file = f"humanevalpack/humanevalpack-{name}" if folder == "humanevalpack" else f"humaneval_x/humaneval_{name}"
    for row in rows(f"{file}.jsonl.gz"):
        prompt = row["prompt"]
        if folder == "humaneval_x" and language == "rust":
            prompt = "fn main(){}\n" + row["declaration"]
        source, test = prompt + row[which], tests_of(row, language)
        yield Program(
            key=row["task_id"],
            language=language,
            source=with_go_imports(row, source, test) if language == "go" else source,
            test=test,
            limits=Limits() if language == "python" else SLOW,
        )


def benchmarks() -> Iterator[tuple[str, str, Iterator[Program], int, int]]:
    """(name, language, programs, how many there are, how many are to pass)."""
    yield "HumanEval", "python", humaneval(), 164, 164
    yield "MBPP", "python", mbpp(sanitized=False), 974, 974
    yield "MBPP sanitized", "python", mbpp(sanitized=True), 427, 427
    for name, number in (
        ("SingleLine", 1033),
        ("MultiLine", 5815),
        ("RandomSpan", 1640),
        ("RandomSpanLight", 164),
    ):
        yield f"infilling {name}", "python", infilling(INFILLING[name]), number, number
    for language in PACK:
        yield (
            f"HumanEvalPack {language}",
            language,
            pack(language, "humanevalpack", "canonical_solution"),
            164,
            164,
        )
        yield (
            f"HumanEvalPack {language}, bugs",
            language,
            pack(language, "humanevalpack", "buggy_solution"),
            164,
            0,
        )
        yield f"HumanEval-X {language}", language, pack(language, "humaneval_x", "canonical_solution"), 164, 164


def main() -> None:
    """Judge every set whose tools are here, keep rows of sets that were not asked for, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten programs of each set; writes nothing")
    parser.add_argument("--only", default="", help="languages, with commas")
    parser.add_argument("--mode", choices=("compat", "strict"), default="compat")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/canonical.json")
    asked = parser.parse_args()
    ready = {row["language"]: row for row in doctor()}
    found = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": [], "tools": {}}
    kept = {row["row"]: row for row in found["rows"]}
    with Sandbox(mode=asked.mode) as sandbox:
        for name, language, programs, number, goal in benchmarks():
            if asked.only and language not in asked.only.split(","):
                continue
            row = f"{name}, strict" if asked.mode == "strict" else name
            if not ready[language]["ready"]:
                kept[row] = {
                    "row": row,
                    "ours": None,
                    "goal": goal,
                    "of": number,
                    "why": ready[language]["remedy"],
                }
                continue
            chosen = [program for place, program in enumerate(programs) if place < 10 or not asked.quick]
            verdicts = list(sandbox.judge(chosen))
            passed = sum(verdict.status == "passed" for verdict in verdicts)
            odd = [v for v in verdicts if (v.status == "passed") != (goal > 0)]
            kept[row] = {"row": row, "ours": passed, "goal": goal, "of": len(verdicts)}
            kept[row]["not_as_expected"] = {v.key: f"{v.status}: {v.reason}" for v in odd[:40]}
            print(f"{row}: {passed} of {len(verdicts)} (goal {goal} of {number})", flush=True)
            for verdict in odd[:5]:
                print(f"   {verdict.key} {verdict.status}: {verdict.reason[:200]}", flush=True)
            if not asked.quick:
                described = sandbox.describe()
                found["tools"].update(described.pop("tools"))
                date = datetime.date.today().isoformat()
                write_json(
                    asked.out,
                    {"name": "canonical", "date": date, "sandbox": described, "tools": found["tools"]}
                    | {"rows": list(kept.values())},
                )


if __name__ == "__main__":
    main()
