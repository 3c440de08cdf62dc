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
        (root / f"package{index}" / "a.py").write_text(f"x = {index}\n")
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
    assert found["parameters"] == {
        "languages": ["c", "python"],
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


def test_a_mistake_is_an_input_error(source, tmp_path):
    failed = run(app, ["show", str(tmp_path / "absent")])
    assert isinstance(failed.exception, InputError)


@pytest.mark.parametrize("command", ["build", "show"])
def test_help_holds_an_example(command):
    assert f"midspan corpus {command} " in run(app, [command, "--help"]).stdout
