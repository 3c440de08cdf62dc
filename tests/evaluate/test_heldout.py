"""Holes are a function of the corpus and the seed, give the file back, and are scored as the model scores them."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midspan import corpus
from midspan.corpus import Corpus, Document
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.evaluate.ask import Asking
from midspan.evaluate.data import Data
from midspan.evaluate.measure import asked_of
from midspan.evaluate.metrics import edit_similarity
from midspan.evaluate.task import Answer, Decoding, Evidence, Hole, Question, Reading, Scores
from midspan.evaluate.tasks import heldout
from midspan.evaluate.tasks.heldout import HeldOut, HeldOutConfig, passage_of, passages
from midspan.fim import Split, infill_example
from midspan.tokenizer import Tokenizer

CONFIG = HeldOutConfig(per_kind=6, max_tokens=160)


def document(text: str, path: str = "p.py") -> Document:
    return Document(source="s", group="g", path=path, text=text, language="python")


def text_of(lines: int, seed: int) -> str:
    return "".join(
        "\n" if (i * 7 + seed) % 5 == 0 else f"{'    ' * (i % 3)}name_{i} = {'é' * (i % 4)!r} + {i * seed}\n"
        for i in range(lines)
    )


def test_holes_give_the_document_back(held_out: Corpus, tokenizer: Tokenizer) -> None:
    found = passages(held_out, tokenizer, CONFIG)
    assert len(found) == 6
    for passage in found:
        assert passage.document.group in ("alpha", "beta")
        whole = passage.document.text
        assert whole[passage.offset : passage.offset + len(passage.text)] == passage.text
        assert len(tokenizer.encode(passage.text)) <= CONFIG.max_tokens
        assert set(passage.holes) == set(heldout.KINDS)
        for kind in heldout.KINDS:
            part = passage.split(kind)
            assert part.prefix + part.middle + part.suffix == passage.text
            assert part.middle


@pytest.mark.parametrize("seed", range(40))
def test_kinds_are_what_they_say(tokenizer: Tokenizer, seed: int) -> None:
    text = text_of(20 + 3 * seed, seed + 1)
    passage = passage_of(document(text), tokenizer, replace(CONFIG, seed=seed), 0)
    assert passage is not None
    for kind in ("line", "lines"):
        part = passage.split(kind)  # type: ignore[arg-type]
        assert re.fullmatch(r"[ \t]*", part.prefix.rpartition("\n")[2])  # only indentation before it
        assert part.suffix.startswith("\n") or not part.suffix  # up to the line's end
        lines = part.middle.split("\n")
        assert (1 if kind == "line" else 2) <= len(lines) <= (1 if kind == "line" else 5)
        assert lines[0].strip()
        assert lines[-1].strip()
        assert not lines[0][0].isspace()
    assert len("".join(passage.split("line").middle.split())) >= 3
    assert 1 <= len(passage.split("span").middle) <= 60


@pytest.mark.parametrize("text", ["", "\n\n", "x = 1\n", "\n \n)\n]\n", "a\nb\nc\n"])
def test_a_text_without_a_place_gives_none(tokenizer: Tokenizer, text: str) -> None:
    assert passage_of(document(text), tokenizer, CONFIG, 0) is None


@pytest.mark.parametrize("seed", range(8))
def test_a_window_is_whole_lines_that_fit(tokenizer: Tokenizer, seed: int) -> None:
    text = text_of(400, 3)
    passage = passage_of(document(text), tokenizer, replace(CONFIG, seed=seed), 0)
    assert passage is not None
    assert passage.offset == 0 or text[passage.offset - 1] == "\n"
    end = passage.offset + len(passage.text)
    assert end == len(text) or text[end - 1] == "\n"
    assert 100 <= len(tokenizer.encode(passage.text)) <= CONFIG.max_tokens - 16  # nearly full
    assert len({passage_of(document(text), tokenizer, replace(CONFIG, seed=s), 0).offset for s in range(8)}) > 4  # type: ignore[union-attr]


def test_a_line_longer_than_the_window_gives_none(tokenizer: Tokenizer) -> None:
    assert passage_of(document("x = '" + "abc " * 4000 + "'\n"), tokenizer, CONFIG, 0) is None


def test_holes_depend_on_the_document_alone(held_out: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Neither a larger task nor a corpus with other files moves a hole; another seed does."""
    few, many = passages(held_out, tokenizer, replace(CONFIG, per_kind=3)), passages(held_out, tokenizer, CONFIG)
    assert few == many[:3] == passages(held_out, tokenizer, replace(CONFIG, per_kind=3))
    assert [p.holes for p in passages(held_out, tokenizer, replace(CONFIG, seed=1))] != [p.holes for p in many]
    for passage in few:
        assert passage == passage_of(passage.document, tokenizer, CONFIG, 0)


def test_groups_are_taken_in_turn(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for group, number in (("big", 30), ("mid", 5), ("one", 1), ("train", 1)):
        for i in range(number):
            path = tmp_path / "source" / group / f"{i}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"group = {group!r}\n" + text_of(12, 1000 * number + i))
    corpus.build(
        [str(tmp_path / "source")],
        tmp_path / "corpus",
        corpus.CorpusConfig(held_out=("big", "mid", "one"), quality=False, near_duplicates=False),
    )
    found = passages(Corpus.open(tmp_path / "corpus"), tokenizer, replace(CONFIG, per_kind=9))
    assert Counter(p.document.group for p in found) == {"big": 4, "mid": 4, "one": 1}
    assert len({p.document.id for p in found}) == 9
    assert {p.document.group for p in found[:3]} == {"big", "mid", "one"}


def test_few_files_are_asked_again_elsewhere(held_out: Corpus, tokenizer: Tokenizer) -> None:
    """More passages than files: other holes of the same files, none twice."""
    found = passages(held_out, tokenizer, replace(CONFIG, per_kind=14))
    assert len(found) > len({p.document.id for p in found})
    places = [place for p in found for place in p.places]
    assert len(places) == len(set(places))


def test_short_files_asked_again_give_questions_of_other_names(engine: Engine, tmp_path: Path) -> None:
    """A file that is a passage whole is one again in the next round, with other holes; it is read once."""
    for i in range(2):
        path = tmp_path / "source" / ("held", "train")[i] / "x.py"
        path.parent.mkdir(parents=True)
        path.write_text(text_of(10, i))
    settings = corpus.CorpusConfig(held_out=("held",), quality=False, near_duplicates=False)
    corpus.build([str(tmp_path / "source")], tmp_path / "corpus", settings)
    task = HeldOut(data=Data(None), corpus=tmp_path / "corpus", per_kind=4, window=400)
    questions = task.questions(engine)
    assert len({question.id for question in questions}) == len(questions)
    assert len(questions) >= 2 * 6 + 1, "asked once only"
    assert sum(isinstance(question.prompt, Reading) for question in questions) == 1


def test_a_corpus_without_held_out_files_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "x.py").write_text(text_of(10, 1))
    corpus.build([str(tmp_path / "source")], tmp_path / "corpus", corpus.CorpusConfig(quality=False))
    with pytest.raises(InputError, match="no held-out file to evaluate on; build it with --held-out"):
        passages(Corpus.open(tmp_path / "corpus"), tokenizer, CONFIG)


def measured(engine: Engine, corpus_folder: Path) -> list[tuple[Question, Answer, Scores]]:
    """Two passages of the task, asked and scored."""
    task = HeldOut(data=Data(None), corpus=corpus_folder, per_kind=2, window=CONFIG.max_tokens)
    questions = {question.id: question for question in task.questions(engine)}
    answers = Asking(engine, asked_of([*questions.values()], Decoding()), Decoding())
    pairs = sorted(((questions[answer.question], answer) for answer in answers), key=lambda both: both[0].id)
    return [(question, answer, task.score(question, answer, Evidence())) for question, answer in pairs]


def test_scores_are_the_models_own(engine: Engine, corpus_folder: Path) -> None:
    """Losses by one plain pass each, texts by single greedy runs, for every hole in every layout."""
    holes = [each for each in measured(engine, corpus_folder) if isinstance(each[0].prompt, Hole)]
    assert len(holes) == 12
    assert engine.fim is not None
    for question, answer, scores in holes:
        hole, row = question.prompt, question.row
        assert isinstance(hole, Hole)
        assert question.groups == (f"{row['layout']} all", f"{row['layout']} {row['kind']}")
        part = Split(hole.prefix, row["truth"], hole.suffix)
        example = infill_example(engine.tokenizer, engine.fim, part, hole.layout)
        ids = torch.tensor(example.ids)
        with torch.no_grad():
            nats = -engine.model(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        assert ids[-1] == engine.fim.eot_id
        middle = ids[-example.num_middle : -1].tolist()
        assert engine.tokenizer.decode(middle).endswith(part.middle)
        assert len(engine.tokenizer.decode(middle[1:]).encode()) < len(part.middle.encode())  # none too many
        inside, end = float(nats[-example.num_middle : -1].sum()), float(nats[-1])
        assert answer.nats == pytest.approx([inside, end], rel=1e-4)
        budget = min(max(16, 2 * len(middle)), 96)
        assert question.max_tokens == budget
        alone = engine.infill(part.prefix, part.suffix, layout=hole.layout, max_tokens=budget)
        assert (answer.text, answer.reason) == (alone.text, alone.reason)
        line = {"exact_line": float(alone.text.split("\n")[0] == part.middle)} if row["kind"] == "line" else {}
        assert scores == line | {
            "exact": float(alone.text == part.middle),
            "similarity": edit_similarity(alone.text, part.middle),
            "bits": pytest.approx(inside / math.log(2), rel=1e-4),
            "end_bits": pytest.approx(end / math.log(2), rel=1e-4),
            "all_bits": pytest.approx((inside + end) / math.log(2), rel=1e-4),
            "bytes": len(part.middle.encode()),
            "ended": float(alone.finish_reason == "stop"),
        }


def test_reading_counts_every_byte_but_the_first_token(
    engine: Engine, held_out: Corpus, corpus_folder: Path
) -> None:
    texts = [passage.text for passage in passages(held_out, engine.tokenizer, replace(CONFIG, per_kind=2))]
    readings = [each for each in measured(engine, corpus_folder) if isinstance(each[0].prompt, Reading)]
    assert len(readings) == 2
    for question, _, scores in readings:
        assert isinstance(question.prompt, Reading)
        ids = torch.tensor(question.prompt.ids)
        text = engine.tokenizer.decode(question.prompt.ids)
        assert text in texts
        with torch.no_grad():
            nats = -engine.model(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None]).sum()
        assert scores["bits"] == pytest.approx(float(nats) / math.log(2), rel=1e-4)
        first = len(engine.tokenizer.piece_bytes(int(ids[0])))
        assert scores["bytes"] == len(text.encode()) - first


@pytest.mark.parametrize("values", [{"per_kind": 0}, {"max_tokens": 63}])
def test_bad_settings_are_refused(values: dict[str, int]) -> None:
    (name,) = values
    with pytest.raises(InputError, match=name):
        HeldOutConfig(**values)  # type: ignore[arg-type]
