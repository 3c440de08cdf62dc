"""What the models are asked, in the shape of the paper's prompts (appendix H.1, figures 10 to 12), in our words.

    questions   one turn: so many exercises, numbered
    tests       a worked example, then a problem: assertions between [TESTS] and [/TESTS]
    solutions   a worked example, then a problem with one of its tests: code between [PYTHON] and [/PYTHON]

The test that is shown tells the function's name and arguments; the others stay hidden, so that a solution is not
written for them.
"""

from __future__ import annotations

import re

from midspan.fim import Draws
from midspan.instruct.asking import conversation
from midspan.instruct.form import Form
from midspan.tokenizer.chat import TAGS, Message

NUM_TESTS = 5
SUBJECTS_SHOWN = 6
SUBJECTS = (
    *("strings", "substrings and patterns", "counting words or letters", "parsing a small format", "lists"),
    *("sorting by a rule", "searching sorted data", "two sequences at once", "sliding windows", "matrices"),
    *("dictionaries and grouping", "sets", "stacks", "queues", "intervals", "dates and times", "bits", "primes"),
    *("digits of a number", "fractions and rounding", "sequences of numbers", "combinations", "permutations"),
    *("recursion", "trees given as nested lists", "graphs given as edges", "shortest paths", "simulation"),
    *("dynamic programming", "greedy choices", "games on a board", "text layout", "encoding and decoding"),
    *("validation", "tables of prices", "coordinates and geometry", "units of measure", "schedules"),
    *("statistics", "paths of files", "merging records", "undo and redo", "Roman numerals", "calendars"),
)
_MOST_CHARACTERS, _FEWEST_CHARACTERS = 1200, 25
_TAG = re.compile(r"\[/?[A-Z]{3,}\]")


def questions_prompt(form: Form, number: int, draws: Draws, code: str = "") -> tuple[Message, ...]:
    """The request for new questions, on subjects that are drawn or about a piece of the user's code."""
    rules = (
        f"Each asks for a single {form.title} function that needs nothing beyond the standard library, and says "
        "what the function is given and what it returns. They are easy or of medium difficulty, no two are alike, "
        "and each can be understood by itself. Number them from 1, put each on one line, and write nothing else."
    )
    if code:
        return conversation(
            f"This is a piece of code from a project:\n\n{code}\n\nWrite {number} programming exercises that an "
            "interviewer for this project could set: about the kind of data and problems that this code is about, "
            f"without naming the code or relying on it. {rules}"
        )
    subjects = list(SUBJECTS)
    shown = [subjects.pop(draws.below(len(subjects))) for _ in range(SUBJECTS_SHOWN)]
    return conversation(
        f"Write {number} programming exercises such as an interviewer sets. Vary the subject; some of them could "
        f"be about {', '.join(shown[:-1])} and {shown[-1]}. {rules}"
    )


def read_questions(text: str) -> list[str]:
    """The items of a numbered list, each as one line; the last only if it was not cut off."""
    items: list[str] = []
    for line in text.splitlines():
        if found := re.match(r"\s*(?:\*\*)?\d{1,3}[.):](?:\*\*)?\s+(.*)", line):
            items.append(found[1])
        elif items and line.strip():
            items[-1] += f" {line.strip()}"
    items = [" ".join(item.replace("**", "").split()) for item in items]
    if items and items[-1][-1:] not in tuple(".?!)\"'`]"):
        items.pop()
    return items


def question_fault(question: str) -> str:
    """Why a question cannot be used; empty if it can."""
    if not _FEWEST_CHARACTERS <= len(question) <= _MOST_CHARACTERS:
        return "too short or too long"
    if any(tag in question for tag in TAGS) or _TAG.search(question):
        return "holds a mark of a prompt"
    return ""


def tests_prompt(form: Form, question: str) -> tuple[Message, ...]:
    """The request for tests of a question."""
    problem, tests, _ = form.example
    shown = "\n".join(f"{form.comment} Test case {n}:\n{test}" for n, test in enumerate(tests, 1))
    return conversation(
        f"Write {NUM_TESTS} tests for a {form.title} function that solves a problem. Put them between [TESTS] and "
        f"[/TESTS]. A test is {form.assertion}; above it stands a comment with its number, "
        f"`{form.comment} Test case 1:` for the first. Do not write the function.\n\nProblem: {problem}",
        f"[TESTS]\n{shown}\n[/TESTS]",
        f"Problem: {question}",
    )


def solution_prompt(form: Form, question: str, test: str) -> tuple[Message, ...]:
    """The request for solutions of a question, one of whose tests is shown."""
    problem, tests, solution = form.example
    return conversation(
        f"Write a {form.title} function that solves a problem. Put the code between [{form.tag}] and "
        f"[/{form.tag}]. The test shows how the function is named and called.\n\nProblem: {problem}\n"
        f"Test: {tests[0]}",
        f"[{form.tag}]\n{solution}\n[/{form.tag}]",
        f"Problem: {question}\nTest: {test}",
    )
