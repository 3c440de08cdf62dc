"""Decoding: what is certain is read, the rest is left. Python's codecs are the oracle."""

import codecs
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import Reason
from midspan.corpus.decode import Decoded, decode

SENTENCES = {
    "latin-1": "# Größe in Zoll, à la française\n",
    "cp1250": "# Příliš žluťoučký kůň\n",
    "iso8859-2": "# Zażółć gęślą jaźń\n",
    "cp1254": "# Şişli'de çay içiyoruz\n",
    "koi8-r": "# Съешь ещё этих мягких булок\n",
    "cp1251": "# Съешь ещё этих мягких булок\n",
    "cp866": "# Съешь ещё этих мягких булок\n",
    "iso8859-5": "# Съешь ещё этих мягких булок\n",
    "iso8859-7": "# Ξεσκεπάζω την ψυχοφθόρα\n",
    "shift_jis": "# 設定を読み込む\n",
    "euc_jp": "# 設定を読み込む\n",
    "gb18030": "# 读取配置文件\n",
    "big5": "# 讀取設定檔\n",
    "euc_kr": "# 설정을 읽는다\n",
    "cp437": "# Größe für Übermaß\n",
    "mac-roman": "# Größe für Übermaß, déjà vu\n",
}


def text_of(data):
    found = decode(data)
    assert isinstance(found, Decoded), found
    return found.text


def lines(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_utf8_is_what_python_decodes(text):
    assert decode(text.encode()) == Decoded(lines(text.removeprefix("\ufeff")), "utf-8")
    if not text.startswith("\ufeff"):
        assert decode(codecs.BOM_UTF8 + text.encode()) == Decoded(lines(text), "utf-8")


@given(
    st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"])),
    st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
)
def test_a_byte_order_mark_names_the_encoding(text, encoding):
    assert text_of(("\ufeff" + text).encode(encoding)) == lines(text)


def test_line_ends():
    assert text_of(b"a\r\nb\rc\n\r\n\r\r") == "a\nb\nc\n\n\n\n"


def test_without_a_mark_nul_is_binary():
    assert decode(b"abc\0def") == (Reason.BINARY, "NUL at byte 3")
    assert decode("abc".encode("utf-16-le")) == (Reason.BINARY, "NUL at byte 1")
    assert decode(codecs.BOM_UTF16_LE + b"a\0b\0\0\0") == (Reason.BINARY, "NUL at character 2")
    assert decode(codecs.BOM_UTF16_LE + b"\0\xd8") == (
        Reason.NOT_UTF8,
        "byte 2 is not utf-16 as the mark at its beginning says",
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_a_text_or_a_reason(data):
    found = decode(data)
    if isinstance(found, Decoded):
        assert not {"\0", "\r"} & set(found.text)
        found.text.encode()
    else:
        assert found[0] in (Reason.BINARY, Reason.NOT_UTF8)
        assert found[1]


@pytest.mark.parametrize("encoding", SENTENCES)
@pytest.mark.parametrize(
    "declaration",
    [
        "# -*- coding: {} -*-\n",
        "#!/usr/bin/env python\n# vim: set fileencoding={} :\n",
        ";; -*- mode: lisp; coding: {}; -*-\n",
        '<?xml version="1.0" encoding="{}"?>\n',
        '<html>\n<head>\n<title>x</title>\n<meta charset="{}">\n',
        '<META http-equiv="Content-Type" content="text/html; charset={}">\n',
    ],
)
def test_a_declared_encoding_is_believed(encoding, declaration):
    text = declaration.format(encoding) + SENTENCES[encoding]
    assert decode(text.encode(encoding)) == Decoded(text, codecs.lookup(encoding).name)


@pytest.mark.parametrize(
    ("declared", "meant", "text"),
    [
        ("iso-8859-1", "cp1252", "“quoted” – €"),
        ("gb2312", "gb18030", "镕"),
        ("shift_jis", "cp932", "①"),
        ("euc-kr", "cp949", "똠"),
    ],
)
def test_a_smaller_name_may_mean_the_larger_encoding(declared, meant, text):
    text = f"<meta charset={declared}>{text}"
    assert decode(text.encode(meant)) == Decoded(text, meant)


@pytest.mark.parametrize(
    "declared",
    ["ascii", "utf-8", "utf-16", "cp037", "no-such", "hex", "unicode_escape", "utf-7", "undefined", "rot13"],
)
def test_a_declaration_that_cannot_be_true_is_not_believed(declared):
    data = f"# coding: {declared}\n".encode() + b"# \xe4\xf6 \\u1234\n"
    where = data.index(b"\xe4")
    for each in (data, data + b"\n"):  # of one length, all pairs of bytes are UTF-16
        assert decode(each) == (Reason.NOT_UTF8, f"byte 0xe4 at {where}, and it is not {declared} as it says")


def test_a_declaration_that_gives_control_characters_is_not_believed():
    assert decode(b"# coding: iso-8859-5\n# \x81\x8d\xff\n")[0] == Reason.NOT_UTF8
    assert decode(b"# coding: latin-1\n\x1b\xff\x01\x02\n")[0] == Reason.NOT_UTF8


def test_only_a_files_beginning_declares():
    line = "# coding: koi8-r\n"
    text = SENTENCES["koi8-r"]
    assert decode(("\n\n" + line + text).encode("koi8-r"))[0] == Reason.NOT_UTF8
    assert decode(('open(name, encoding="koi8-r")\n' + text).encode("koi8-r"))[0] == Reason.NOT_UTF8


def test_undeclared_text_is_read_where_all_readings_agree():
    text = "/* Müller, José: Straße, café */\n"
    for encoding in ("latin-1", "cp1252", "cp1250", "iso8859-2", "iso8859-15", "cp1254", "iso8859-9"):
        assert decode(text.encode(encoding)) == Decoded(text, "cp1252")


@pytest.mark.parametrize("encoding", SENTENCES)
def test_undeclared_text_of_other_encodings_is_left(encoding):
    reason, where = decode(("x = 1\n" + SENTENCES[encoding]).encode(encoding))
    assert reason == Reason.NOT_UTF8
    assert where.startswith("byte 0x")


def test_undeclared_letters_that_could_be_others_are_left():
    for word in ("à", "garçon là", "crème", "© 2001", "naïve", "20°", "é", "ééé", "aééa", "n×m"):
        assert decode(word.encode("latin-1"))[0] == Reason.NOT_UTF8


def test_python_reads_its_own_library_in_the_same_way():
    """`tokenize.open` follows PEP 263."""
    import tokenize

    folder = Path(sys.modules["os"].__file__).parent
    read = 0
    for path in sorted(folder.glob("*.py")) + sorted(folder.glob("encodings/*.py")):
        with tokenize.open(path) as file:
            assert text_of(path.read_bytes()) == file.read()
        read += 1
    assert read > 100
