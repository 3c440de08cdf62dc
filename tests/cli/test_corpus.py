"""`midspan corpus`: options reach the build, results reach stdout, and the two forms agree."""

import json

import pytest
from typer.testing import CliRunner

from midspan.cli.corpus import app
from midspan.corpus import Corpus
from midspan.errors import InputError

run = CliRunner().invoke


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "[packages]"  # not markup
    for index in range(9):
        (root / f"package{index}").mkdir(parents=True)
        (root / f"package{index}" / "a.py").write_text(f"value = {index}\n")
    (root / "package0" / "readme.md").write_text("words\n")
    return root


def test_build_and_show_as_json(source, tmp_path):
    out = tmp_path / "corpus"
    options = [
        "--held-out",
        "package1,package2",
        "--held-out",
        "package3",
        "--languages",
        "python,c",
        "--max-bytes",
        "99",
    ]
    built = run(app, ["build", str(source), "--out", str(out), *options, "--seed", "5", "--json"])
    assert built.exit_code == 0
    found = json.loads(built.stdout)
    config = found["parameters"]["config"]
    assert {name: config[name] for name in ("languages", "held_out", "held_out_share", "seed", "max_bytes")} == {
        "languages": ["python", "c"],
        "held_out": ["package1", "package2", "package3"],
        "held_out_share": 0.0,
        "seed": 5,
        "max_bytes": 99,
    }
    assert found["kept"] == {"train": 6, "held_out": 3}
    assert found["dropped"] == {"language not asked for": 1}
    shown = run(app, ["show", str(out), "--json"])
    assert json.loads(shown.stdout) == found
    assert Corpus.open(out).fingerprint == found["fingerprint"]


def test_the_human_form_names_every_count(source, tmp_path):
    out = tmp_path / "corpus"
    built = run(app, ["build", str(source), "--out", str(out), "--held-out", "package4", "--languages", "python"])
    assert built.exit_code == 0
    assert built.stdout == run(app, ["show", str(out)]).stdout
    for part in (
        "10 files found, 9 kept",
        "language not asked for",
        "source [packages]",
        "held out: package4",
    ):
        assert part in built.stdout


def test_more_held_out_than_left_is_said(source, tmp_path):
    names = ["--held-out", ",".join(f"package{n}" for n in range(1, 8)), "--languages", "python"]
    built = run(app, ["build", str(source), "--out", str(tmp_path / "most"), *names])
    assert "% of the text is held out: groups are the folders directly under a source" in built.stdout
    built = run(app, ["build", str(source), "--out", str(tmp_path / "few"), "--held-out", "package4"])
    assert "of the text is held out" not in built.stdout


def test_a_mistake_is_an_input_error(source, tmp_path):
    failed = run(app, ["show", str(tmp_path / "absent")])
    assert isinstance(failed.exception, InputError)


@pytest.mark.parametrize("command", ["build", "show", "remove"])
def test_help_holds_an_example(command):
    assert f"midspan corpus {command} " in run(app, [command, "--help"]).stdout


def test_settings_from_a_file_and_options_that_win_over_it(source, tmp_path):
    settings = tmp_path / "corpus.toml"
    settings.write_text('languages = ["python"]\nseed = 3\n[thresholds.".py"]\nmax_line_length = 8\n')
    out = tmp_path / "corpus"
    failed = run(app, ["build", str(source), "--out", str(out), "--config", str(settings), "--seed", "4"])
    assert "9 longest line too long" in str(failed.exception)
    settings.write_text('langages = ["python"]\n')
    failed = run(app, ["build", str(source), "--out", str(out), "--config", str(settings)])
    assert str(failed.exception) == "no corpus setting is called 'langages'; did you mean 'languages'?"
    settings.write_text("languages = 3\n")
    failed = run(app, ["build", str(source), "--out", str(out), "--config", str(settings)])
    assert "the corpus setting languages is 3" in str(failed.exception)
    settings.write_text("languages =")
    failed = run(app, ["build", str(source), "--out", str(out), "--config", str(settings)])
    assert "is no TOML" in str(failed.exception)


def test_a_page_and_a_removal(source, tmp_path):
    out = tmp_path / "corpus"
    assert run(app, ["build", str(source), "--out", str(out)]).exit_code == 0
    page = tmp_path / "card.html"
    assert run(app, ["show", str(out), "--html", str(page)]).exit_code == 0
    assert "<h2>Languages</h2>" in page.read_text()
    removed = run(app, ["remove", str(out), "--repo", "package1,package2", "--json"])
    assert json.loads(removed.stdout)["removed"] == ["package1", "package2"]
    assert json.loads(removed.stdout)["kept"] == {"train": 8, "held_out": 0}
