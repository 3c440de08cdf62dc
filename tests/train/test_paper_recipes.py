"""The recipes of the paper's models against the paper's own numbers, written here a second time.

Sources are arXiv 2308.12950: its sections 2.1 to 2.5, Table 1, and Figure 2. What the paper does not say is not
tested, but every recipe has to call it a choice of ours.
"""

import re
from pathlib import Path

import pytest

from midspan.train import Recipe, load_recipe
from midspan.train.lineage import load_lineage

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "code-llama"
BILLION = 1e9
STAGES = {
    "7b": {"code", "long-context", "python", "python-long-context", "instruct"},
    "13b": {"code", "long-context", "python", "python-long-context", "instruct"},
    "34b": {"code", "long-context", "python", "python-long-context", "instruct"},
    "70b": {"code", "long-context", "python", "instruct"},
}
"""Section 2.1: of the 70B models only the base was fine-tuned for long contexts."""
PARENTS = {
    "code": "llama-2",
    "long-context": "code",
    "python": "code",
    "python-long-context": "python",
    "instruct": "long-context",
}
"""Figure 2. Code Llama - Instruct 70B was trained from Code Llama - Python 70B (section 2.1)."""
CODE_TOKENS = {"7b": 500, "13b": 500, "34b": 500, "70b": 1000}
"""Billions of tokens of the code stage."""
CODE_LR = {"7b": 3e-4, "13b": 3e-4, "34b": 1.5e-4, "70b": 1.5e-4}
"""Section 2.6 for 13B, 34B and 70B: the Llama 2 rates are kept. That of 7B is in Llama 2's Table 1."""
INFILLS = {"7b", "13b", "70b"}
TABLE_1 = {
    "code": {"code": 0.85, "code-prose": 0.08, "prose": 0.07},
    "python": {"python": 0.75, "code": 0.10, "code-prose": 0.10, "prose": 0.05},
}
LONG_BATCH = {"7b": 2**21, "13b": 2**21, "34b": 2**20}
LONG_STEPS = {
    ("7b", "long-context"): 3_000,
    ("7b", "python-long-context"): 10_000,
    ("13b", "long-context"): 10_000,
    ("13b", "python-long-context"): 10_000,
    ("34b", "long-context"): 11_000,
    ("34b", "python-long-context"): 11_000,
}
ALL = [(size, stage) for size, stages in STAGES.items() for stage in sorted(stages)]


def of(size: str, stage: str) -> Recipe:
    return load_recipe(FOLDER / f"{size}-{stage}.toml")


def shares(recipe: Recipe) -> dict[str, float]:
    return {source.name: source.share for source in recipe.data.mixture}


def batch(recipe: Recipe) -> int:
    return recipe.train.rows_per_step * recipe.data.row_tokens


def test_there_is_a_recipe_for_every_model_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {f"{size}-{stage}" for size, stage in ALL}


@pytest.mark.parametrize(("size", "stage"), ALL)
def test_what_all_stages_share(size: str, stage: str) -> None:
    recipe = of(size, stage)
    parent = "python" if (size, stage) == ("70b", "instruct") else PARENTS[stage]
    assert recipe.name == f"code-llama-{size}-{stage}"
    assert recipe.base == (f"./llama-2-{size}" if parent == "llama-2" else f"runs/code-llama-{size}-{parent}")
    assert recipe.train.method == "full"
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.optimizer.final_ratio == pytest.approx(1 / 30)
    if not (size in INFILLS and stage in ("code", "long-context", "instruct")):
        assert recipe.fim.rate == 0
    else:
        assert recipe.fim.rate == (0.0 if (size, stage) == ("70b", "instruct") else 0.9)
        assert recipe.fim.spm_rate == 0.5
        assert dict(recipe.fim.spans) == {"uniform": 1.0}


@pytest.mark.parametrize("size", STAGES)
def test_the_code_stage(size: str) -> None:
    recipe = of(size, "code")
    assert recipe.data.row_tokens == 4096
    assert batch(recipe) == 4 * 2**20
    assert recipe.train.steps * batch(recipe) == pytest.approx(CODE_TOKENS[size] * BILLION, rel=1e-4)
    assert recipe.optimizer.lr == CODE_LR[size]
    assert recipe.optimizer.warmup_steps == 1000
    assert shares(recipe) == TABLE_1["code"]
    assert recipe.model.rope_theta is None


@pytest.mark.parametrize("size", STAGES)
def test_the_python_stage(size: str) -> None:
    recipe = of(size, "python")
    assert recipe.train.steps * batch(recipe) == pytest.approx(100 * BILLION, rel=1e-4)
    assert recipe.optimizer.lr == 1e-4
    assert shares(recipe) == TABLE_1["python"]


@pytest.mark.parametrize(("size", "stage"), [pair for pair in ALL if pair[1].endswith("long-context")])
def test_the_long_context_stages(size: str, stage: str) -> None:
    recipe = of(size, stage)
    assert recipe.data.row_tokens == recipe.model.max_positions == 16_384
    assert recipe.model.rope_theta == 1_000_000
    assert recipe.model.rope_scaling is None
    assert recipe.optimizer.lr == 2e-5
    if size != "70b":  # not stated
        assert batch(recipe) == LONG_BATCH[size]
        assert recipe.train.steps == LONG_STEPS[size, stage]


@pytest.mark.parametrize("size", STAGES)
def test_the_instruct_stage(size: str) -> None:
    recipe = of(size, "instruct")
    assert batch(recipe) == 524_288
    assert recipe.train.steps * batch(recipe) == pytest.approx(5 * BILLION, rel=1e-3)
    found = shares(recipe)
    assert (found["code"], found["prose"]) == (0.06, 0.02)
    conversations = [source.share for source in recipe.data.mixture if source.conversations]
    assert sum(conversations) == pytest.approx(0.92)
    assert recipe.model.chat == ("steps" if size == "70b" else "")


@pytest.mark.parametrize(("size", "stage"), ALL)
def test_every_number_says_whether_it_is_the_papers(size: str, stage: str) -> None:
    """Of the settings that decide what is learned, each one is marked, in its line or for its table."""
    text = (FOLDER / f"{size}-{stage}.toml").read_text()
    marked = re.compile(r"#.*\b(paper|our choice|our reading)\b", re.IGNORECASE)
    for key in (
        "rope_theta",
        "max_positions",
        "row_tokens",
        "rate",
        "steps",
        "lr",
        "warmup_steps",
        "weight_decay",
    ):
        for line in re.findall(rf"^{key} = .*$", text, re.MULTILINE):
            assert marked.search(line), line


def test_the_folder_is_a_lineage_of_four_families() -> None:
    stages = load_lineage(FOLDER)
    place = {stage.name: n for n, stage in enumerate(stages)}
    roots = [stage.name for stage in stages if stage.parent is None]
    assert sorted(roots) == sorted(f"code-llama-{size}-code" for size in STAGES)
    assert all(place[stage.parent] < place[stage.name] for stage in stages if stage.parent is not None)
