"""Parquet in the layouts of published data sets, in row groups of any size, whole and broken."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.sources.reading import MIB, contents, files, found, problems, shards
from midspan.corpus import Reason
from midspan.errors import InputError

FACTS = ("group", "path", "data", "commit", "language", "licences", "stars")


def facts(*specs, **options):
    return [tuple(getattr(file, key) for key in FACTS) for file in files(*specs, **options)]


@pytest.fixture
def write(tmp_path):
    def write(columns, name="x.parquet", **options):
        path = tmp_path / name
        pq.write_table(pa.table(columns), path, **options)
        return path

    return write


def test_the_stack(write):
    path = write(
        {
            "hexsha": ["1", "2"],
            "size": [6, 1],
            "ext": ["py", "py"],
            "lang": ["Python", "Python"],
            "max_stars_repo_path": ["src/a.py", "b.py"],
            "max_stars_repo_name": ["owner/app", "other/app"],
            "max_stars_repo_head_hexsha": ["c1", "c2"],
            "max_stars_repo_licenses": [["MIT", "Apache-2.0"], []],
            "max_stars_count": [7.0, None],
            "content": ["a = 1\n", "b"],
            "avg_line_length": [5.0, 1.0],
        }
    )
    assert facts(path) == [
        ("owner/app", "src/a.py", b"a = 1\n", "c1", None, ("MIT", "Apache-2.0"), 7),
        ("other/app", "b.py", b"b", "c2", None, (), None),
    ]


def test_the_stack_v2_with_contents_in_their_own_encodings(write):
    texts = ["a = 'é'\n", "a = '日本'\n", "a = 'ж'\n", "plain"]
    encodings = ["UTF-8", "Shift_JIS", "no-such-codec", None]
    path = write(
        {
            "blob_id": ["1", "2", "3", "4"],
            "path": [f"/src/{number}.py" for number in range(4)],
            "repo_name": ["o/a"] * 4,
            "revision_id": ["r"] * 4,
            "detected_licenses": [["MIT"]] * 4,
            "license_type": ["permissive"] * 4,
            "star_events_count": pa.array([1, 2, 3, 4], pa.int64()),
            "src_encoding": encodings,
            "language": ["Python"] * 4,
            "content": pa.array(
                [texts[0].encode(), texts[1].encode("shift_jis"), texts[2].encode("koi8-r"), b"plain"], pa.binary()
            ),
        }
    )
    assert [file.data for file in files(path)] == [
        texts[0].encode(),
        texts[1].encode(),
        texts[2].encode("koi8-r"),  # left to `decode`
        b"plain",
    ]
    assert facts(path)[0] == ("o/a", "/src/0.py", texts[0].encode(), "r", None, ("MIT",), 1)


def test_a_text_that_was_decoded_already_is_not_decoded_again(write):
    path = write({"content": ["é"], "src_encoding": ["ISO-8859-1"], "path": ["a.py"]})
    assert contents(path) == {"a.py": "é".encode()}


def test_prose(write):
    path = write({"text": ["one", "two"], "id": ["a", "b"], "language": ["en", "en"]})
    assert facts(path) == [
        ("x.parquet:1-1000", "x.parquet:1", b"one", None, "text", None, None),
        ("x.parquet:1-1000", "x.parquet:2", b"two", None, "text", None, None),
    ]
    assert found(f"text:{path}")[0].prose


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_texts_of_every_type(write, kind):
    path = write({"content": pa.array(["a", None, "a", "ä\0"]).cast(kind), "path": list("wxyz")})
    assert contents(path) == {"w": b"a", "y": b"a", "z": "ä\0".encode()}
    assert problems(path) == {"x": (Reason.UNREADABLE, "row 2: no text under 'content'")}


def test_large_and_unwanted_texts_are_not_handed_out(write):
    path = write({"content": ["a" * 200, "b", "c"], "path": ["a.py", "b.py", "c.txt"]})
    read = files(path, max_bytes=100, wanted=lambda path: path.endswith(".py"))
    assert [(file.path, file.data, file.problem, file.size) for file in read] == [
        ("a.py", None, Reason.TOO_LARGE, 200),
        ("b.py", b"b", None, 1),
        ("c.txt", None, None, 1),
    ]


@pytest.mark.parametrize("row_group_size", [50, 3_000, 100_000])
def test_shards_are_ranges_of_rows_whatever_the_row_groups(write, row_group_size):
    draw = random.Random(0)
    texts = [draw.randbytes(draw.randrange(5_000)).hex() for _ in range(9_000)]
    path = write(
        {"content": texts, "path": [f"{number}.py" for number in range(9_000)]}, row_group_size=row_group_size
    )
    listed = shards(path)
    assert len(listed) >= 2
    straight = [file for shard in listed for file in shard.files(lambda path: True, MIB)]
    assert [file.data.decode() for file in straight] == texts
    assert [file.path for file in straight] == [f"{number}.py" for number in range(9_000)]
    every_second = [file for shard in listed[::2] for file in shard.files(lambda path: True, MIB)]
    backwards = [file for shard in listed[::-1] for file in shard.files(lambda path: True, MIB)]
    assert set(every_second) <= set(straight) == set(backwards)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_rows=st.integers(0, 400), row_group_size=st.integers(1, 300), seed=st.integers(0, 99))
def test_any_order_of_ranges_reads_the_same(write, num_rows, row_group_size, seed):
    from midspan.corpus.sources.parquet import _Reader

    path = write({"content": [str(number) for number in range(num_rows)]}, row_group_size=row_group_size)
    reader, draw = _Reader(path, ["content"]), random.Random(seed)
    for _ in range(10 if num_rows else 0):
        first = draw.randrange(num_rows)
        count = draw.randint(1, num_rows - first)
        read = [row for batch in reader.rows(first, count) for row in batch.column(0).to_pylist()]
        assert read == [str(number) for number in range(first, first + count)]


def test_ids_without_texts_are_refused_with_the_reason(write):
    path = write({"blob_id": ["1"], "path": ["a.py"], "src_encoding": ["UTF-8"]})
    with pytest.raises(InputError, match=r"x.parquet has no column of texts .* among blob_id, path, src_encoding"):
        shards(path)
    with pytest.raises(InputError, match="has no column of texts"):
        shards(write({"content": [1, 2]}))


@pytest.mark.parametrize("what", ["truncated", "empty", "no parquet"])
def test_a_file_that_is_not_whole(write, what):
    path = write({"content": ["a" * 10_000], "path": ["a.py"]}, "b.parquet")
    path.write_bytes({"truncated": path.read_bytes()[:-10], "empty": b"", "no parquet": b"content" * 999}[what])
    with pytest.raises(InputError, match=r"b.parquet of source \S+ cannot be read \(.*Parquet.*\); make or"):
        shards(path)
    write({"content": ["c"], "path": ["c.py"]}, "c.parquet")
    assert contents(path.parent) == {"c.py": b"c"}
    ((name, (reason, detail)),) = problems(path.parent).items()
    assert (name, reason) == ("b.parquet", Reason.UNREADABLE)
    assert "\n" not in detail


def test_damage_inside_is_recorded_for_the_rows_it_hits(write):
    draw = random.Random(0)
    texts = [draw.randbytes(2000).hex() for _ in range(2000)]
    path = write({"content": texts}, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    path.write_bytes(data)
    read = [file for shard in shards(path) for file in shard.files(lambda path: True, MIB)]
    good = [file for file in read if file.problem is None]
    bad = [file for file in read if file.problem is not None]
    assert [file.data.decode() for file in good] == texts[: len(good)]
    assert 0 < len(good) < 2000
    assert len(bad) == 1
    assert bad[0].detail.startswith(f"rows {len(good) + 1} to 2000: ")


def test_a_data_set_is_a_folder_of_files(write, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("data/b.parquet", "data/a.parquet"):
        write({"content": [name]}, name)
    (tmp_path / "README.md").write_text("about")
    assert contents(tmp_path) == {"data/a.parquet:1": b"data/a.parquet", "data/b.parquet:1": b"data/b.parquet"}
    (tmp_path / "link").mkdir()
    (tmp_path / "link/c.parquet").symlink_to(tmp_path / "data/a.parquet")  # as in the hub's cache
    assert list(contents(tmp_path / "link")) == ["c.parquet:1"]
