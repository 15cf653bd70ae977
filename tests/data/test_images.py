"""Images: what is accepted, the exact pixels that come out, and what is refused with which code."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

import stage3
from stage3.data import images
from stage3.data.images import ImageProblem

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (60, 40, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)).resize((400, 600), Image.BICUBIC))


def write(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def pixels(path: Path, **options: Any) -> np.ndarray:
    image = images.open_page(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(ImageProblem) as caught:
        images.open_page(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_come_through_exactly(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.dat", NOISE, format=format)  # the name does not matter
    np.testing.assert_array_equal(pixels(path), NOISE)
    assert images.page_size(path) == (40, 60)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_lossy_formats_equal_pillow(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.dat", SMOOTH, format=format)
    with Image.open(path) as plain:
        np.testing.assert_array_equal(pixels(path), np.asarray(plain.convert("RGB")))


def content(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind)
    return buffer.getvalue()


def png(width: int, height: int, bits: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    body = b"comment\0\0" + zlib.compress(b"\0" * (80 * 2**20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return png(8, 8, 8, 2, b"".join(b"\0" + bytes(24) for _ in range(8)), chunk)


REFUSED: dict[str, tuple[bytes, set[str]]] = {
    "empty": (b"", {"empty"}),
    "html": (b"<!DOCTYPE html><title>404</title>", {"format"}),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"format"}),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {"format"}),
    "pdf": (b"%PDF-1.4\n", {"format"}),
    "fits": (b"SIMPLE  =                    T", {"format"}),
    "psd": (b"8BPS\0\1" + bytes(64), {"format"}),
    "width-0": (png(0, 60, 8, 2, b""), {"corrupt", "too_small"}),
    "one-pixel": (png(1, 1, 8, 2, b"\0abc"), {"too_small"}),
    "one-pixel-wide": (png(1, 65535, 1, 0, b"\0\0" * 65535), {"too_small"}),
    "120-megapixels": (png(12_000, 10_000, 8, 2, b""), {"too_many_pixels"}),  # 120 megapixels, the default cap is 100
    "179-megapixels": (png(17_900, 10_000, 8, 2, b""), {"too_many_pixels"}),
    "thin": (png(4, 65535, 1, 0, b"\0\0" * 65535), {"aspect"}),
    "text-bomb": (text_bomb(), {"corrupt"}),
    "head-only": (content("PNG")[:16], {"corrupt"}),
    **{
        f"truncated-{kind}-{share}": (content(kind)[: len(content(kind)) * share // 100], {"truncated", "corrupt"})
        for kind in ("JPEG", "PNG", "WEBP", "AVIF")
        for share in (10, 50, 99)
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_images_are_refused_with_a_code(case: str, tmp_path: Path) -> None:
    data, codes = REFUSED[case]
    path = tmp_path / "page.jpg"
    path.write_bytes(data)
    assert refused(path) in codes


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"II+\0\x08\0\0\0", "BigTIFF"),
        (b"MM\0+\0\x08\0\0", "BigTIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\n<!DOCTYPE html>", "HTML"),
        (b"%PDF-1.4", "PDF"),
    ],
)
def test_a_format_that_is_not_read_is_named(start: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(start + bytes(200))
    with pytest.raises(ImageProblem, match=f"is .*{name}.*, which is not read: convert it") as caught:
        images.open_page(path)
    assert caught.value.code == "format"


def test_a_real_bigtiff_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", NOISE, big_tiff=True)
    with pytest.raises(ImageProblem, match="is BigTIFF"):
        images.page_size(path)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


TWO_MEGABYTES = zlib.compress(b"\0" * (2 * 2**20))
METADATA = {
    "zTXt": png_chunk(b"zTXt", b"comment\0\0" + TWO_MEGABYTES),
    "iTXt": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TWO_MEGABYTES),
    "iCCP": png_chunk(b"iCCP", b"profile\0\0" + TWO_MEGABYTES),
    "tEXt": png_chunk(b"tEXt", b"comment\0" + b"a" * (2 * 2**20)),
    "damaged-zTXt": png_chunk(b"zTXt", b"comment\0\0" + b"x" * 2000),
    "everything": b"".join(png_chunk(b"zTXt", b"%d\0\0" % i + TWO_MEGABYTES) for i in range(9)),
}


@pytest.mark.parametrize("case", METADATA)
@pytest.mark.parametrize("behind", [False, True])
def test_a_png_with_megabytes_of_metadata_is_sound(case: str, behind: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = write(tmp_path / "plain.png", NOISE, exif=exif).read_bytes()
    at = len(data) - 12 if behind else 33  # before IEND, or behind IHDR
    path = tmp_path / "x.png"
    path.write_bytes(data[:at] + METADATA[case] + data[at:])
    np.testing.assert_array_equal(pixels(path), pixels(tmp_path / "plain.png"))
    assert images.page_size(path) == (60, 40)
    path.write_bytes(path.read_bytes()[:-20])
    if not behind:
        assert refused(path) == "truncated"


def test_texts_of_a_png_count_whether_they_are_packed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stage3.data.image_formats.MAX_METADATA", 2**20)
    plain = write(tmp_path / "plain.png", NOISE).read_bytes()
    for kind in (b"zTXt", b"iTXt"):
        for size, sound in ((2**20 - 99, True), (2**20 + 1, False)):
            texts = (
                [b"a\0\0" + zlib.compress(b"b" * size), b"a\0\0"] if kind == b"zTXt" else [b"a\0\0\0\0\0" + b"b" * size]
            )
            path = tmp_path / f"{kind.decode()}-{size}.png"
            path.write_bytes(plain[:33] + b"".join(png_chunk(kind, text) for text in texts) + plain[33:])
            if sound:
                np.testing.assert_array_equal(pixels(path), pixels(tmp_path / "plain.png"))
            else:
                assert refused(path) == "corrupt"


def test_every_cut_of_a_png_is_noticed(tmp_path: Path) -> None:
    data = content("PNG")
    path = tmp_path / "x.png"
    for length in range(20, len(data), 211):
        path.write_bytes(data[:length])
        assert refused(path) in {"truncated", "corrupt"}


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path: Path) -> None:
    data = content("PNG")
    path = tmp_path / "x.png"
    for position in np.random.default_rng(1).integers(8, len(data), 150).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        refused(path)


def test_a_flipped_jpeg_is_told_apart_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content("JPEG"))
    before = images.file_digest(path)
    flipped = bytearray(content("JPEG"))
    flipped[-40] ^= 1
    path.write_bytes(flipped)
    assert images.file_digest(path) != before
    assert images.file_digest(tmp_path / "gone") == ""


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    side = 30_000
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 1, 0, (b"\0" + bytes(side // 8)) * 100))  # a header is all that may be read
    start = time.process_time()
    assert refused(path) == "too_many_pixels"
    assert time.process_time() - start < 0.1


def test_the_cap_on_pixels_is_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", Image.new("1", (10_000, 9_500)))  # 95 megapixels: Pillow alone would warn
    assert refused(path, max_megapixels=94) == "too_many_pixels"
    assert images.open_page(path, max_megapixels=96).size == (10_000, 9_500)
    assert images.page_size(path) == (10_000, 9_500)
    whole = images.crop(images.open_page(path), (0, 0, 1, 1))
    assert whole.size == (10_000, 9_500)


ORIENTED = {1: (0, 0), 2: (-1, 0), 3: (-1, -1), 4: (0, -1), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1), 99: (0, 0)}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_orientation_is_applied_before_anything_else(format: str, orientation: int, tmp_path: Path) -> None:
    image = np.full((160, 96, 3), 255, np.uint8)
    image[:32, :32] = (255, 0, 0)
    exif = Image.Exif()
    exif[274] = orientation
    path = write(tmp_path / "x", image, format=format, exif=exif)
    turned = (160, 96) if orientation in (5, 6, 7, 8) else (96, 160)
    assert images.page_size(path) == turned
    page = images.open_page(path)
    assert page.size == turned
    column, row = ORIENTED[orientation]  # the corner that the red square went to
    red = np.asarray(page)[row * 8 + 4 * (1 if row == 0 else 0), column * 8 + 4 * (1 if column == 0 else 0)]
    assert red[0] > 200
    assert red[1] < 60
    box = (
        0.0 if column == 0 else 1 - 32 / turned[0],
        0.0 if row == 0 else 1 - 32 / turned[1],
        32 / turned[0],
        32 / turned[1],
    )
    for part in (images.crop(page, box), images.decode_panels(path, [box], short_side=8)[0]):
        assert np.asarray(part)[..., 1].mean() < 30  # boxes are in the space of the upright page


@pytest.mark.parametrize(
    "block", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x01" * 30, b"Exif\0\0"]
)
def test_a_damaged_exif_block_is_ignored(block: bytes, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jpg", NOISE)
    path = write(tmp_path / "x.jpg", NOISE, exif=block)
    np.testing.assert_array_equal(pixels(path), pixels(plain))


def test_cmyk_is_read_also_when_adobe_inverts_it(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # red
    path = write(tmp_path / "x.jpg", cmyk, quality=100)
    assert b"Adobe" in path.read_bytes()[:200]
    adobe = pixels(path).mean((0, 1))
    np.testing.assert_allclose(adobe, [255, 0, 0], atol=4)
    data = path.read_bytes()
    at = data.index(b"\xff\xee")
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :])
    np.testing.assert_array_equal(pixels(plain), pixels(path))  # without the mark: still taken as inverted
    tiff = write(tmp_path / "x.tif", cmyk)
    np.testing.assert_array_equal(pixels(tiff)[0, 0], [255, 0, 0])


def test_gray_of_16_bit_keeps_its_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 60).round().astype(np.uint16).reshape(60, 40)
    expected = np.round(values / 257.0)
    for name in ("x.png", "x.tif"):
        out = pixels(write(tmp_path / name, values))
        np.testing.assert_array_equal(out, np.repeat(expected[..., None], 3, 2))


def test_an_rgb_png_of_16_bit_is_read(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = tmp_path / "x.png"
    path.write_bytes(png(8, 8, 16, 2, rows))
    assert np.abs(pixels(path).astype(int) - np.round(values / 257.0)).max() <= 1


@pytest.mark.parametrize(("mode", "fill"), [("F", 0.5), ("I", 70_000), ("LAB", (50, 0, 0))])
def test_float_lab_and_32_bit_images_are_refused(mode: str, fill: Any, tmp_path: Path) -> None:
    assert refused(write(tmp_path / "x.tif", Image.new(mode, (16, 16), fill))) == "mode"


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, 8:] = (200, 0, 0, 255)
    rgba[8:, 8:, 3] = 128
    expected = np.full((16, 16, 3), 255, np.uint8)
    expected[:8, 8:] = (200, 0, 0)
    expected[8:, 8:] = np.round(255 + (np.array([200, 0, 0]) - 255) * 128 / 255)
    for name in ("x.png", "x.tif"):
        assert np.abs(pixels(write(tmp_path / name, rgba)).astype(int) - expected).max() <= 1
    gray = write(tmp_path / "la.png", Image.fromarray(rgba).convert("LA"))
    assert pixels(gray)[0, 0].tolist() == [255] * 3
    assert pixels(gray)[0, 15].tolist() == [60] * 3  # 200 red is 60 gray
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([9, 9, 9, 0, 200, 0])
    palette.paste(1, (8, 0, 16, 16))
    out = pixels(write(tmp_path / "p.png", palette, transparency=0))
    assert out[0, 0].tolist() == [255] * 3
    assert out[0, 15].tolist() == [0, 200, 0]


def test_a_fully_transparent_page_is_blank(tmp_path: Path) -> None:
    assert refused(write(tmp_path / "x.png", Image.new("RGBA", (16, 16), (9, 9, 9, 0)))) == "blank"


def test_a_one_bit_fax_tiff_is_read(tmp_path: Path) -> None:
    bits = Image.fromarray((NOISE[..., 0] > 128).astype(np.uint8) * 255).convert("1")
    out = pixels(write(tmp_path / "x.tif", bits, compression="group4"))
    np.testing.assert_array_equal(out[..., 0], np.asarray(bits.convert("L")))


@pytest.mark.parametrize(
    ("name", "format"), [("x.gif", "GIF"), ("x.png", "PNG"), ("x.tif", "TIFF"), ("x.webp", "WEBP"), ("x.avif", "AVIF")]
)
def test_the_first_frame_counts(name: str, format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / name, format, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(pixels(tmp_path / name).mean((0, 1)), [255, 0, 0], atol=3)
    assert images.open_page(tmp_path / name).info == {"animated": True}
    (part,) = images.decode_panels(tmp_path / name, [(0, 0, 0.5, 1)], short_side=4, size=(4, 4))
    assert part.info == {"animated": True}
    frames[0].save(tmp_path / name, format)
    assert images.open_page(tmp_path / name).info == {}


def test_a_gif_that_breaks_behind_its_first_frame_is_read_and_said_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])
    path.write_bytes(path.read_bytes()[:-1500])
    assert images.open_page(path).info == {"animated": True}


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.png", NOISE)

    def denied(*_: Any) -> int:  # a mode of 000 stops nobody who tests as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refused(path) == "unreadable"
    assert images.file_digest(path) == ""


@pytest.mark.skipif(os.name == "nt", reason="no such files on Windows")
@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing"])
def test_what_is_no_regular_file_never_blocks(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    assert refused(path) == ("missing" if kind == "missing" else "not_a_file")


def test_a_nul_in_a_path_is_a_missing_file() -> None:
    with pytest.raises(ImageProblem, match="missing"):
        images.open_page("a\0b.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP"])
def test_truncated_images_can_be_read_as_far_as_they_go(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", np.asarray(Image.fromarray(SMOOTH).resize((800, 1200))), format=format, interlace=0)
    whole = pixels(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path) in {"truncated", "corrupt"}
    image = images.open_page(path, truncated=True)
    assert image.info["truncated"] is True
    (part,) = images.decode_panels(path, [(0, 0, 1, 1)], short_side=30, truncated=True)
    assert part.info == {"truncated": True}
    rows = slice(-100, None) if format == "BMP" else slice(0, 100)  # a BMP begins at the bottom
    np.testing.assert_array_equal(np.asarray(image)[rows], whole[rows])
    assert not images.open_page(write(tmp_path / "y.png", NOISE), truncated=True).info


def test_pillows_process_wide_settings_are_never_touched() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for module in pkgutil.walk_packages(stage3.__path__, "stage3."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (89478485, False)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    good = write(tmp_path / "g.jpg", SMOOTH)
    expected = pixels(good)
    bad = tmp_path / "b.jpg"
    bad.write_bytes(good.read_bytes()[:3000])
    wrong: list[str] = []

    def work(truncated: bool) -> None:
        for _ in range(15):
            if not np.array_equal(np.asarray(images.open_page(good, truncated=truncated)), expected):
                wrong.append("good")
            try:
                images.open_page(bad, truncated=truncated)
                if not truncated:
                    wrong.append("accepted")
            except ImageProblem:
                if truncated:
                    wrong.append("refused")

    threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- crops ---

BOXES = np.array([[x, y, 0.48, 0.31] for y in (0.01, 0.34, 0.67) for x in (0.01, 0.51)])


def resized(crops: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(c.resize((224, 224), Image.BICUBIC)) for c in crops]).astype(np.float64)


def test_fast_crops_stay_close_to_plain_ones(tmp_path: Path) -> None:
    drawn = Image.fromarray(RNG.integers(0, 256, (24, 16, 3), dtype=np.uint8)).resize((1988, 3057), Image.NEAREST)
    path = write(tmp_path / "x.jpg", drawn, quality=88)
    page = images.open_page(path)
    plain = resized([images.crop(page, b) for b in BOXES])
    crops = images.decode_panels(path, BOXES, short_side=224)
    assert all(2 * 224 <= min(c.size) < 500 for c in crops)  # decoded small, but not too small
    assert np.abs(resized(crops) - plain).mean() <= 3
    sized = images.decode_panels(path, BOXES, short_side=224, size=(224, 224))
    assert {c.size for c in sized} == {(224, 224)}
    assert np.abs(resized(sized) - plain).mean() <= 1


def test_small_panels_are_never_decoded_below_what_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", SMOOTH)
    box = (0.1, 0.1, 0.25, 0.25)  # 100 x 150 pixels
    assert images.decode_panels(path, [box], short_side=101)[0].size == (100, 150)
    assert images.decode_panels(path, [box], short_side=26)[0].size == (100, 150)
    assert images.decode_panels(path, [box], short_side=25)[0].size == (50, 75)
    assert images.decode_panels(path, [box, (0, 0, 1, 1)], short_side=30)[0].size == (100, 150)
    assert images.decode_panels(path, [], short_side=60) == []


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (0.999, 0.999, 0.001, 0.001), (0.5, 0.25, 0.25, 0.5), (0.2, 0.9, 0.8, 0.3)]
)
def test_a_crop_is_the_boxs_pixels(box: tuple[float, ...], tmp_path: Path) -> None:
    page = Image.fromarray(NOISE)
    out = np.asarray(images.crop(page, box))
    x0, y0 = min(round(box[0] * 40), 39), min(round(box[1] * 60), 59)
    x1, y1 = min(max(round((box[0] + box[2]) * 40), x0 + 1), 40), min(max(round((box[1] + box[3]) * 60), y0 + 1), 60)
    np.testing.assert_array_equal(out, NOISE[y0:y1, x0:x1])
    turned = images.crop(page.transpose(Image.Transpose.TRANSPOSE), (box[1], box[0], box[3], box[2]))
    np.testing.assert_array_equal(np.asarray(turned), out.swapaxes(0, 1))


def test_thumbnails_fit_and_encode(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", SMOOTH)
    assert images.thumbnail(path, None, 60).size == (40, 60)
    assert images.thumbnail(path, (0.5, 0, 0.5, 0.25), 100).size == (100, 75)
    assert images.thumbnail(path, (0.5, 0, 0.5, 0.25), 1000).size == (200, 150)  # never enlarged
    for format in ("PNG", "JPEG", "WEBP"):
        data = images.encode(images.thumbnail(path, None, 60), format)  # type: ignore[arg-type]
        with Image.open(io.BytesIO(data)) as again:
            assert (again.format, again.size) == (format, (40, 60))
