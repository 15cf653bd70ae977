"""What a page shows along its rows and columns, on images of which it is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stage3.data.detect.maps import PAD, STRIP, Maps, page_maps

SIDE = 200


def noise(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A drawing without any even place."""
    return np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)


def maps_of(values: np.ndarray) -> Maps:
    return page_maps(Image.fromarray(values), 1.0)


def seen(values: np.ndarray, top: int, low: int, left: int, right: int) -> float:
    """The share of a block, without its rims, that is background."""
    return float(maps_of(values).across.pixels[top + 2 : low - 2, left + 2 : right - 2].mean())


@pytest.mark.parametrize("rise", [-4, -2, 0, 2, 4])
def test_an_edge_that_leans_is_seen_over_the_whole_strip(rise: int) -> None:
    rows, columns = np.mgrid[:128, :96]
    values = np.where(rows > 64 + rise * (columns - 48) / STRIP, 250, 5).astype(np.uint8)
    across = maps_of(values).across
    inner = across.edge[:, PAD:-PAD]
    assert across.edge.shape == (96 / STRIP, 128 + 2 * PAD)
    assert (across.edge[:, :PAD] == 0).all()
    assert (across.edge[:, -PAD:] == 0).all()
    for strip, center in enumerate(across.centers.tolist()):
        assert center == STRIP * strip + STRIP / 2
        row = 64 + rise * (center - 48) / STRIP
        best = np.flatnonzero(inner[strip] == inner[strip].max())
        assert inner[strip].max() > 0.85
        assert np.abs(best - row).max() <= 3 + abs(rise)
        assert (inner[strip][np.abs(np.arange(128) - row) > 8 + 2 * abs(rise)] == 0).all()
    x, y, strength = across.peaks
    np.testing.assert_allclose(y, 64 + rise * (x - 48) / STRIP, atol=2.5)
    assert sorted(set(x.tolist())) == across.centers.tolist()
    assert (strength > 0.85).all()
    down = maps_of(values).down
    assert down.edge.max() < 0.6  # it does not run that way
    assert not len(down.peaks[0])


@pytest.mark.parametrize("rise", [0, -2, 2])
def test_edges_by_loops_over_pixels(rise: int) -> None:
    """Within two pixels of a change of 24 over two pixels downwards, along the best of five slopes."""
    height, width = 36, 70
    values = np.repeat(np.repeat(noise(9, 14), 4, 0), 5, 1) // 2
    values[20:] += 100
    if rise:  # a line that leans alone
        rows, columns = np.mgrid[:height, :width]
        values = np.where(rows > 18 + rise * (columns - 35) / STRIP, 250, 5).astype(np.uint8)
    tone = values.astype(int)

    def step(y: int, x: int, down: int, along: int) -> int:
        inside = down <= y < height - down and along <= x < width - along
        return abs(tone[y + down, x + along] - tone[y - down, x - along]) if inside else 0

    on = [
        [(d := step(y, x, 1, 0)) >= 24 and d // 3 * 2 >= step(y, x, 0, 1) for x in range(width)] for y in range(height)
    ]

    def near(y: int, x: int) -> bool:
        return 0 <= y < height and any(on[row][x] for row in range(max(y - 1, 0), min(y + 2, height)))

    own = np.zeros((width // STRIP, height))
    for strip in range(width // STRIP):
        for y in range(height):
            for rise in (-4, -2, 0, 2, 4):
                quarters = [round(rise * (k - 1.5) / 4) for k in range(4)]
                hits = sum(near(y + quarters[i // 4], strip * STRIP + i) for i in range(STRIP))
                own[strip, y] = max(own[strip, y], hits / STRIP)
    wider = [[row[max(y - 1, 0) : y + 2].max() for y in range(height)] for row in own]
    across = maps_of(values).across
    np.testing.assert_allclose(across.edge[:, PAD:-PAD], wider)
    peaks = [
        (STRIP * strip + STRIP / 2, y, own[strip, y])
        for strip in range(len(own))
        for y in range(height)
        if own[strip, y] >= 0.6
        and (y == 0 or own[strip, y] >= own[strip, y - 1])
        and (own[strip, y] > (own[strip, y + 1] if y + 1 < height else 0))
    ]
    assert len(peaks) > (0 if rise else 5)
    np.testing.assert_allclose(np.stack(across.peaks, axis=1), peaks)


def test_a_turned_page_shows_the_same_the_other_way_around() -> None:
    values = noise(90, 140)
    values[20:50, 30:120] = 240
    values[60:64] = 10
    one, other = maps_of(values), maps_of(np.ascontiguousarray(values.T))
    assert one.size == (140, 90)
    assert other.size == (90, 140)
    for a, b in ((one.across, other.down), (one.down, other.across)):
        for name in ("edge", "background", "pixels", "tone"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(one.across.pixels, one.down.pixels.T)
    shares = [one.across.pixels[:, start : start + STRIP].mean(axis=1) for start in range(0, 140 - STRIP + 1, STRIP)]
    np.testing.assert_allclose(one.across.background[:, PAD:-PAD], shares, atol=1e-6)


@pytest.mark.parametrize(
    ("tone", "share", "counts"),
    [
        (250, 0.0, True),  # paper, wherever it is
        (228, 0.02, False),
        (20, 0.05, True),
        (20, 0.03, False),
        (200, 0.05, True),
        (128, 0.16, True),
        (128, 0.12, False),
    ],
)
def test_background_is_paper_or_holds_so_much_of_the_rim(tone: int, share: float, counts: bool) -> None:
    rim = 4 * 3 * SIDE - 4 * 3 * 3  # pixels: three rows and columns along each side
    along = max(round(share * rim / 3), 24)
    for flip in (slice(None), slice(None, None, -1)):
        values = noise()
        values[60 : 60 + along, : SIDE // 2] = tone
        if not share:
            values[:, : SIDE // 8] = noise()[:, : SIDE // 8]
        turned = np.ascontiguousarray(values[:, flip])
        pixels = maps_of(turned).across.pixels[:, flip]
        inside = pixels[62 : 58 + along, SIDE // 8 + 2 : SIDE // 2 - 2]
        assert inside.mean() == (1 if counts else 0)
        assert pixels[:55].mean() < 0.02


def test_a_patch_of_less_than_two_percent_is_no_background_and_two_tones_are() -> None:
    values = noise()
    values[50:75, 50:75] = 250
    assert seen(values, 50, 75, 50, 75) == 0
    values[50:80, 50:90] = 250
    assert seen(values, 50, 80, 50, 90) == 1
    values[100:120] = 20
    assert seen(values, 100, 120, 0, SIDE) == 1
    assert seen(values, 50, 80, 50, 90) == 1
    values[140:156] = 128  # a third one, which holds less
    assert seen(values, 140, 156, 0, SIDE) == 0


def test_paper_under_uneven_light_is_background_all_over() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    for light in (246 - 30 * columns, 246 - 30 * rows, 216 + 30 * rows, 246 - 18 * rows - 18 * columns):
        values = np.rint(light).astype(np.uint8)
        values[60:140, 60:140] = noise()[60:140, 60:140]
        pixels = maps_of(values).across.pixels
        assert pixels[3:57, 3:-3].all()
        assert pixels[143:-3, 3:-3].all()
        assert pixels[62:138, 62:138].mean() < 0.02


@pytest.mark.parametrize("channel", [0, 2])
def test_what_is_as_light_as_the_paper_but_of_another_color_is_no_background(channel: int) -> None:
    paper, other = np.array([230, 240, 200]), np.array([230, 240, 200])
    other[channel] += 25 if channel == 0 else -60
    other[1] = round((0.299 * paper[0] + 0.587 * 240 + 0.114 * paper[2] - 0.299 * other[0] - 0.114 * other[2]) / 0.587)
    values = np.broadcast_to(paper, (SIDE, SIDE, 3)).astype(np.uint8)
    values[60:100, 40:160] = other
    pixels = page_maps(Image.fromarray(values), 1.0).across.pixels
    assert pixels[2:58].all()
    assert not pixels[62:98, 42:158].any()
