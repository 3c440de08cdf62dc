"""Archives, friendly and hostile. The oracle for what a tar holds is GNU tar, for a zip the files put in."""

import io
import os
import random
import stat
import subprocess
import tarfile
import zipfile

import pyarrow as pa
import pytest

from corpus.sources.reading import MIB, contents, files, found, problems, shards
from midspan.corpus import Reason
from midspan.errors import InputError

GIVEN = {
    "app-1.0/src/a.py": b"a = 1\n",
    "app-1.0/README": b"text\r\n",
    "app-1.0/empty.py": b"",
    "app-1.0/" + "deep/" * 60 + "long.py": b"long names need a header of their own",
    "app-1.0/\xe9.py": b"x",
}


def member(name, data=b"", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(data)


@pytest.fixture
def tar(tmp_path):
    def write(*members, name="app-1.0.tar", fileobj=None, **options):
        path = tmp_path / name
        packed = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")
        plain = path.with_suffix("") if path.suffix == ".zst" else path
        with tarfile.open(plain, f"w:{packed}", **options) as archive:
            for info, data in members:
                archive.addfile(info, data)
        if path.suffix == ".zst":
            with pa.output_stream(path, compression="zstd") as file:
                file.write(plain.read_bytes())
            plain.unlink()
        return path

    return write


@pytest.fixture
def zipped(tmp_path):
    def write(given, name="app.zip", compression=zipfile.ZIP_DEFLATED):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", compression) as archive:
            for info, data in given.items():
                archive.writestr(info, data)
        return path

    return write


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_tar_is_what_was_put_in(tar, suffix):
    path = tar(
        member("app-1.0", kind=tarfile.DIRTYPE),
        *(member(*each) for each in GIVEN.items()),
        name="app-1.0" + suffix,
    )
    assert contents(path) == GIVEN
    read = files(path)
    assert {file.group for file in read} == {"app-1.0"}
    assert [file.path for file in read] == sorted(GIVEN, key=str.encode)
    assert found(path)[0].label == "app-1.0" + suffix


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_what_gnu_tar_writes(tree, tmp_path, form):
    root = tree("app", {"a.py": "1", "b/" + "c" * 90 + ".py": "2", "d/ä.py": "3", "link-to.py": "4"})
    with open(os.fsencode(root) + b"/\xff.py", "w") as file:
        file.write("5")
    (root / "link.py").symlink_to("a.py")
    os.link(root / "link-to.py", root / "hard.py")
    os.mkfifo(root / "pipe")
    path = tmp_path / "x.tar"
    subprocess.run(
        ["tar", f"--format={form}", "-cf", path, "./app"], cwd=tmp_path, check=True, capture_output=True
    )
    read = contents(path)
    hard = {"app/hard.py", "app/link-to.py"} & set(read)
    assert len(hard) == 1
    assert read.pop(hard.pop()) == b"4"
    assert read == {"app/a.py": b"1", "app/b/" + "c" * 90 + ".py": b"2", "app/d/ä.py": b"3", "app/\\xff.py": b"5"}
    said = problems(path)
    assert said["app/link.py"] == (Reason.SYMBOLIC_LINK, "to 'a.py'")
    assert said["app/pipe"] == (Reason.NOT_A_FILE, "device or pipe")
    assert any(
        detail.startswith("hard link to 'app/") or "hard link to './app/" in detail for _, detail in said.values()
    )


def test_sparse_members_are_recorded(tmp_path):
    with (tmp_path / "holes.py").open("wb") as file:
        file.write(b"a")
        file.seek(200_000)
        file.write(b"b")
    subprocess.run(["tar", "-S", "-cf", "x.tar", "holes.py"], cwd=tmp_path, check=True)
    assert problems(tmp_path / "x.tar") == {"holes.py": (Reason.UNREADABLE, "stored with holes")}


HOSTILE = ["/etc/passwd", "../up.py", "app/../../up.py", "..", "/"]


def test_paths_that_lead_out_never_touch_the_disk(tar, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    archives = [
        tar(*(member(name, b"evil") for name in HOSTILE), member("app/a.py", b"good")),
        zipped({**{name: b"evil" for name in HOSTILE if name != "/"}, "app/a.py": b"good"}),
    ]
    for path in archives:
        assert contents(path) == {"app/a.py": b"good"}
        assert {
            "/etc/passwd",
            "../up.py",
            "app/../../up.py",
        } <= problems(path).keys()
        assert {detail for _, detail in problems(path).values()} == {"a path that leads out of the archive"}
    assert set(tmp_path.rglob("*")) - before == set(archives)


def test_devices_and_links_in_a_tar_are_recorded(tar):
    path = tar(
        member("app/a.py", b"a"),
        member("app/zero", kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("app/link.py", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("app/hard.py", kind=tarfile.LNKTYPE, linkname="/etc/shadow"),
    )
    assert problems(path) == {
        "app/zero": (Reason.NOT_A_FILE, "device or pipe"),
        "app/link.py": (Reason.SYMBOLIC_LINK, "to '/etc/passwd'"),
        "app/hard.py": (Reason.NOT_A_FILE, "hard link to '/etc/shadow'"),
    }


def test_a_zip_is_what_was_put_in_with_links_and_locked_members_recorded(zipped):
    link = zipfile.ZipInfo("app/link.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped({"app/a.py": b"a = 1\n", "app/sub/": b"", "./b.py": b"b", link: b"a.py", "app/é.py": b"e"})
    assert contents(path) == {"app/a.py": b"a = 1\n", "b.py": b"b", "app/é.py": b"e"}
    assert {file.path: file.group for file in files(path)}["b.py"] == "app"  # the archive's name
    assert problems(path) == {"app/link.py": (Reason.SYMBOLIC_LINK, "")}
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    assert problems(path)["app/a.py"] == (Reason.UNREADABLE, "encrypted")


def test_a_wheel_is_one_package(zipped):
    path = zipped({"six.py": b"1", "six-1.0.dist-info/METADATA": b"2"}, "six-1.0-py3-none-any.whl")
    assert {file.group for file in files(path)} == {"six-1.0-py3-none-any"}


def test_first_level_folders_are_groups_and_tools_are_passed_over(tar):
    path = tar(*(member(name, b"a") for name in ("x/a.py", "./y/b.py", "z.py", "x/.git/config")), name="all.tar")
    assert {file.path: file.group for file in files(path)} == {"x/a.py": "x", "y/b.py": "y", "z.py": "all"}


def test_of_members_with_one_name_the_last_counts(tar, zipped):
    path = tar(member("app/a.py", b"old"), member("app/b.py", b"b"), member("./app/a.py", b"new"))
    assert contents(path) == {"app/a.py": b"new", "app/b.py": b"b"}
    assert problems(path) == {"app/a.py": (Reason.NOT_A_FILE, "replaced by a later member of the same name")}


def test_an_archive_in_an_archive_is_a_file(tar, zipped, tmp_path):
    inner = zipped({"inner/a.py": b"a"}).read_bytes()
    path = tar(member("app/inner.zip", inner), member("app/a.py", b"a"))
    assert contents(path) == {"app/inner.zip": inner, "app/a.py": b"a"}


@pytest.mark.parametrize("name", ["many.tar", "many.tar.gz", "many.zip"])
def test_shards_are_stretches_read_in_any_order(tar, zipped, name):
    draw = random.Random(0)
    given = {f"app/{number:05}.py": draw.randbytes(draw.randrange(400)) for number in range(8_300)}
    given["app/large.py"] = bytes(33 * MIB)  # a shard by itself
    order = list(given)
    draw.shuffle(order)
    if name.endswith(".zip"):
        path = zipped({key: given[key] for key in order}, name)
    else:
        path = tar(*(member(key, given[key]) for key in order), name=name)
    listed = shards(path)
    assert len(listed) >= 3
    straight = [file for shard in listed for file in shard.files(lambda path: True, 40 * MIB)]
    assert {file.path: file.data for file in straight} == given
    backwards = [file for shard in listed[::-1] for file in shard.files(lambda path: True, 40 * MIB)]
    assert set(backwards) == set(straight)
    assert problems(path) == {"app/large.py": (Reason.TOO_LARGE, f"{33 * MIB} bytes, more than {MIB}")}


def test_bombs_are_refused_and_no_more_is_read_than_asked_for(tmp_path):
    zeros = bytes(12 * MIB)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"{number}.py", zeros)
    for name in ("x.tar.gz", "x.tar.xz"):
        with tarfile.open(tmp_path / name, f"w:{name[-2:]}") as archive:
            for number in range(8):
                archive.addfile(*member(f"{number}.py", zeros))
    for name in ("x.zip", "x.tar.gz", "x.tar.xz"):
        with pytest.raises(
            InputError, match=f"{name} holds more than 256 times its size; unpack it where there is"
        ):
            shards(tmp_path / name)


def test_a_member_that_lies_about_its_size_is_recorded(zipped):
    path = zipped({"a.py": b"a" * 5000, "b.py": b"b"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        data[data.index(signature) + offset :][:4]
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    assert contents(path) == {"b.py": b"b"}
    assert problems(path) == {"a.py": (Reason.UNREADABLE, "Bad CRC-32 for file 'a.py'")}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.zst"])
def test_a_tar_that_breaks_off_is_read_up_to_there(tar, name):
    draw = random.Random(0)
    given = {f"app/{number}.py": draw.randbytes(10_000) for number in range(100)}
    path = tar(*(member(*each) for each in given.items()), name=name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    read = [file for shard in shards(path) for file in shard.files(lambda path: True, MIB)]
    good = {file.path: file.data for file in read if file.data is not None}
    assert 30 < len(good) < 60
    assert good.items() <= given.items()
    bad = [file for file in read if file.problem is not None]
    assert 1 <= len(bad) <= 2
    assert any(file.path == name and file.detail.startswith("after 'app/") for file in bad)


def test_rubbish_between_members_is_said(tar):
    path = tar(*(member(f"app/{number}.py", b"a" * 512) for number in range(10)))
    data = bytearray(path.read_bytes())
    data[5 * 1024 : 5 * 1024 + 512] = b"\x7f" * 512
    path.write_bytes(data)
    assert len(contents(path)) == 5
    assert problems(path) == {
        "app-1.0.tar": (Reason.UNREADABLE, "after 'app/4.py': no header where the next member should begin")
    }


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip", "x.whl"])
def test_a_file_that_is_no_archive(tmp_path, name):
    path = tmp_path / name
    for data in (b"this is no archive" * 99, b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{name} cannot be read .*; make or fetch it again"):
            shards(path)


def test_an_archive_that_changed_since_it_was_listed_is_said(tar, zipped):
    for path in (tar(member("a.py", b"a")), zipped({"a.py": b"a"})):
        (shard,) = shards(path)
        os.utime(path, ns=(1, 1))
        with pytest.raises(InputError, match="changed while it was read; run the same command again"):
            list(shard.files(lambda path: True, MIB))


def test_unwanted_members_are_not_read(tar):
    path = tar(member("app/a.py", b"a"), member("app/b.bin", b"b"))
    assert contents(path, wanted=lambda path: path.endswith(".py")) == {"app/a.py": b"a"}
    assert problems(path, wanted=lambda path: path.endswith(".py")) == {}
