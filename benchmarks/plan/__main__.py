"""`python -m benchmarks.plan [--quick] [--only published,paper,cpu]`: predictions beside what was measured.

Writes benchmarks/results/plan.json and, from it, docs/results/plan.md.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.harness import Bench
from benchmarks.plan import machine, page, paper, published

STEPS = ("published", "paper", "cpu")


def main() -> None:
    """Run the steps that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one case of this machine: does it run?")
    parser.add_argument("--only", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument(
        "--cases", default="", help="of this machine, some of the names, such as full-512,lora-2048"
    )
    arguments = parser.parse_args()
    asked = arguments.only.split(",")
    bench = Bench("plan")
    if "published" in asked:
        published.run(bench)
    if "paper" in asked:
        paper.run(bench)
    if "cpu" in asked:
        names = arguments.cases.split(",") if arguments.cases else list(machine.CASES)
        for case in names[:1] if arguments.quick else names:
            machine.run(bench, [case])
            page.keep(bench, quick=arguments.quick)  # a case takes its time: none is lost
        return
    page.keep(bench, quick=arguments.quick)


if __name__ == "__main__":
    main()
