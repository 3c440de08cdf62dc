"""Verdict by verdict beside openai/human-eval's own harness: docs/results/agreement.json.

    git clone https://github.com/openai/human-eval
    python -m venv peer && peer/bin/pip install numpy ./human-eval
    python scripts/agreement.py --python peer/bin/python --work FOLDER [--every 10] [--mode strict]

Theirs runs in an interpreter of its own, which has what the jail has: a sample that imports more fails in both.

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
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
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
PEER = """
import json, sys
from human_eval.execution import check_correctness

for line in sys.stdin:
    problem, completion, seconds = json.loads(line)
    print(json.dumps(check_correctness(problem, completion, seconds)["result"]), flush=True)
"""
Sample = tuple[str, dict[str, Any], str]
"""Its name, HumanEval's row, and the completion."""


def rows(name: str) -> list[dict[str, Any]]:
    """A gzipped JSON-lines file of the data folder."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def samples(every: int) -> Iterator[Sample]:
    """Every so many-th sample of each problem."""
    problems = {row["task_id"]: row for row in rows("humaneval/HumanEval.jsonl.gz")}
    names = {row["prompt"]: row["task_id"] for row in rows(PROMPTS)}
    for row in rows(SAMPLES):
        problem = problems[names[row["prompt"]]]
        for number, completion in enumerate(row["samples"]):
            if number % every == 0:
                yield f"{problem['task_id']}/{number}", problem, completion


class Peer:
    """Their harness in an interpreter of its own, one sample at a time."""

    def __init__(self, python: str) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, problem: dict[str, Any], completion: str, seconds: float) -> str:
        """What it says of a completion."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([problem, completion, seconds]) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def theirs(asked: list[Sample], ledger: Ledger, peers: list[Peer]) -> dict[str, str]:
    """What their harness says of each sample; what the ledger has already is not asked again."""
    idle: SimpleQueue[Peer] = SimpleQueue()
    for peer in peers:
        idle.put(peer)

    def ask(one: Sample) -> tuple[str, str]:
        name, problem, completion = one
        result = ledger.get(key_of(name))
        if result is None:
            peer = idle.get()
            result = peer.ask(problem, completion, WALL_SECONDS)
            idle.put(peer)
            ledger.put(key_of(name), result)
        return name, result

    found: dict[str, str] = {}
    with ThreadPoolExecutor(len(peers)) as pool:
        for name, result in pool.map(ask, asked):
            found[name] = result
            if len(found) % 500 == 0:
                print(f"human-eval: {len(found)} of {len(asked)}", flush=True)
    return found


def compared(
    asked: list[Sample], ours: dict[str, Verdict], said_of: dict[str, str], peer: Peer
) -> list[dict[str, str]]:
    """The samples of which one says that they passed and the other that they did not, each with its cause."""
    found = []
    for name, problem, completion in asked:
        verdict, said = ours[name], said_of[name]
        passed = verdict.status == "passed"
        if passed == (said == "passed"):
            continue
        patient = peer.ask(problem, completion, PATIENT_SECONDS)
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
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has human_eval")
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
    peers = [Peer(options.python) for _ in range(workers)]
    with Ledger(options.work / "human-eval.ledger", durable=False) as ledger:
        peer = theirs(asked, ledger, peers)
    differences = compared(asked, ours, peer, peers[0])
    for each in peers:
        each.close()
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
