"""Archives and XML that mean harm, or are damaged: entries are left out and counted, names never become paths."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from import_world import boxes, cbz, manifest, png, report, tree_bytes, write

from stage3.data.importers import import_comics, trees
from stage3.errors import DataError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def counts(out: Path, source: Path) -> dict[str, int]:
    found: dict[str, int] = report(out)["sources"][str(source)]["counts"]
    return found


def test_z01_names_never_become_paths(tmp_path: Path, out: Path) -> None:
    """`..`, absolute paths, drives, backslashes, links, names that occur twice; sound pages beside them stay."""
    source = tmp_path / "in" / "B.cbz"
    source.parent.mkdir()
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("../evil.png", png())
        archive.writestr("/abs.png", png())
        archive.writestr("C:\\windows.png", png())
        archive.writestr("a/../../b.png", png())
        archive.writestr(link, "/etc/passwd")
        archive.writestr("ok\\2.png", png((60, 80)))
        archive.writestr("ok/1.png", png((50, 70)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("ok/1.png", png((90, 90)))
        archive.writestr("new\nline.png", png())
        archive.writestr("__MACOSX/ok/._1.png", b"junk")
    import_comics(source, out)
    assert list(manifest(out)) == ["B/1", "B/2"]
    assert boxes(out, "B/1") == [(0.0, 0.0, 50.0, 70.0)]  # the first of two names
    assert counts(out, source) == {"archive_name": 5, "archive_link": 1, "archive_twice": 1}
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(name.startswith(("out/", "in/")) for name in made)
    assert {row["absolute_image_path"] for row in manifest(out).values()} == {"images/B/1.png", "images/B/2.png"}


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("CON.png", "B/CON_"),
        ("a<b>|c?.png", "B/a_b__c_"),
        ("x" * 300 + ".png", None),
        ("dots...png", "B/dots"),
        ("é\u0301.png", "B/\u00e9\u0301"),
        (".hidden.png", "B/hidden"),
        ("page.jpg.png", "B/page_jpg"),
    ],
)
def test_ids_are_file_names_on_every_system(member: str, name: str | None, tmp_path: Path, out: Path) -> None:
    import_comics(cbz(tmp_path / "B.cbz", {member: png()}), out)
    (page_id,) = manifest(out)
    assert page_id == name or (name is None and len(page_id) <= 90 and "~" in page_id)
    assert (out / "panels" / f"{page_id}.json").is_file()


def test_z02_members_that_grow_a_hundredfold_are_left_out(tmp_path: Path, out: Path) -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + bytes(30 * 2**20)
    source = cbz(tmp_path / "B.cbz", {"1.png": png(), "2.png": bomb})
    assert source.stat().st_size < 100_000
    import_comics(source, out)
    assert list(manifest(out)) == ["B/1"]
    assert counts(out, source) == {"archive_ratio": 1}


def test_z02_archives_over_the_total_are_refused(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_TOTAL", 1000)
    source = cbz(tmp_path / "B.cbz", {"1.png": png(), "2.png": png((300, 300))}, zipfile.ZIP_STORED)
    with pytest.raises(DataError, match=r"B\.cbz: .* GB unpacked, more than .* GB"):
        import_comics(source, out)


def overlapping(path: Path, copies: int) -> Path:
    """A bomb whose entries all are one member: each directory entry points to the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("0.png", png((100, 100)))
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entry = data[start:end]
    entries = b"".join(entry.replace(b"0.png", f"{k}.png".encode(), 1) for k in range(copies))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, copies, copies, len(entries), start, 0)
    path.write_bytes(data[:start] + entries + tail)
    return path


def test_z03_overlapping_entries_are_refused_whatever_python_reads(tmp_path: Path, out: Path) -> None:
    source = overlapping(tmp_path / "B.cbz", 5)
    with pytest.raises(DataError, match="its entries overlap"):
        import_comics(source, out)


def test_z04_a_lying_size_a_wrong_checksum_and_a_cut_stream_cost_that_page_alone(tmp_path: Path, out: Path) -> None:
    noise = bytes(range(256)) * 4
    source = cbz(
        tmp_path / "B.cbz", {f"{k}.png": png((40 + k, 60)) for k in range(4)} | {"z.bin": noise}, zipfile.ZIP_STORED
    )
    data = bytearray(source.read_bytes())
    size = len(png((40, 60)))
    local = data.index(b"PK\x03\x04")
    central = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, size - 10)  # 0.png: smaller than it is
    struct.pack_into("<I", data, local + 22, size - 10)
    at = data.index(b"1.png") + 5 + 40
    data[at] ^= 0xFF  # 1.png: other bytes than its checksum says
    source.write_bytes(bytes(data))
    made = import_comics(source, out)
    assert list(manifest(out)) == ["B/2", "B/3"]
    assert made.left_out == {"archive_entry_damaged": 2}


def test_z04_passwords_archives_within_and_what_is_no_image(tmp_path: Path, out: Path) -> None:
    inner = cbz(tmp_path / "inner.zip", {"1.png": png()}).read_bytes()
    members = {
        "1.png": png(),
        "2.png": png((9, 9)),
        "in.zip": inner,
        "in.cbr": b"Rar!",
        "3.jpg": b"<html>",
        "4.png": b"",
    }
    source = cbz(tmp_path / "B.cbz", members)
    data = bytearray(source.read_bytes())
    for at in (data.index(b"PK\x03\x04", 50) + 6, data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4) + 8):
        data[at] |= 1  # 2.png: encrypted
    source.write_bytes(bytes(data))
    made = import_comics(source, out)
    assert list(manifest(out)) == ["B/1"]
    assert counts(out, source) == {"archive_password": 1, "archive_nested": 2}
    assert made.left_out == {"image:format": 1, "image:empty": 1}


def test_z04_more_than_ten_thousand_entries_are_refused(tmp_path: Path, out: Path) -> None:
    source = cbz(tmp_path / "B.cbz", {f"{k}.txt": b"" for k in range(10_001)}, zipfile.ZIP_STORED)
    with pytest.raises(DataError, match="10,001 entries, more than 10,000"):
        import_comics(source, out)


def test_z05_tar_rar_7z_and_pdf_are_refused_with_the_way_to_convert(tmp_path: Path, out: Path) -> None:
    tar = tmp_path / "a.cbt"
    with tarfile.open(tar, "w") as archive:
        info = tarfile.TarInfo("../x.png")
        info.size = len(png())
        archive.addfile(info, io.BytesIO(png()))
    for name, data, remedy in (
        ("a.cbt", tar.read_bytes(), "7z x"),
        ("b.cbz", tar.read_bytes(), "CBT \\(tar\\) is not read"),  # what it is, its bytes say
        ("c.cbr", b"Rar!\x1a\x07\x01\x00" + bytes(99), "unar"),
        ("d.cbz", b"Rar!\x1a\x07\x01\x00" + bytes(99), "CBR \\(RAR\\) is not read"),
        ("e e.cb7", b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z x 'e e.cb7' -o'e e'"),
        ("f.pdf", b"%PDF-1.7\n", "pdftoppm"),
        ("g.cbz", b"nothing", "no ZIP archive, although its name says so"),
        ("h.epub", cbz(tmp_path / "x.zip", {"a.txt": b"x"}).read_bytes(), "ebook-convert"),
    ):
        with pytest.raises(DataError, match=f"{name}: .*{remedy}"):
            import_comics(write(tmp_path / name, data), out)
    (tmp_path / "x.zip").unlink()
    real = cbz(tmp_path / "zip-inside.cbr", {"1.png": png()})  # a ZIP by another name is one
    made = import_comics(tmp_path, tmp_path.parent / f"{tmp_path.name}-out")
    assert [done.id for done in made.pages] == ["zip-inside/1"]
    assert len(made.sources[str(tmp_path)].unread) == 8
    assert import_comics(real, out).pages[0].id == "zip-inside/1"


def test_z06_xml_with_a_dtd_expands_nothing(tmp_path: Path, out: Path) -> None:
    layers = "".join(
        f'<!ENTITY a{k} "{"&a" + str(k - 1) + ";" if k else "ha"}{"&a" + str(k - 1) + ";" if k else "ha"}">'
        for k in range(30)
    )
    for number, head in enumerate((f"<!DOCTYPE book [{layers}]>", '<!DOCTYPE book SYSTEM "file:///etc/passwd">')):
        folder = tmp_path / f"in{number}"
        write(folder / "B" / "000.jpg", png())
        write(folder / "B.xml", f'{head}<book title="&a29;"><pages><page index="0"><frame/></page></pages></book>')
        with pytest.raises(DataError, match=r"B\.xml: has a DTD or entities, which are refused"):
            import_comics(folder, out)


def test_a_damaged_archive_among_others_is_named_and_the_others_are_imported(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    good = cbz(folder / "good.cbz", {"1.png": png()})
    write(folder / "bad.cbz", good.read_bytes()[:-30])
    write(folder / "empty.cbz", b"")
    cbz(folder / "words.cbz", {"readme.txt": b"hello"})
    made = import_comics(folder, out)
    assert [done.id for done in made.pages] == ["good/1"]
    assert sorted(code for code, _ in made.sources[str(folder)].unread) == [
        "archive_damaged",
        "archive_damaged",
        "archive_unrecognized",
    ]
    before = tree_bytes(out)
    import_comics(folder, out)
    assert tree_bytes(out) == before
