import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calcarine.download import archives
from calcarine.download.archives import extract, member_is_inside
from calcarine.errors import CalcarineError

FILES = {"a.txt": b"one", "sub/b.bin": bytes(range(256)) * 40, "sub/deep/c.txt": b""}
KINDS = ["zip", "tar", "tar.gz", "tar.xz"]


def make(place: Path, kind: str, files=FILES) -> Path:
    archive = place / f"made.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in files.items():
                made.writestr(name, content)
        return archive
    with tarfile.open(archive, "w:" + kind[4:]) as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return archive


def make_tar(place: Path, *entries: tarfile.TarInfo, content=b"data") -> Path:
    archive = place / "made.tar"
    with tarfile.open(archive, "w") as made:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            made.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return archive


def entry(name, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def refused(archive, tmp_path, match, **options):
    """Refused in one sentence, with nothing written in the folder or beside it."""
    out = tmp_path / "place" / "out"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CalcarineError, match=match) as caught:
        extract(archive, out, **options)
    assert "\n" not in str(caught.value) and str(archive) in str(caught.value)
    assert not out.exists() or list(out.iterdir()) == []
    assert set(tmp_path.rglob("*")) - set(before) <= {out, out.parent}


@pytest.mark.parametrize("kind", KINDS)
def test_all_members_arrive(tmp_path, kind):
    out = tmp_path / "out"
    found = extract(make(tmp_path, kind), out)
    assert files_in(out) == FILES
    assert found == [out / name for name in FILES]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        (["a.txt"], ["a.txt"]),
        (["sub/"], ["sub/b.bin", "sub/deep/c.txt"]),
        (["sub/deep", "a.txt"], ["a.txt", "sub/deep/c.txt"]),
    ],
)
def test_only_the_wanted_members_arrive(tmp_path, kind, members, wanted):
    extract(make(tmp_path, kind), tmp_path / "out", members)
    assert sorted(files_in(tmp_path / "out")) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_not_there_is_told_with_some_that_are(tmp_path, kind):
    refused(make(tmp_path, kind), tmp_path, r"no member su; it holds a.txt", members=["su"])


BAD = [
    "../x",
    "a/../../x",
    "/etc/x",
    "//host/x",
    "C:/x",
    "c:x",
    "..\\x",
    "a\\..\\..\\x",
    "\\x",
    "a/..",
    "x\ny",
    "x:stream",
]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_leave_the_folder_are_refused(tmp_path, kind, name):
    archive = make(tmp_path, kind, {"good.txt": b"1", name: b"2"})
    refused(archive, tmp_path, "Member .* outside the folder")


def test_a_name_with_a_zero_byte_is_refused(tmp_path):
    archive = make(tmp_path, "zip", {"a.txtXb": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"a.txtXb", b"a.txt\0b"))
    refused(archive, tmp_path, "outside the folder or has no usable name")


PIECES = st.sampled_from(["..", ".", "", "a", "b ", "...", "~", "C:", "\\", "/", "é", " ", "x.txt"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.lists(PIECES, min_size=1, max_size=5).map("/".join),
    kind=st.sampled_from(["zip", "tar"]),
)
def test_whatever_the_names_nothing_is_written_outside(tmp_path_factory, name, kind):
    root = tmp_path_factory.mktemp("root")
    out = root / "in" / "out"
    out.mkdir(parents=True)
    archive = make(root, kind, {name or "a": b"1"})
    try:
        found = extract(archive, out)
    except CalcarineError as error:
        assert "\n" not in str(error)
        found = []
    for path in found:
        assert path.resolve().is_relative_to(out.resolve()) and path.read_bytes() == b"1"
    outside = [p for p in root.rglob("*") if p.is_file() and not p.is_relative_to(out)]
    assert outside == [archive]


@given(st.text(max_size=30))
def test_an_accepted_name_stays_inside_however_it_is_joined(name):
    if member_is_inside(name):
        for system in (Path("/data/out"), Path("out")):
            joined = os.path.normpath(system / name)
            assert joined.startswith(os.path.normpath(system) + os.sep)
        import ntpath

        joined = ntpath.normpath(ntpath.join("D:\\out", name))
        assert joined.startswith("D:\\out\\")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../../secret", "sub/../../x"])
def test_links_out_of_the_folder_are_refused(tmp_path, kind, link):
    archive = make_tar(tmp_path, entry("good"), entry("sub/bad", kind, link))
    refused(archive, tmp_path, "Member sub/bad .* (leaves the folder|not a file in it)")


def test_a_file_is_not_written_through_a_link_of_the_archive(tmp_path):
    archive = make_tar(tmp_path, entry("d", tarfile.SYMTYPE, "/tmp"), entry("d/x"))
    refused(archive, tmp_path, "Member")


def test_links_inside_become_copies(tmp_path):
    archive = make_tar(
        tmp_path,
        entry("sub/a"),
        entry("sub/soft", tarfile.SYMTYPE, "a"),
        entry("hard", tarfile.LNKTYPE, "sub/a"),
        entry("soft2", tarfile.SYMTYPE, "./hard"),
    )
    extract(archive, tmp_path / "out")
    names = ("sub/a", "sub/soft", "hard", "soft2")
    assert files_in(tmp_path / "out") == dict.fromkeys(names, b"data")
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_links_in_a_ring_are_refused(tmp_path):
    ring = make_tar(tmp_path, entry("a", tarfile.SYMTYPE, "b"), entry("b", tarfile.SYMTYPE, "a"))
    refused(ring, tmp_path, "leads nowhere")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, kind):
    refused(make_tar(tmp_path, entry("ok"), entry("dev", kind)), tmp_path, "Member dev .* device")


@pytest.mark.parametrize(("mode", "what"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "no file")])
def test_a_zip_entry_that_is_no_file_is_refused(tmp_path, mode, what):
    archive = tmp_path / "made.zip"
    with zipfile.ZipFile(archive, "w") as made:
        bad = zipfile.ZipInfo("bad")
        bad.create_system, bad.external_attr = 3, (mode | 0o777) << 16
        made.writestr(bad, "/etc/passwd")
    refused(archive, tmp_path, f"Member bad .* is {what}")


def test_a_link_that_the_user_made_in_the_folder_is_not_followed_out_of_it(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "sub").symlink_to(elsewhere)
    with pytest.raises(CalcarineError, match="through a link"):
        extract(make(tmp_path, "zip"), out)
    assert list(elsewhere.iterdir()) == [] and sorted(p.name for p in out.iterdir()) == ["sub"]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_there_is_room_for_is_refused(tmp_path, kind, monkeypatch):
    archive = make(tmp_path, kind, {"a": bytes(5000), "b": bytes(5000)})
    refused(archive, tmp_path, "10.0 kB unpacked", most_bytes=9999)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=9999))
    refused(archive, tmp_path, "10.0 kB unpacked")
    monkeypatch.undo()
    extract(archive, tmp_path / "out", ["a"], most_bytes=5000)
    assert files_in(tmp_path / "out") == {"a": bytes(5000)}


def test_links_to_a_large_file_count_as_often_as_they_are_there(tmp_path):
    links = [entry(f"l{i}", tarfile.LNKTYPE, "a") for i in range(9)]
    archive = make_tar(tmp_path, entry("a"), *links, content=bytes(1000))
    refused(archive, tmp_path, "10.0 kB unpacked", most_bytes=5000)


def test_a_compressed_tar_that_declares_much_more_than_it_can_hold_is_not_read_through(tmp_path):
    bomb = entry("bomb")
    bomb.size = 10**15
    archive = tmp_path / "made.tar.gz"
    with gzip.open(archive, "wb") as made:
        made.write(bomb.tobuf() + bytes(2048))
    refused(archive, tmp_path, "1.0 PB unpacked", most_bytes=10**12)


def test_a_zip_that_declares_less_than_it_holds_is_refused(tmp_path):
    archive = make(tmp_path, "zip", {"bomb": bytes(100_000)})
    content = archive.read_bytes()
    real, told = (100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    archive.write_bytes(content.replace(real, told))
    refused(archive, tmp_path, "damaged", most_bytes=1000)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members_are_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    refused(make(tmp_path, kind, {f"{i}": b"" for i in range(11)}), tmp_path, "more than 10 files")
    extract(make(tmp_path, kind, {f"{i}": b"" for i in range(10)}), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "./a"), ("a/b", "a//b"), ("a", "a/b")])
def test_two_members_for_one_place_are_refused(tmp_path, names):
    made = make_tar(tmp_path, *(entry(name) for name in names))
    refused(made, tmp_path, "is there twice|which is a file")
    refused(make(tmp_path, "zip", dict.fromkeys(names, b"x")), tmp_path, "twice|is a file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_a_truncated_archive_is_one_sentence_and_leaves_nothing(tmp_path, kind, share, rng):
    archive = make(tmp_path, kind, {f"{i}": rng.bytes(3000) for i in range(5)})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    refused(archive, tmp_path, "damaged or not a zip or tar")


def test_a_tar_cut_between_two_members_is_damaged(tmp_path):
    archive = make(tmp_path, "tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, tmp_path, "damaged .*without its end")


def test_bytes_after_the_end_of_a_compressed_tar_are_not_read_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_RATIO", 10)
    archive = make(tmp_path, "tar.gz", {"a": b"x"})
    with gzip.open(archive, "ab") as more:
        more.write(bytes(3_000_000))
    refused(archive, tmp_path, "unpacked or more", most_bytes=100_000)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_flipped_bytes_are_found(tmp_path, kind, rng):
    archive = make(tmp_path, kind, {"a": rng.bytes(20_000)})
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(255 - value for value in content[middle : middle + 8])
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path, "damaged")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"BZh9"]))
def test_noise_is_one_sentence(tmp_path_factory, noise, start):
    root = tmp_path_factory.mktemp("noise")
    (root / "made.zip").write_bytes(start + noise)
    with pytest.raises(CalcarineError, match="damaged or not a zip or tar") as caught:
        extract(root / "made.zip", root / "out")
    assert "\n" not in str(caught.value)


def test_an_encrypted_zip_is_one_sentence(tmp_path):
    archive = make(tmp_path, "zip", {"a": b"x" * 50})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path, "encrypted")


def test_other_files_are_not_replaced_but_those_of_the_archive_are(tmp_path):
    archive, out = make(tmp_path, "zip"), tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_bytes(b"mine")
    with pytest.raises(CalcarineError, match=r"a.txt exists and is not"):
        extract(archive, out)
    assert files_in(out) == {"a.txt": b"mine"}
    extract(archive, out, own=[out / "a.txt"])
    assert files_in(out) == FILES
    extract(archive, out)  # the same content is in nobody's way
    assert files_in(out) == FILES


def test_what_a_killed_process_left_is_swept(tmp_path):
    left = tmp_path / "out" / ".made.zip.unpacking"
    left.mkdir(parents=True)
    (left / "a.txt").write_bytes(b"half")
    extract(make(tmp_path, "zip"), tmp_path / "out")
    assert files_in(tmp_path / "out") == FILES


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_write", full)
    refused(make(tmp_path, "zip"), tmp_path, "disk is full")
