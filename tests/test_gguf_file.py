"""The container against the gguf package's own reader, and against damage."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from midspan.errors import InputError
from midspan.gguf_file import GGUFFile


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file with every type of field, two tensors, and an alignment that is not the usual one."""
    path = tmp_path / "whole.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    for kind, value in {
        "uint8": 200,
        "int8": -3,
        "uint16": 60_000,
        "int16": -300,
        "uint32": 4_000_000_000,
        "int32": -70_000,
        "uint64": 1 << 60,
        "int64": -(1 << 60),
        "float32": 0.5,
        "float64": 1e-300,
        "bool": True,
        "string": "▁naïve \0",
        "array": ["a", "", "ß"],
    }.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.fractions", [0.25, -1.5])
    writer.add_array("a.nested", [[1, 2], [3]])
    writer.add_tensor("first.weight", np.arange(15, dtype=np.float32).reshape(3, 5))
    writer.add_tensor("second.weight", np.arange(7, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_fields_and_directory_are_those_of_the_packages_reader(whole: Path) -> None:
    reader, file = gguf.GGUFReader(whole), GGUFFile(whole)
    nested = file.fields.pop("a.nested")
    assert nested == [[1, 2], [3]]  # the package's reader flattens it
    theirs = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    del theirs["a.nested"]
    assert file.fields == theirs
    assert {name: type(value) for name, value in file.fields.items()} == {
        name: type(value) for name, value in theirs.items()
    }
    assert [(e.name, e.shape, e.storage, e.offset) for e in file.directory()] == [
        (t.name, tuple(map(int, reversed(t.shape))), t.tensor_type.value, t.data_offset) for t in reader.tensors
    ]
    assert file.directory() == file.directory()


def test_fields_are_read_wherever_the_tensors_are_cut_off(whole: Path, tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "cut.gguf"
    fields, directory = GGUFFile(whole).fields, GGUFFile(whole).directory()
    at = data.index(b"first.weight") - 8
    for length in range(4, len(data), 3):
        path.write_bytes(data[:length])
        if length < at:
            with pytest.raises(InputError, match=rf"cut\.gguf is a damaged or cut-off .* of {length}\)"):
                GGUFFile(path)
            continue
        file = GGUFFile(path)
        assert file.fields == fields
        if length < directory[0].offset - 64:
            with pytest.raises(InputError, match=r"cut\.gguf is a damaged or cut-off"):
                file.directory()
        elif length >= directory[0].offset:
            assert file.directory() == directory


def _header(*, version: int = 3, num_tensors: int = 0, num_fields: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields)


def _field(kind: int, value: bytes, key: bytes = b"key") -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"x\.gguf is empty; get the file again"),
        (b"GGU", "is a damaged or cut-off GGUF file"),
        (b"PK\3\4" + bytes(40), r"is not a GGUF file \(it starts with b'PK\\x03\\x04'\)"),
        (_header(version=1), "is GGUF version 1; little-endian versions 2 and 3"),
        (_header()[:4] + struct.pack(">IQQ", 3, 0, 0), "is GGUF version 50331648; .*little-endian"),
        (_header(num_fields=1 << 63), "is a damaged or cut-off"),
        (_header() + _field(99, b""), "is a damaged or cut-off"),
        (_header() + _field(8, struct.pack("<Q", 1 << 63)), "is a damaged or cut-off"),
        (_header() + _field(8, struct.pack("<Q", 2) + b"\xff\xfe"), "is a damaged or cut-off"),
        (_header() + _field(9, struct.pack("<IQ", 4, (1 << 64) - 1)), "is a damaged or cut-off"),
        (_header() + _field(9, struct.pack("<IQ", 8, (1 << 64) - 1) + bytes(800)), "is a damaged or cut-off"),
        (_header() + _field(9, struct.pack("<IQ", 9, 1) * 100_000), "is a damaged or cut-off"),
    ],
)
def test_each_damage_is_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        GGUFFile(tmp_path / "x.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alignment", [0, -1, "32"])
def test_an_alignment_that_is_none_is_refused(alignment: Any, tmp_path: Path) -> None:
    is_text = isinstance(alignment, str)
    value = struct.pack("<Q", 2) + b"32" if is_text else struct.pack("<i", alignment)
    path = tmp_path / "x.gguf"
    path.write_bytes(_header() + _field(8 if is_text else 5, value, b"general.alignment"))
    with pytest.raises(InputError, match="is a damaged or cut-off"):
        GGUFFile(path).directory()


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "absent.gguf", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=rf"{path.name} cannot be read \({reason}.*\); name a \.gguf file"):
            GGUFFile(path)
