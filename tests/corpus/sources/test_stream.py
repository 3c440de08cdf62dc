"""Going on where the last shard ended: each process unpacks a file once, however it is cut."""

import gzip
import lzma
import multiprocessing
import os
import random

import pytest
import zstandard

from midspan.corpus.sources.stream import DamagedError, Stream, stamp, stream_at
from midspan.errors import InputError

PACKERS = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".xz": lzma.compress,
    ".bin": bytes,
}
DATA = bytes(range(256)) * 40_000
DENSE = random.Random(0).randbytes(6_000_000)  # no packer makes it small


@pytest.fixture(params=PACKERS)
def path(tmp_path, request):
    path = tmp_path / f"x{request.param}"
    path.write_bytes(PACKERS[request.param](DATA))
    return path


def read(path, offset, num_bytes):
    with stream_at(path, stamp(path), offset) as stream:
        data = stream.read(num_bytes)
        return data, id(stream)


def test_a_place_is_kept_and_left_only_to_go_back(path):
    streams = set()
    for offset in (0, 100, 5_000_000, 5_000_100, 9_999_990):
        data, stream = read(path, offset, 100)
        assert data == DATA[offset : offset + 100]
        streams.add(stream)
    assert len(streams) == 1
    assert read(path, 7, 100)[0] == DATA[7:107]


def test_bytes_in_several_members_are_one_stream(tmp_path):
    for suffix in (".gz", ".zst", ".xz"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(PACKERS[suffix](b"first ") + PACKERS[suffix](b"second"))
        assert Stream(path).read(100) == b"first second"


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_damage_is_said(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    whole = PACKERS[suffix](os.urandom(1_000_000))
    for data in (
        whole[:500_000],
        whole[:-3],
        b"something else",
        whole[:500_000] + b"\xff\0" * 99 + whole[500_198:],
    ):
        path.write_bytes(data)
        stream = Stream(path)
        with pytest.raises(DamagedError) as raised:
            stream.seek(2_000_000)
        assert str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.fixture(params=PACKERS)
def dense_path(tmp_path, request):
    path = tmp_path / f"x{request.param}"
    path.write_bytes(PACKERS[request.param](DENSE))
    return path


def child(path, offset, pipe):
    pipe.send(read(path, offset, 1000)[0])


def test_a_forked_process_does_not_move_its_parents_place(dense_path):
    read(dense_path, 0, 1000)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(dense_path, 4_000_000, theirs))
    process.start()
    assert ours.recv() == DENSE[4_000_000:4_001_000]
    process.join()
    assert read(dense_path, 1000, 5_000_000)[0] == DENSE[1000:5_001_000]


def test_a_file_that_changed_is_not_read_on(path):
    stamped = stamp(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed while it was read"), stream_at(path, stamped, 0):
        pass
