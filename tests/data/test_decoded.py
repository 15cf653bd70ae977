"""Decoded images take bounded memory: few at a time, converted in strips that change nothing, and in silence."""

from __future__ import annotations

import io
import random
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from stage3.data import decoded, images
from stage3.data.images import ImageProblem


def noise(mode: str, size: tuple[int, int] = (37, 53)) -> Image.Image:
    rng = np.random.default_rng(3)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    bands = {"RGBA": 4, "LA": 2, "RGB": 3, "L": 1, "CMYK": 4}.get(mode, 3)
    values = rng.integers(0, 256, (*size[::-1], bands), dtype=np.uint8)
    if mode == "P":
        image = Image.fromarray(values).quantize(16)
        image.info["transparency"] = 3
        return image
    return Image.fromarray(values.squeeze() if bands == 1 else values, mode if mode in ("CMYK", "LA") else None)


def at_once(image: Image.Image) -> np.ndarray:
    """The rule in one piece: on white, or a 257th of 16 bits."""
    if image.mode == "I;16":
        gray = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.stack([gray] * 3, axis=2)
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layered).convert("RGB"))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "RGB", "CMYK"])
@pytest.mark.parametrize("strip", [1, 200, 10_000])
def test_strips_give_what_the_whole_image_gives(monkeypatch, mode, strip):
    monkeypatch.setattr(decoded, "STRIP", strip)
    image = noise(mode)
    expected = at_once(image)
    assert np.array_equal(np.asarray(decoded.rgb(image, "x")), expected)
    assert expected.std() > 20


def test_an_image_is_blank_only_if_every_strip_is(monkeypatch):
    monkeypatch.setattr(decoded, "STRIP", 40)
    image = Image.new("RGBA", (20, 20), (5, 5, 5, 0))
    with pytest.raises(ImageProblem, match="transparent everywhere"):
        decoded.rgb(image, "x")
    image.putpixel((3, 17), (5, 5, 5, 1))
    assert decoded.rgb(image, "x").size == (20, 20)


def test_images_in_work_have_few_pixels_together_and_a_large_one_is_alone(monkeypatch):
    monkeypatch.setattr(decoded, "MOST_PIXELS", 100)
    sizes = [(5, 5), (9, 9), (20, 20), (5, 5), (5, 4), (30, 2), (7, 7), (20, 20)] * 3
    lock, now, seen = threading.Lock(), [], []

    def work(size):
        def decode(turn):
            turn.take(size)
            with lock:
                now.append(size)
                seen.append(list(now))
            threading.Event().wait(0.002)
            with lock:
                now.remove(size)

        decoded.in_turn(decode)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == len(sizes)
    assert all(len(at) == 1 or sum(w * h for w, h in at) <= 100 for at in seen)
    assert max(map(len, seen)) > 1
    assert not decoded._taken


def test_a_turn_ends_with_its_error():
    def fail(turn):
        turn.take((10, 10))
        raise ImageProblem("corrupt", "x")

    with pytest.raises(ImageProblem):
        decoded.in_turn(fail)
    assert not decoded._taken


@pytest.mark.skipif(sys.platform != "linux", reason="libtiff is a library of its own on Linux only")
def test_damaged_tiffs_say_nothing_on_standard_error(tmp_path, capfd):
    rng, refused = random.Random(0), 0
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "group4"):
        buffer = io.BytesIO()
        noise("RGB", (90, 90)).convert("1" if compression == "group4" else "RGB").save(
            buffer, "TIFF", compression=compression
        )
        for _ in range(8):
            data = bytearray(buffer.getvalue())
            for _ in range(20):
                data[rng.randrange(8, len(data))] = rng.randrange(256)
            (tmp_path / "a.tif").write_bytes(data)
            try:
                images.open_page(tmp_path / "a.tif")
            except ImageProblem:
                refused += 1
    assert refused > 10
    assert capfd.readouterr().err == ""
