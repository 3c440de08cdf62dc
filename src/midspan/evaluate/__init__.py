"""Measuring a model: the field's benchmarks and held-out files, beside its base and the paper's models.

`Evaluation` puts tasks to a model into a folder and writes results.json and the reports, `rescore` scores its
answers again without the model, `TASKS` has every task by name, `write_report` makes the pages again, and
`write_card` the model's card.
"""

from midspan.evaluate.card import write_card
from midspan.evaluate.measure import Asks
from midspan.evaluate.registry import TASKS
from midspan.evaluate.report import write_report
from midspan.evaluate.run import Evaluation, rescore

__all__ = ["TASKS", "Asks", "Evaluation", "rescore", "write_card", "write_report"]
