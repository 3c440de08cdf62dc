"""Constrained texts are what they must be, whatever a random model would rather write."""

import json
import re

import jsonschema
import pytest

from engine.tiny import TEXT, tiny_model
from midspan.engine import Engine, SampleConfig
from midspan.engine.constrain import Choice, Grammar
from midspan.errors import InputError
from vocabularies import small_vocabulary

TOKENIZER = small_vocabulary(["<PRE>", "<SUF>", "<MID>", "<EOT>"], bos="<s>", eos="</s>")
ENGINE = Engine(tiny_model(TOKENIZER.vocab_size), TOKENIZER)
WILD = [SampleConfig(temperature=t, seed=s) for t, s in ((0.0, 0), (1.0, 1), (2.0, 2), (2.0, 3))]


@pytest.mark.parametrize("sample", WILD)
def test_a_choice_is_one_of_the_options(sample: SampleConfig) -> None:
    options = ["int", "integer", "str", "dict[str, int]", "é日"]
    found = ENGINE.complete(
        TEXT, max_tokens=30, sample=sample, constraint=Choice(options, ENGINE.healer, TOKENIZER)
    )
    assert found.text in options
    assert found.finish_reason == "stop"


def test_every_option_can_be_chosen() -> None:
    options = ["a", "ab", "abc", "b"]
    seen = set()
    for seed in range(60):
        sample = SampleConfig(temperature=3.0, seed=seed)
        constraint = Choice(options, ENGINE.healer, TOKENIZER)
        seen.add(ENGINE.complete(TEXT, max_tokens=9, sample=sample, constraint=constraint).text)
    assert seen == set(options)


@pytest.mark.parametrize("sample", WILD)
@pytest.mark.parametrize("pattern", [r"[0-9]{3}-[a-f]{2}", r"(foo|ba[rz])+x?", r" list\[(int|str)\]", "é{2}"])
def test_a_regular_expression_matches(sample: SampleConfig, pattern: str) -> None:
    pytest.importorskip("llguidance")
    constraint = Grammar(TOKENIZER, regex=pattern)
    found = ENGINE.complete(TEXT, max_tokens=60, sample=sample, constraint=constraint)
    if found.finish_reason == "stop":
        assert re.fullmatch(pattern, found.text)
    else:
        assert "+" in pattern, "only an endless pattern may fill the budget"


@pytest.mark.parametrize("sample", WILD)
def test_json_follows_its_schema(sample: SampleConfig) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["bug", "feature"]},
            "points": {"type": "integer", "minimum": 1, "maximum": 5},
        },
        "required": ["kind", "points"],
        "additionalProperties": False,
    }
    found = ENGINE.complete(TEXT, max_tokens=150, sample=sample, constraint=Grammar(TOKENIZER, schema=schema))
    if found.finish_reason == "stop":
        jsonschema.validate(json.loads(found.text), schema)
    else:
        assert found.text.startswith("{"), "blanks without end are JSON as well"


def test_bad_constraints_are_refused() -> None:
    with pytest.raises(InputError, match="at least one option"):
        Choice([], ENGINE.healer, TOKENIZER)
    pytest.importorskip("llguidance")
    with pytest.raises(InputError, match="grammar cannot be used"):
        Grammar(TOKENIZER, regex="(")
    with pytest.raises(InputError, match="either a regular expression or a JSON schema"):
        Grammar(TOKENIZER)
