"""JSON lines: what a row says, what is no row, and lines that no memory should hold."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
import zstandard

from corpus.sources.reading import MIB, contents, files, found, problems, shards
from midspan.corpus import Reason
from midspan.errors import InputError


def packed(name, data):
    if name.endswith(".gz"):
        return gzip.compress(data)
    return zstandard.compress(data) if name.endswith(".zst") else data


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="x.jsonl", end="\n"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(packed(name, b"".join(line + end.encode() for line in lines)))
        return path

    return write


STACK = {
    "content": "a = 1\n",
    "lang": "Python",
    "max_stars_repo_path": "src/a.py",
    "max_stars_repo_name": "owner/app",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
    "max_stars_count": 7,
    "max_stars_repo_head_hexsha": "abc",
}


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
def test_what_rows_of_published_data_sets_say(write, name):
    path = write(
        STACK,
        {"code": "b", "path": "lib/b.py", "repo_name": "o/b", "license": "mit", "language": "Python", "size": 3},
        {"content": "c", "path": "lib/c.py", "repo_name": "o/c", "detected_licenses": [], "star_events_count": 0},
        {"text": "prose", "language": "en", "url": "https://example.org"},
        {"content": "d", "language": "C++"},
        {"content": "e", "path": "/top/e.c", "stars": 2.0, "licenses": ["MIT", 3], "repo": None},
        {"content": "", "path": "empty.py"},
        name=name,
    )
    keys = ("group", "path", "data", "commit", "language", "licences", "stars")
    assert [tuple(getattr(file, key) for key in keys) for file in files(path)] == [
        ("owner/app", "src/a.py", b"a = 1\n", "abc", None, ("MIT", "Apache-2.0"), 7),
        ("o/b", "lib/b.py", b"b", None, None, ("mit",), None),
        ("o/c", "lib/c.py", b"c", None, None, (), 0),
        (f"{name}:1-1000", f"{name}:4", b"prose", None, "text", None, None),
        (f"{name}:1-1000", f"{name}:5", b"d", None, "c++", None, None),
        ("top", "/top/e.c", b"e", None, None, ("MIT",), 2),
        ("empty.py", "empty.py", b"", None, None, None, None),
    ]


def test_rows_that_say_nothing_are_groups_of_a_thousand(write):
    read = files(write(*({"content": "a"} for _ in range(2001))))
    groups = [file.group for file in read]
    assert [groups[number - 1] for number in (1, 1000, 1001, 2000, 2001)] == [
        *("x.jsonl:1-1000", "x.jsonl:1-1000", "x.jsonl:1001-2000", "x.jsonl:1001-2000", "x.jsonl:2001-3000"),
    ]


def test_facts_of_any_type_are_taken_or_left(write):
    odd = [float("inf"), float("nan"), -1, 1 << 40, "7", None, [1], {}]
    rows = (
        {"content": "a", **dict.fromkeys(("path", "repo", "commit", "lang", "license", "stars"), value)}
        for value in odd
    )
    read = files(write(*rows))
    assert [file.stars for file in read] == [None] * len(odd)
    assert [file.licences for file in read] == [None, None, None, None, ("7",), None, (), None]
    assert [file.path for file in read] == [
        "7" if value == "7" else f"x.jsonl:{n}" for n, value in enumerate(odd, 1)
    ]
    (file,) = files(write({"content": "a", "path": "\ud800/\0.py", "repo": "/"}))
    assert (file.path, file.group) == ("\\ud800/\\x00.py", "/")


def test_a_bad_line_is_recorded_by_its_number(write):
    path = write(
        {"content": "a", "path": "a.py"},
        b"{",
        b"",
        b"[1]",
        {"path": "b.py"},
        {"content": None},
        b'{"content": "\xff"}',
        b'{"content": "\\ud800"}',
        b"[" * 100_000,
        b'{"content": ' + b"1" * 5000 + b"}",
        b"\0\0\0\0",
        {"content": "z", "path": "z.py"},
    )
    assert contents(path) == {"a.py": b"a", "z.py": b"z"}
    found = problems(path)
    assert {reason for reason, _ in found.values()} == {Reason.UNREADABLE}
    starts = {
        2: "line 2: not JSON (Expecting property name",
        4: "line 4: a list and not an object",
        5: "line 5: no text under 'content', 'code' or 'text'",
        6: "line 6: no text under",
        7: "line 7: not JSON ('utf-8' codec can't decode",
        8: "line 8: half a surrogate pair at character 0",
        9: "line 9: nested too deep",
        10: "line 10: not JSON (Exceeds the limit",
        11: "line 11: not JSON",
    }
    assert found.keys() == {f"x.jsonl:{number}" for number in starts}
    for number, start in starts.items():
        assert found[f"x.jsonl:{number}"][1].startswith(start)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_a_last_line_without_one(write, end):
    path = write({"content": "a"}, {"content": "b"}, end=end)
    path.write_bytes(path.read_bytes().removesuffix(end.encode()))
    assert list(contents(path).values()) == [b"a", b"b"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
def test_shards_are_ranges_of_lines(write, name):
    draw = np.random.default_rng(0)
    giant = [40 * MIB] if name == "x.jsonl" else []
    sizes = [*draw.integers(0, 20_000, 4000), *giant, *draw.integers(0, 30, 10_000)]
    path = write(*({"content": f"{number}:" + "x" * size} for number, size in enumerate(sizes)), name=name)
    listed = shards(path)
    assert len(listed) >= 3
    read = [file for shard in listed for file in shard.files(lambda path: True, 50 * MIB)]
    assert [int(file.data.split(b":")[0]) for file in read] == list(range(len(sizes)))
    assert [file.size for file in read] == [len(f"{number}:") + size for number, size in enumerate(sizes)]
    assert [file.path for file in read] == [f"{name}:{number}" for number in range(1, len(sizes) + 1)]
    assert sum(shard.num_files for shard in listed) == len(sizes)
    backwards = [file for shard in reversed(listed) for file in shard.files(lambda path: True, MIB)]
    assert {file.path for file in backwards} == {file.path for file in read}


def test_a_row_with_a_path_may_be_unwanted_and_one_without_is_not_asked(write):
    path = write({"content": "a", "path": "a.py"}, {"content": "b", "language": "Python"}, {"text": "c"})
    read = files(path, wanted=lambda path: False)
    assert [(file.data, file.problem, file.size) for file in read] == [
        (None, None, 1),
        (b"b", None, 1),
        (b"c", None, 1),
    ]


def test_a_long_text_is_too_large(write):
    path = write({"content": "ä" * 100, "path": "a.py"}, {"content": "ä" * 50, "path": "b.py"})
    assert problems(path, max_bytes=100) == {"a.py": (Reason.TOO_LARGE, "200 bytes, more than 100")}
    assert contents(path, max_bytes=100) == {"b.py": "ä".encode() * 50}


def test_natural_language_is_marked(write):
    path = write({"content": "a", "path": "a.py"})
    (file,) = files(f"text:{path}", wanted=lambda path: False)
    assert (file.language, file.data) == ("text", b"a")
    assert found(f"text:{path}")[0].prose


GIGABYTE = """
import json, resource, sys
from pathlib import Path
from midspan.corpus.sources import find_sources

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

(source,) = find_sources([sys.argv[1]], excluded=Path("/nowhere"))
before = peak()
read = [file for shard in source.shards() for file in shard.files(lambda path: True, 1 << 20)]
told = [(file.path, file.data and file.data.decode(), file.problem, file.detail) for file in read]
print(json.dumps([peak() - before, told]))
"""


def test_a_line_of_a_gigabyte_costs_no_memory(tmp_path):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"content": "a"}\n')
        file.seek(1 << 30, 1)
        file.write(b'\n{"content": "b"}\n')
    done = subprocess.run([sys.executable, "-c", GIGABYTE, str(path)], capture_output=True, check=True)
    mebibytes, read = json.loads(done.stdout)
    assert mebibytes < 64
    assert [row[1] for row in read] == ["a", None, "b"]
    assert read[1][0] == "x.jsonl:2"
    assert read[1][2:] == [Reason.TOO_LARGE, "line 2: 1073741824 bytes, more than 7340032"]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_a_compressed_file_that_breaks_off_is_read_up_to_there(write, name):
    draw = np.random.default_rng(0)
    path = write(*({"content": draw.bytes(1000).hex()} for _ in range(3000)), name=name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    read = [file for shard in shards(path) for file in shard.files(lambda path: True, MIB)]
    assert 1000 < len(read) < 2001
    assert all(file.data is not None for file in read[:-1])
    assert read[-1].path == name
    assert read[-1].problem == Reason.UNREADABLE
    assert read[-1].detail == f"from line {len(read)} on: Truncated compressed stream"


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_a_file_that_is_not_what_its_name_says(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'{"content": "not packed"}\n')
    with pytest.raises(InputError, match=f"{name} of source .* cannot be read .*; make or fetch it again"):
        shards(path)
    (tmp_path / "y.jsonl").write_text('{"content": "a"}\n')
    assert list(contents(tmp_path).values()) == [b"a"]
    ((broken, (reason, _)),) = problems(tmp_path).items()
    assert (broken, reason) == (name, Reason.UNREADABLE)


def test_a_file_that_changed_since_it_was_listed_is_said(write):
    path = write({"content": "a"})
    listed = shards(path)
    path.write_text('{"content": "b"}\n{"content": "c"}\n')
    with pytest.raises(InputError, match=r"x.jsonl changed while it was read; run the same command again"):
        list(listed[0].files(lambda path: True, MIB))
    path.unlink()
    with pytest.raises(InputError, match=r"x.jsonl cannot be read \(No such file or directory\)"):
        list(listed[0].files(lambda path: True, MIB))


def test_a_fingerprint_follows_the_file(write):
    def prints():
        return [shard.fingerprint for shard in shards(path)]

    path = write(*({"content": "a"} for _ in range(10_000)))
    before = prints()
    assert len(before) == 2
    assert prints() == before
    path = write(*({"content": "b"} for _ in range(10_000)))
    assert not set(before) & set(prints())


def test_a_folder_of_rows_is_one_source(tmp_path):
    for name in ("data/b/1.jsonl", "data/a/2.jsonl.gz", "data/a/1.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(packed(name, json.dumps({"content": name}).encode()))
    (tmp_path / "README.md").write_text("a data set")
    (tmp_path / ".gitattributes").write_text("")
    read = files(tmp_path)
    assert [file.data.decode() for file in read] == ["data/a/1.jsonl", "data/a/2.jsonl.gz", "data/b/1.jsonl"]
    assert read[0].path == "data/a/1.jsonl:1"
    assert set(contents(tmp_path, excluded=tmp_path / "data")) == {"README.md", ".gitattributes"}
    (tmp_path / "data/b/load.py").write_text("import json\n")
    assert contents(tmp_path)["data/b/load.py"] == b"import json\n"
