"""What lies on disk: one row a file, bounded row groups, and a sentence for every kind of damage."""

import json

import pyarrow.parquet as pq
import pytest

from midspan.corpus import Corpus, CorpusConfig, build
from midspan.corpus import store as store_module
from midspan.errors import InputError


@pytest.fixture
def sources(tree):
    files = {f"package{index % 7}/file{index}.py": f"value_{index} = {index}\n" * 9 for index in range(100)}
    return tree("packages", files | {"package0/blob.py": b"\0", "package1/copy.py": "value_8 = 8\n" * 9})


@pytest.fixture
def folder(sources, tmp_path):
    build([str(sources)], tmp_path / "corpus", CorpusConfig(held_out=("package3",)))
    return tmp_path / "corpus"


def test_every_column_of_every_row(folder):
    rows = [row for path in (folder / "files").iterdir() for row in pq.read_table(path).to_pylist()]
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows) == 102
    text = "value_3 = 3\n" * 9
    assert by_path["package3/file3.py"] == {
        "id": next(document.id for document in Corpus.open(folder).documents("held_out") if document.text == text),
        "source": "packages",
        "group": "package3",
        "path": "package3/file3.py",
        "commit": None,
        "language": "python",
        "encoding": "utf-8",
        "bytes": len(text),
        "lines": 9,
        "split": "held_out",
        "decision": "kept",
        "reason": None,
        "detail": None,
        "licences": [],
        "secrets": 0,
        "emails": 0,
        "ips": 0,
        "contamination": None,
        "cluster": None,
        "duplicate_of": None,
        "similarity": None,
        "text": text,
    }
    blob, copy = by_path["package0/blob.py"], by_path["package1/copy.py"]
    assert [blob[name] for name in ("id", "bytes", "lines", "decision", "reason", "text")] == [
        *(None, 1, None),
        *("dropped", "binary", None),
    ]
    # package1/copy.py < package1/file8.py: the first in order stands
    assert copy["decision"] == "kept"
    assert by_path["package1/file8.py"]["duplicate_of"] == "packages/package1/copy.py"
    assert by_path["package1/file8.py"]["text"] is None


def test_documents_come_back_with_their_ids_in_a_stable_order(folder, sources):
    corpus = Corpus.open(folder)
    for split, groups in (("train", {0, 1, 2, 4, 5, 6}), ("held_out", {3})):
        documents = list(corpus.documents(split))
        assert documents == list(corpus.documents(split))
        assert {document.group for document in documents} == {f"package{index}" for index in groups}
        for document in documents:
            assert (sources / document.path).read_text() == document.text
        assert len(documents) == corpus.manifest.kept[split]


def test_small_row_groups_change_nothing_but_their_number(folder, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "ROW_GROUP_BYTES", 500)
    build([str(sources)], tmp_path / "small", CorpusConfig(held_out=("package3",)))
    small, large = Corpus.open(tmp_path / "small"), Corpus.open(folder)
    for path in (tmp_path / "small" / "files").iterdir():
        metadata = pq.ParquetFile(path).metadata
        assert metadata.num_row_groups > 1
        assert all(metadata.row_group(index).num_rows <= 6 for index in range(metadata.num_row_groups))
    assert small.fingerprint == large.fingerprint
    assert list(small.documents()) == list(large.documents())


def test_the_manifest_survives_the_disk(sources, tmp_path):
    manifest = build([str(sources)], tmp_path / "corpus", CorpusConfig(held_out=("package3",)))
    assert Corpus.open(tmp_path / "corpus").manifest == manifest
    assert manifest.files == 102 == sum(manifest.kept.values()) + sum(manifest.dropped.values())
    assert manifest.dropped == {"binary": 1, "exact duplicate": 1}
    assert manifest.languages == {"python": 100}
    assert manifest.held_out_groups == ("package3",)
    kept = [
        document
        for split in ("train", "held_out")
        for document in Corpus.open(tmp_path / "corpus").documents(split)
    ]
    assert sum(manifest.kept_bytes.values()) == sum(len(document.text.encode()) for document in kept)


def test_an_unknown_split_is_said(folder):
    with pytest.raises(InputError, match="no split is called 'test'; a corpus has 'train' and 'held_out'"):
        list(Corpus.open(folder).documents("test"))


def first_file(folder):
    return sorted((folder / "files").iterdir())[0]


def edit_manifest(folder, **changes):
    path = folder / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "corpus.json").unlink(), "is not a whole corpus"),
        (lambda folder: first_file(folder).unlink(), "is damaged"),
        (lambda folder: truncate(folder / "corpus.json", 0.5), "corpus.json is damaged"),
        (lambda folder: (folder / "corpus.json").write_bytes(b"\xff\xfe"), "corpus.json is damaged"),
        (lambda folder: (folder / "corpus.json").write_text("[]"), "corpus.json is damaged"),
        (lambda folder: (folder / "corpus.json").write_text("{}"), "corpus.json is damaged"),
        (lambda folder: edit_manifest(folder, extra=1), "corpus.json is damaged"),
        (lambda folder: edit_manifest(folder, schema_version=99), "has format 99, this Midspan reads 2"),
        (lambda folder: truncate(first_file(folder), 0.5), "is damaged"),
        (lambda folder: truncate(first_file(folder), 0), "is damaged"),
        (lambda folder: first_file(folder).write_bytes(b"garbage" * 99), "is damaged"),
    ],
)
def test_damage_is_told_on_opening(folder, damage, sentence):
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        Corpus.open(folder)


def test_a_flipped_byte_of_text_is_told_on_reading(folder):
    path = first_file(folder)
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    column = columns["text"]
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"\.parquet is damaged .*; build the corpus again"):
        list(Corpus.open(folder).documents())


def test_a_folder_that_is_absent_is_said(tmp_path):
    with pytest.raises(InputError, match=r"there is no corpus at .*absent; build one with"):
        Corpus.open(tmp_path / "absent")
