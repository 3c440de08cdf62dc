"""Measuring a model: what it scores on files that training never saw, beside its base, with intervals.

`Evaluation` measures a run or a model and writes results.json and the page, `evaluate` puts a loaded model to the
task, `compare` makes the rows of two results, `write_report` makes the page again.
"""

from midspan.evaluate.report import write_report
from midspan.evaluate.results import TaskResult, compare
from midspan.evaluate.run import Evaluation, evaluate
from midspan.evaluate.tasks.heldout import HeldOutConfig, passages

__all__ = ["Evaluation", "HeldOutConfig", "TaskResult", "compare", "evaluate", "passages", "write_report"]
