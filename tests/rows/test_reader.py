"""Rows are read back by number, with the tokens that are trained; a damaged folder is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.fim import FimFormat
from midspan.rows import FORMS, Row, Rows, RowsConfig, Source, compile_rows
from midspan.rows import reader as reader_module
from midspan.rows.segments import ANSWER, SEGMENT
from midspan.tokenizer import Tokenizer

NUM_ROWS = 40


@pytest.fixture(scope="module")
def folder(functions: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "rows"
    config = RowsConfig(row_tokens=512, window_documents=60)
    sources = [Source(corpus=functions, name=name, share=share) for name, share in (("a", 0.7), ("b", 0.3))]
    compile_rows(sources, tokenizer, config, NUM_ROWS, out)
    return out


def test_targets_of_a_row_by_hand() -> None:
    lines = [(5, 0, "plain", 1), (14, 3, "psm", 2), (15, 0, "cut", 3)]
    described = [(end, middle, FORMS.index(form), 0, document) for end, middle, form, document in lines]
    row = Row(np.arange(15), np.array(described, dtype=SEGMENT))
    assert row.bounds == (0, 5, 14, 15)
    assert row.targets.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    lines = [(9, 0, "chat", 1), (14, 3, "psm", 2), (20, 0, "chat", 3)]
    described = [(end, middle, FORMS.index(form), 0, document) for end, middle, form, document in lines]
    answers = np.array([(0, 3, 5), (0, 8, 9), (2, 18, 20)], dtype=ANSWER)
    row = Row(np.arange(20), np.array(described, dtype=SEGMENT), answers)
    assert row.targets.tolist() == [2, 3, 7, 9, 10, 11, 12, 17, 18]


def test_targets_are_every_token_that_follows_another_of_its_document(folder: Path, tokenizer: Tokenizer) -> None:
    rows, fim = Rows(folder), FimFormat.detect(tokenizer)
    assert fim is not None
    seen = set()
    for row in (rows[number] for number in range(NUM_ROWS)):
        every: list[int] = []
        for start, segment in zip(row.bounds, row.segments, strict=False):
            form, end = FORMS[segment["form"]], int(segment["end"])
            seen.add(form)
            every += range(start + 1, end)
            if form in ("psm", "spm"):
                assert row.ids[end - 1] == fim.eot_id, "the end of an infill is trained"
        assert (row.targets + 1).tolist() == every
    assert seen == set(FORMS) - {"chat"}


def test_any_row_at_any_time_is_the_same(folder: Path) -> None:
    """So a run that goes on at row n sees what it would have seen."""
    straight = [Rows(folder)[number] for number in range(NUM_ROWS)]
    rows = Rows(folder)
    assert len(rows) == NUM_ROWS
    for number in (*reversed(range(NUM_ROWS)), 7, 7):
        assert (rows[number].ids == straight[number].ids).all()
        assert (rows[number].segments == straight[number].segments).all()
        assert rows[number].ids.dtype == np.int64
    assert [row.bounds for row in rows] == [row.bounds for row in straight], "as a sequence it ends"
    for number in (NUM_ROWS, -1):
        with pytest.raises(IndexError):
            rows[number]


@pytest.mark.parametrize("open_shards", [1, 256])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_a_step_is_the_same_for_any_number_of_ranks(
    world: int, open_shards: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "OPEN_SHARDS", open_shards)
    straight = Rows(folder)
    for step in range(NUM_ROWS // 8):
        ranks = [Rows(folder).batch(step, 8, rank=rank, world=world) for rank in range(world)]
        assert {len(rows) for rows in ranks} == {8 // world}
        together = [row for rows in ranks for row in rows]
        for number, row in enumerate(together, start=8 * step):
            assert (row.ids == straight[number].ids).all()
            assert (row.segments == straight[number].segments).all()
    sources = {int(row.segments["source"][0]) for row in straight}
    assert sources == {0, 1}


def test_what_cannot_be_shared_or_is_not_there_is_refused(folder: Path) -> None:
    rows = Rows(folder)
    with pytest.raises(InputError, match=r"3 ranks cannot share the 8 rows of a step; give train\.rows_per_step"):
        rows.batch(0, 8, rank=0, world=3)
    assert len(rows.batch(NUM_ROWS // 8 - 1, 8)) == 8
    with pytest.raises(IndexError, match="rows 40 to 47 of 40"):
        rows.batch(NUM_ROWS // 8, 8)


def _changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: shutil.rmtree(f),
        lambda f: [path.unlink() for path in f.iterdir()],
        lambda f: (f / "rows.json").write_text("{"),
        lambda f: (f / "rows.json").write_bytes(b"\xff\x00"),
        lambda f: (f / "rows.json").write_text("[1, 2]"),
        lambda f: (f / "rows.json").write_text("{}"),
        lambda f: _changed(f / "rows.json", num_rows="forty"),
        lambda f: _changed(f / "rows.json", num_rows=39),
        lambda f: _changed(f / "rows.json", num_rows=41),
        lambda f: _changed(f / "rows.json", tokens_type="<x9"),
        lambda f: _changed(f / "rows.json", shards=[[[1, 2, 3]], []]),
        lambda f: _cut(f / "rows-0-00000.bin", 1),
        lambda f: (f / "rows-1-00000.bin").write_bytes(b""),
        lambda f: _cut(f / "rows-0-00000.idx", SEGMENT.itemsize),
        lambda f: (f / "rows-1-00000.idx").unlink(),
        lambda f: _cut(f / "order.bin", 1),
        lambda f: (f / "order.bin").write_bytes(b""),
        lambda f: (f / "order.bin").unlink(),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(damage, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows"
    shutil.copytree(folder, copy)
    Rows(copy)
    damage(copy)
    with pytest.raises(InputError, match=r"holds no whole compiled rows \(.*\); remove it and train again"):
        Rows(copy)


def test_a_row_whose_bytes_have_changed_is_refused_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows"
    shutil.copytree(folder, copy)
    path = copy / "rows-0-00000.bin"
    content = bytearray(path.read_bytes())
    content[1] ^= 4  # within the first row of the first source
    path.write_bytes(content)
    rows, whole = Rows(copy), Rows(folder)
    said = []
    for number in range(len(rows)):
        try:
            assert np.array_equal(rows[number].ids, whole[number].ids)
        except InputError as error:
            said.append((number, str(error)))
    [(number, sentence)] = said
    assert f"row {number} in {path} is damaged; remove {copy} and go on with --resume" in sentence
    with pytest.raises(InputError, match="is damaged"):
        rows.batch(0, NUM_ROWS)
