"""Conversations to learn from: made by a model and believed once they ran, imported, or written here.

`Workshop` is the folder of a data set; `ask_questions`, `make_tests` and `make_solutions` are its stages.
"""

from midspan.instruct.asking import Paid, open_asker
from midspan.instruct.judging import Judge
from midspan.instruct.questions import QuestionsConfig, ask_questions
from midspan.instruct.solutions import SolutionsConfig, make_solutions
from midspan.instruct.unit_tests import UnitTestsConfig, make_tests
from midspan.instruct.workshop import Workshop
from midspan.instruct.yields import Yield

__all__ = [
    "Judge",
    "Paid",
    "QuestionsConfig",
    "SolutionsConfig",
    "UnitTestsConfig",
    "Workshop",
    "Yield",
    "ask_questions",
    "make_solutions",
    "make_tests",
    "open_asker",
]
