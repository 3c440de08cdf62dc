"""The card says what the run's own files say, and Hugging Face's reader takes it."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from midspan.corpus import HELD_OUT, TRAIN, Corpus
from midspan.errors import InputError
from midspan.evaluate import Evaluation, write_card


def test_a_card_of_a_run(run_folder: Path, corpus_folder: Path) -> None:
    results = Evaluation.of(str(run_folder), settings={"per_kind": 4, "window": 128}).run()
    [path] = write_card(run_folder, name="ours", licence="Apache-2.0", notes="Made for | tests.")
    assert path == run_folder / "model" / "README.md"
    card = ModelCard.load(path)
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.base_model == json.loads((run_folder / "recipe.json").read_text())["base"]
    text = card.text
    manifest = Corpus.open(corpus_folder).manifest
    assert manifest.fingerprint in text
    assert f"{manifest.files:,} files found, {manifest.kept[TRAIN] + manifest.kept[HELD_OUT]:,} kept" in text
    assert "| 1,536 | 5.00 to 1.67 | 0.1 |" in text  # tokens, loss and minutes of the three steps
    for row in results["rows"]:
        shown = f"heldout {row['group']} {row['metric']}, {row['unit']}"
        whole = row["group"].split()[-1] not in ("line", "lines", "span")
        assert (shown in text) == whole, shown
    assert "Made for | tests." in text
    metrics = (run_folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_folder / "metrics.jsonl").write_text("".join(metrics[:-1]))
    assert "| 2 of 3 steps of" in write_card(run_folder, out=path.with_name("card.md"))[0].read_text()
    assert "Not measured: red-team, truthfulqa, toxigen, bold." in text


def test_what_a_card_is_not_made_of(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        write_card(tmp_path)
    with pytest.raises(InputError, match=r"has no results\.json"):
        write_card(run_folder, results=[run_folder])
    for file in (run_folder / "model").iterdir():
        file.unlink()
    (run_folder / "model").rmdir()
    with pytest.raises(InputError, match="has no weights yet"):
        write_card(run_folder)
    assert "Nothing was measured." in write_card(run_folder, out=tmp_path / "card.md")[0].read_text()


def test_a_corpus_that_is_gone_is_said_to_be(run_folder: Path, tmp_path: Path) -> None:
    recipe = json.loads((run_folder / "recipe.json").read_text())
    recipe["data"]["corpus"] = str(tmp_path / "gone")
    (run_folder / "recipe.json").write_text(json.dumps(recipe))
    [path] = write_card(run_folder, out=tmp_path / "card.md")
    assert f"**{tmp_path / 'gone'}**: not at hand" in path.read_text()
