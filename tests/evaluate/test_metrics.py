"""Scores against other people's formulas and against what is known beforehand."""

import difflib
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from midspan.evaluate.metrics import bits, bootstrap, edit_similarity, smoothed_bleu, wilson
from midspan.evaluate.rows import task_rows
from midspan.evaluate.task import EXACT


@pytest.mark.parametrize(("successes", "n"), [(0, 8), (1, 8), (8, 8), (17, 50), (499, 1000)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_is_the_score_test_inverted() -> None:
    """Its ends are the shares at which the observed share is 1.96 standard errors away."""

    def distance(p: float) -> float:
        return abs(0.3 - p) / math.sqrt(p * (1 - p) / 40) - stats.norm.ppf(0.975)

    ends = optimize.brentq(distance, 1e-6, 0.3 - 1e-9), optimize.brentq(distance, 0.3 + 1e-9, 1 - 1e-6)
    assert wilson(12, 40) == pytest.approx(ends, abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


def test_codexglues_published_scores_come_out(shared_data: Path) -> None:
    folder = shared_data / "codexglue_anchors"
    texts = [
        [line.partition("\t")[2] for line in (folder / "code-to-text" / name).read_text().splitlines()]
        for name in ("predictions.txt", "reference.txt")
    ]
    scores = [smoothed_bleu(written, reference) for written, reference in zip(*texts, strict=True)]
    assert sum(scores) / len(scores) == pytest.approx(9.554726113590661, abs=1e-9)
    answers = [
        json.loads(line) for line in (folder / "codecompletion-line" / "answers.json").read_text().splitlines()
    ]
    written = (folder / "codecompletion-line" / "predictions.txt").read_text().splitlines()
    shown = [  # as its evaluator shows literals
        [re.sub(r"<(?:STR|NUM|CHAR)_LIT:?(.*?)>", r"\1", line) for line in lines]
        for lines in (written, [answer["gt"] for answer in answers])
    ]
    similar = [edit_similarity(mine, theirs) for mine, theirs in zip(*shown, strict=True)]
    assert sum(similar) / len(similar) == pytest.approx(43.8)
    assert smoothed_bleu("the same words here", "the same words here") == pytest.approx(100)
    assert smoothed_bleu("", "something") == smoothed_bleu("other", "") == 0


def test_edit_similarity_is_rounded_indel_ratio() -> None:
    """100 * 2 * (longest common subsequence) / both lengths, by a plain table, rounded before any mean."""
    rng = random.Random(0)
    for _ in range(60):
        a, b = ("".join(rng.choice("abc d\n") for _ in range(rng.randrange(12))) for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        total = len(a) + len(b)
        assert edit_similarity(a, b) == (round(200 * table[-1][-1] / total) if total else 100)
    assert edit_similarity("return x", "return y") == round(
        100 * difflib.SequenceMatcher(None, "return x", "return y").ratio()
    )
    assert type(edit_similarity("ab", "abc")) is int


def test_bootstrap_of_a_mean_is_the_known_interval() -> None:
    values = np.random.Generator(np.random.Philox(1)).normal(5.0, 2.0, 400)
    low, high = bootstrap(values, np.ones(400), range(400))
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_draws_whole_groups() -> None:
    """Copies within a group add no certainty; observations on their own do."""
    rng = np.random.Generator(np.random.Philox(2))
    means = rng.normal(size=40)
    copied, groups = np.repeat(means, 10), np.repeat(np.arange(40), 10)
    once = bootstrap(means, np.ones(40), range(40))
    assert bootstrap(copied, np.ones(400), groups) == pytest.approx(once)
    low, high = bootstrap(copied, np.ones(400), range(400))
    assert high - low < 0.5 * (once[1] - once[0])


def test_bootstrap_of_a_ratio() -> None:
    """Sum over sum, not a mean of ratios; a constant ratio is certain; ids of 64 bits are groups of their own."""
    assert bootstrap([2.0, 20.0, 6.0], [1.0, 10.0, 3.0], [7, 8, 9]) == pytest.approx((2.0, 2.0))
    low, high = bootstrap([0.0, 1000.0], [1.0, 1000.0], [2**64 - 1, 2**64 - 2])
    assert (low, high) == (0.0, 1.0)
    assert bootstrap([1.0, 5.0, 2.0], [1.0] * 3, range(3), seed=4) == bootstrap(
        [1.0, 5.0, 2.0], [1.0] * 3, range(3), seed=4
    )


def test_bits() -> None:
    assert bits(math.log(8)) == pytest.approx(3.0)


def test_the_mean_of_groups_has_an_interval_of_shares() -> None:
    """Half the width of both sides together reached below 0 where no group has a right answer."""
    samples = [
        {
            "question": f"{group}/{number}",
            "groups": [group],
            "cluster": f"{group}/{number}",
            "temperature": 0.0,
            "scores": {"exact": 0.0},
        }
        for group in ("js", "java")
        for number in range(20)
    ]
    rows = task_rows("made", "", [EXACT], samples, average="mean of languages")
    (mean,) = (row for row in rows if row["group"] == "mean of languages")
    low, high = mean["interval"]
    assert low == mean["ours"] == 0
    assert 0 < high < max(row["interval"][1] for row in rows)
