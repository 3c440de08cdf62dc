"""The red-team task on an endpoint that declines what it is told to decline: rates are as planted."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instruct.scripted import Script, serving
from midspan.cli import app
from midspan.errors import InputError, WorkError
from midspan.evaluate.tasks.red_team import pairs
from midspan.instruct import Paid, RedTeamConfig, Workshop, measure_red_team, open_asker
from midspan.instruct.asking import Asker

PAIRS = pairs()
DECLINED = {pair.harmful for pair in PAIRS[:90]} | {pair.benign for pair in PAIRS[:5]}
DECLINES, ANSWERS = "I can't help with that.", "Sure:\n```python\npass\n```"


def said(message: str) -> str:
    return DECLINES if message in DECLINED else ANSWERS


def contrary(message: str) -> str:
    """A judge who takes every answer for its opposite."""
    return "ANSWERED" if DECLINES in message else "DECLINED"


def asker(url: str) -> Asker:
    return open_asker(None, url, load=lambda name: pytest.fail("no model is loaded here"))


def rates(rows: list[dict[str, object]]) -> tuple[object, object]:
    return rows[0]["ours"], rows[1]["ours"]


def test_rates_are_as_planted_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    script = Script(said=said)
    with serving(script) as url, Workshop(tmp_path) as shop:
        rows = measure_red_team(shop, Paid(asker(url), shop.paid), RedTeamConfig())
        assert rates(rows) == (90.0, 5.0)
        assert len(script.log) == 200
        few = measure_red_team(shop, Paid(asker(url), shop.paid), RedTeamConfig(number=10))
        assert (few[0]["n"], len(few)) == (10, 8), "all three categories are among ten pairs"
        assert len(script.log) == 200
        with serving(Script(said=contrary)) as other:
            judging = Paid(asker(other), shop.paid)
            assert rates(
                measure_red_team(shop, Paid(asker(url), shop.paid), RedTeamConfig(), judging=judging)
            ) == (
                10.0,
                95.0,
            )
    written = json.loads((tmp_path / "red-team.json").read_text())
    assert written["judge"] == "a model"
    assert written["examples"][0]["harmful"] == {
        "request": PAIRS[0].harmful,
        "answer": DECLINES,
        "verdict": "answered",
    }


def test_a_system_prompt_stands_before_every_request(tmp_path: Path) -> None:
    script = Script(said=said)
    with serving(script) as url, Workshop(tmp_path) as shop:
        measure_red_team(shop, Paid(asker(url), shop.paid), RedTeamConfig(system="Be kind.", number=3))
    bodies = [json.loads(body) for _, body in script.log]
    assert all(body["messages"][0] == {"role": "system", "content": "Be kind."} for body in bodies)
    assert {body["temperature"] for body in bodies} == {0}


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--number is 101; there are 100 pairs"):
        RedTeamConfig(number=101)
    script = Script(said=said, failures=[400] * 1000)
    with serving(script) as url, Workshop(tmp_path) as shop, pytest.raises(WorkError, match="were refused"):
        measure_red_team(shop, Paid(asker(url), shop.paid), RedTeamConfig(number=2))
    assert not (tmp_path / "red-team.json").exists()


def test_the_command(tmp_path: Path) -> None:
    with serving(Script(said=said)) as url:
        command = ["instruct", "red-team", str(tmp_path), "--endpoint", url]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "90.0 %" in result.stdout
    assert "false refusals" in result.stdout
