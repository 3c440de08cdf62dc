"""Borders of shards: complete, within limits, and not moved by a change elsewhere."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import Reason
from midspan.corpus.sources.listing import Listed, cut, fingerprint, pack, unpack
from midspan.corpus.sources.source import MAX_SHARD_BYTES, MAX_SHARD_FILES

entries = st.lists(
    st.builds(
        Listed,
        raw=st.binary(min_size=1, max_size=30),
        size=st.integers(0, 1 << 40),
        key=st.binary(max_size=20),
        problem=st.sampled_from([None, *Reason]),
        detail=st.text(max_size=10),
    ),
    max_size=30,
)


def a_group(num_files, mean_bytes, seed=0):
    draw = random.Random(seed)
    names = sorted(b"group/%08x.py" % draw.getrandbits(32) for _ in range(num_files))
    return [Listed(raw, int(draw.expovariate(1 / mean_bytes)), b"%d" % draw.getrandbits(60)) for raw in names]


@given(entries)
def test_a_list_survives_packing(listed):
    assert unpack(pack(listed)) == listed


@given(entries)
def test_shards_are_the_list_cut_within_the_limits(listed):
    chunks = list(cut(listed))
    assert [entry for chunk in chunks for entry in chunk] == listed
    assert all(len(chunk) == 1 or sum(entry.size for entry in chunk) <= MAX_SHARD_BYTES for chunk in chunks)


@pytest.mark.parametrize(
    ("num_files", "mean_bytes"), [(60_000, 200), (20_000, 6_000), (2_000, 300_000), (30, 50 << 20)]
)
def test_shards_are_neither_crumbs_nor_too_many_files(num_files, mean_bytes):
    listed = a_group(num_files, mean_bytes)
    chunks = list(cut(listed))
    assert max(map(len, chunks)) <= MAX_SHARD_FILES
    total = sum(entry.size for entry in listed)
    assert len(chunks) < 2 + num_files / 1024 + total / (4 << 20)


@pytest.mark.parametrize(("num_files", "mean_bytes"), [(30_000, 200), (20_000, 6_000), (2_000, 300_000)])
@pytest.mark.parametrize("change", ["insert", "remove", "grow"])
def test_a_change_leaves_almost_all_shards_alone(num_files, mean_bytes, change):
    listed = a_group(num_files, mean_bytes)
    before = {fingerprint(chunk) for chunk in cut(listed)}
    draw = random.Random(1)
    changed = []
    for _ in range(20):
        after = list(listed)
        place = draw.randrange(len(after))
        if change == "insert":
            after.insert(place, Listed(after[place].raw[:-3] + b"a.py", mean_bytes, b"1"))
        elif change == "remove":
            del after[place]
        else:
            after[place] = after[place]._replace(size=after[place].size + mean_bytes, key=b"2")
        after.sort()
        changed.append(len({fingerprint(chunk) for chunk in cut(after)} - before))
    assert min(changed) == 1
    assert sum(changed) / len(changed) <= 1.5
    assert max(changed) <= 5 < len(before)


def test_a_fingerprint_covers_every_part_of_a_list():
    listed = [Listed(b"a", 1, b"k"), Listed(b"b", 2, b"l", Reason.UNREADABLE, "why")]
    others = [
        listed[:1],
        listed[::-1],
        [Listed(b"ab", 1, b"k"), listed[1]],
        [Listed(b"a", 2, b"k"), listed[1]],
        [Listed(b"a", 1, b"m"), listed[1]],
        [Listed(b"a", 1, b"k", Reason.BINARY), listed[1]],
        [listed[0], listed[1]._replace(detail="because")],
        [Listed(b"ak", 1, b""), listed[1]],
    ]
    assert len({fingerprint(each) for each in (listed, *others)}) == 1 + len(others)
    assert fingerprint(listed, "x") != fingerprint(listed)
