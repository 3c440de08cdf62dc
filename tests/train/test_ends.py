"""What decoding adds to the end of middles: fitted to what decoding does, beside the model, not in weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from midspan.corpus import Corpus
from midspan.engine import Engine
from midspan.fim import FimFormat
from midspan.fim.format import LAYOUTS
from midspan.rows import Source
from midspan.tokenizer import Tokenizer
from midspan.train import ends as module
from midspan.train import load_recipe, prepare_base, train
from midspan.train.ends import end_bias, fit
from midspan.train.objective import Objective


def test_the_bias_is_one_that_ends_most_middles_in_their_place_and_not_before() -> None:
    """An end that lacks 2 nats where the nearest place inside lacks 5, as in the module's picture."""
    hole = np.array([5.0, 7.0, 9.0, 6.0, 2.0])
    assert 2 < fit([hole] * 5) <= 5
    assert 2 < fit([hole] * 5 + [np.array([0.5, 3.0])] * 3) <= 5
    assert fit([np.array([3.0, -1.0])] * 5) == 0
    assert fit([np.array([1.0])] * 5) > 1
    assert -2 < fit([np.array([-1.0, -2.0])] * 5) <= -1


def test_one_hole_of_many_is_no_reason() -> None:
    """Where nothing added does as well but for a twentieth of the holes, nothing is added."""
    assert fit([np.array([9.0, -1.0])] * 20 + [np.array([9.0, 1.0])]) == 0
    assert fit([np.array([9.0, -1.0])] * 20 + [np.array([9.0, 1.0])] * 3) > 1


def test_it_is_what_greedy_decoding_needs(
    tiny_base: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holes that a bias should end are those whose true middle the engine then ends, token by token."""
    monkeypatch.setattr(module, "CHARACTERS", 60)
    monkeypatch.setattr(module, "HOLES", 10)
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(module, "fit", lambda lacking: seen.append(list(lacking)) or 1.5)
    model, tokenizer = prepare_base(str(tiny_base), torch.float32)
    source = Source(corpus=Corpus.open(tiny_corpus), name="tiny", share=1.0)
    assert end_bias(Objective(model), tokenizer, [source]) == {"psm": 1.5, "spm": 1.5}
    assert len(seen) == 2

    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    pieces = module._pieces(Corpus.open(tiny_corpus), tokenizer)
    holes = list(module.holes_of([pieces], tokenizer, 10, module.ROW_TOKENS, spans=module.MIDDLES))
    for layout, lacking in zip(("psm", "spm"), seen, strict=True):
        own = [hole for hole in holes if hole.group == layout]
        assert len(own) == len(lacking) > 3
        for hole, lacks_n in zip(own, lacking, strict=True):
            logits_lv = model(torch.tensor(hole.ids)[None])[0, -hole.scored - 1 : -1].detach()
            for logits_v, lack in zip(logits_lv, lacks_n, strict=True):
                if abs(lack - 1.5) < 1e-3:
                    continue
                biased_v = logits_v + 1.5 * (torch.arange(len(logits_v)) == fim.eot_id)
                assert (int(biased_v.argmax()) == fim.eot_id) == (lack < 1.5)


def test_decoding_adds_it_in_its_layout_alone(tiny_base: Path) -> None:
    """So much that every middle in SPM is empty, and none in PSM another; a request may say otherwise."""
    model, tokenizer = prepare_base(str(tiny_base), torch.float32)
    plain, ended = Engine(model, tokenizer), Engine(model, tokenizer.with_end_bias({"spm": 100.0}))
    assert ended.fim is not None
    for layout in LAYOUTS:
        before = plain.infill("def f(x):\n    return ", "\n", layout=layout, max_tokens=8)
        after = ended.infill("def f(x):\n    return ", "\n", layout=layout, max_tokens=8)
        assert (after.text, after.reason) == (("", "eot") if layout == "spm" else (before.text, before.reason))
    request = ended.infilling("a", "b", layout="spm", max_tokens=8)
    forbidding = replace(request.sample, logit_bias={ended.fim.eot_id: -100.0})
    assert ended.infill("a = ", "b", layout="spm", max_tokens=8, sample=forbidding).ids
    assert not ended.completing("a", max_tokens=8).sample.logit_bias


def test_a_stage_that_infills_fits_it_anew_and_one_that_does_not_hands_it_on(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies beside the vocabulary of the model and of the adapter."""
    quiet, first = Console(quiet=True), load_recipe(tiny_recipe)
    first = replace(first, train=replace(first.train, steps=2))
    monkeypatch.setattr(module, "fit", lambda lacking: 1.5)
    train(first, tmp_path / "first", console=quiet)
    for folder in (tmp_path / "first" / "model", tmp_path / "first" / "adapter"):
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["fim_end_bias"] == Tokenizer.load(folder).end_bias == {"psm": 1.5, "spm": 1.5}
    second = replace(first, base=str(tmp_path / "first" / "model"))
    monkeypatch.setattr(module, "fit", lambda lacking: 0.0)
    train(replace(second, fim=replace(first.fim, rate=0.0)), tmp_path / "plain", console=quiet)
    assert Tokenizer.load(tmp_path / "plain" / "model").end_bias == {"psm": 1.5, "spm": 1.5}
    train(second, tmp_path / "second", console=quiet)
    assert Tokenizer.load(tmp_path / "second" / "model").end_bias == {}
