"""Rows are read back by number, with the targets that a recipe's `loss_on` names; a damaged folder is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.fim import FimFormat
from midspan.rows import FORMS, Row, Rows, RowsConfig, compile_rows
from midspan.rows.compile import SEGMENT
from midspan.tokenizer import Tokenizer

NUM_ROWS = 40


@pytest.fixture(scope="module")
def folder(functions: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "rows"
    compile_rows(functions, tokenizer, RowsConfig(row_tokens=512, window_documents=60), NUM_ROWS, out)
    return out


def test_targets_of_a_row_by_hand() -> None:
    described = [(5, 0, FORMS.index("plain"), 1), (14, 3, FORMS.index("psm"), 2), (15, 0, FORMS.index("cut"), 3)]
    row = Row(np.arange(15), np.array(described, dtype=SEGMENT))
    assert row.bounds == (0, 5, 14, 15)
    assert row.targets("all").tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    assert row.targets("middle").tolist() == [0, 1, 2, 3, 10, 11, 12], "the last three of the second segment"


def test_targets_are_the_tokens_that_have_to_be_written(folder: Path, tokenizer: Tokenizer) -> None:
    rows, fim = Rows(folder), FimFormat.detect(tokenizer)
    assert fim is not None
    seen = set()
    for row in (rows[number] for number in range(NUM_ROWS)):
        every, middle, spm = [], [], []
        for start, segment in zip(row.bounds, row.segments, strict=False):
            form, end = FORMS[segment["form"]], int(segment["end"])
            seen.add(form)
            every += range(start + 1, end)
            if form == "psm":
                after_mid = start + row.ids[start:end].tolist().index(fim.middle_id) + 1
                middle += range(after_mid, end)
            elif form == "spm":
                spm.append((start + row.ids[start:end].tolist().index(fim.middle_id), end))
            else:
                middle += range(start + 1, end)
        assert (row.targets("all") + 1).tolist() == every
        chosen = (row.targets("middle") + 1).tolist()
        assert sorted(chosen) == chosen
        of_spm = sorted(set(chosen) - set(middle))
        assert set(middle) <= set(chosen)
        for mid, end in spm:
            mine = [place for place in of_spm if mid < place < end]
            assert mine == list(range(mine[0], end)), "a tail of prefix and middle, with EOT"
            assert row.ids[mine[-1]] == fim.eot_id
            of_spm = [place for place in of_spm if place not in mine]
        assert of_spm == []
    assert seen == set(FORMS)


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


def _changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


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
        lambda f: (f / "tokens.bin").write_bytes((f / "tokens.bin").read_bytes()[:-1]),
        lambda f: (f / "tokens.bin").write_bytes(b""),
        lambda f: (f / "segments.bin").write_bytes((f / "segments.bin").read_bytes()[:-1]),
        lambda f: (f / "segments.bin").write_bytes((f / "segments.bin").read_bytes()[: -SEGMENT.itemsize]),
        lambda f: (f / "segments.bin").unlink(),
        lambda f: (f / "bounds.npy").write_bytes(b""),
        lambda f: (f / "bounds.npy").write_bytes((f / "bounds.npy").read_bytes()[:-8]),
        lambda f: np.save(f / "bounds.npy", np.arange(3)),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(damage, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows"
    shutil.copytree(folder, copy)
    Rows(copy)
    damage(copy)
    with pytest.raises(InputError, match=r"holds no whole compiled rows \(.*\); remove it and train again"):
        Rows(copy)
