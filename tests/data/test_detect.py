"""The detector of our own, on pages whose panels are known because the tests draw them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.panels import Score, matched, measure
from stage3.data.detect import WHOLE_PAGE, Found, OwnDetector, load_detector, or_whole_page, page_confidence
from stage3.data.detect.screens import screens
from stage3.samples import draw_books

SIZE = (820, 1180)
UNEVEN = [(60, 60, 330, 300), (410, 60, 350, 300), (60, 390, 700, 250), (60, 670, 220, 450), (310, 670, 450, 450)]


def art(size, seed):
    """Something like a drawing: soft blobs and some strokes, nothing straight from side to side."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(70, 215, (max(size[1] // 60, 2), max(size[0] // 60, 2), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(8, 40)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 255, 3).tolist()), outline=0, width=3)
    return image


def page(polygons, size=SIZE, paper="white", ink="black", frame=4):
    """A page with panels, each a box (x, y, w, h) or a polygon of four corners, and the boxes around them."""
    image, boxes = Image.new("RGB", size, paper), []
    for seed, shape in enumerate(polygons):
        corners = shape if isinstance(shape[0], tuple) else _corners(shape)
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        image.paste(art(size, seed), (0, 0), mask)
        if frame:
            ImageDraw.Draw(image).line([*corners, corners[0], corners[1]], fill=ink, width=frame, joint="curve")
        xs, ys = np.clip([x for x, _ in corners], 0, size[0]), np.clip([y for _, y in corners], 0, size[1])
        boxes.append((xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)))
    return image, np.array(boxes, dtype=np.float64)


def _corners(box):
    x, y, w, h = box
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def check(image, boxes, least=0.9):
    found = OwnDetector().find(image)
    assert len(found) == len(boxes)
    assert matched(found.boxes, boxes, least) == len(boxes)
    assert (found.confidence >= 0).all()
    assert (found.confidence <= 1).all()
    return found


@pytest.mark.parametrize(
    ("paper", "ink", "frame"),
    [
        ("white", "black", 4),
        ("white", None, 0),
        ("black", "white", 3),
        ("black", None, 0),
        ("#f5e6c0", "black", 4),
        ("#7fb2d9", "black", 4),
    ],
    ids=["frames", "no frames", "black gutters", "black, no frames", "yellowed paper", "colored gutters"],
)
def test_panels_between_gutters_of_any_color(paper, ink, frame):
    found = check(*page(UNEVEN, paper=paper, ink=ink, frame=frame))
    assert found.confidence.min() > 0.6


def test_slanted_gutters_give_the_boxes_around_slanted_panels():
    upper = [[(50, 50), (430, 50), (350, 540), (50, 540)], [(470, 50), (770, 50), (770, 540), (390, 540)]]
    lower = [[(50, 580), (770, 640), (770, 1130), (50, 1130)]]
    check(*page([upper[0], upper[1], *[[(50, 570), (770, 570), (770, 1130), (50, 1130)]]]))
    first = [[(50, 50), (770, 50), (770, 600), (50, 540)]]
    check(*page([*first, *lower]), least=0.85)


def test_panels_that_bleed_off_the_page_reach_its_edge():
    shapes = [(-10, -10, 520, 500), (540, 60, 220, 430), (60, 520, 780, 300), (60, 850, 700, 270)]
    found = check(*page(shapes))
    corner = found.boxes[np.argmin(found.boxes[:, :2].sum(1))]
    assert corner[:2].tolist() == [0, 0]


def test_panels_that_share_a_line_without_a_gutter():
    shapes = [(0, 0, 820, 400), (0, 400, 500, 780), (500, 400, 320, 780)]
    check(*page(shapes, frame=5))


def test_a_scan_with_yellow_paper_uneven_light_and_grain():
    image, boxes = page(UNEVEN)
    values = np.asarray(image).astype(np.float64) * 0.8 + 25
    light = np.linspace(1, 0.86, SIZE[0])[None, :, None] * np.linspace(0.97, 1, SIZE[1])[:, None, None]
    grain = np.random.default_rng(5).normal(0, 7, (SIZE[1], SIZE[0], 1))
    scan = Image.fromarray(np.clip(values * [1, 0.95, 0.8] * light + grain, 0, 255).astype(np.uint8))
    check(scan.filter(ImageFilter.GaussianBlur(0.7)), boxes)


def test_a_page_that_was_scanned_askew():
    image, boxes = page(UNEVEN)
    check(image.rotate(0.8, Image.Resampling.BICUBIC, fillcolor="white"), boxes, least=0.85)


def test_page_numbers_and_text_between_panels_are_none():
    shapes = [(60, 60, 700, 400), (60, 640, 700, 440)]
    image, boxes = page(shapes)
    pen = ImageDraw.Draw(image)
    for line in range(4):
        pen.text((90, 490 + 30 * line), "and so they walked on through the rain for hours", fill="black", font_size=24)
    pen.text((400, 1130), "17", fill="black", font_size=26)
    check(image, boxes)


def test_a_balloon_over_a_gutter_does_not_join_its_panels():
    image, boxes = page([(50, 50, 350, 1080), (430, 50, 340, 1080)])
    ImageDraw.Draw(image).ellipse((330, 300, 500, 480), fill="white", outline="black", width=3)
    check(image, boxes)


SMALL = (410, 590)
TURNS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180)


def _bump(x, y, right, low, to):
    """A drawing whose right side has a bump in the middle, three tenths of its height."""
    start, end = y + 0.35 * (low - y), y + 0.65 * (low - y)
    return [(x, y), (right, y), (right, start), (to, start), (to, end), (right, end), (right, low), (x, low)]


# Panels with a frame, drawings without one, where the last one's right side is, and the confidence of some panels. A
# line counts 1, a drawing at the page's edge 0.8, a ragged end at most a half, of four sides each.
LAYOUTS = {
    "gutters": (
        [(30, 30, 165, 150), (205, 30, 175, 150), (30, 195, 350, 125), (30, 335, 110, 225), (155, 335, 225, 225)],
        [], None, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1},
    ),
    "shared lines": (
        [(0, 0, 410, 200), (0, 200, 250, 390), (250, 200, 160, 390)], [], None, {0: 0.85, 1: 0.9, 2: 0.9},
    ),
    "slanted": (
        [[(25, 25), (215, 25), (175, 270), (25, 270)], [(235, 25), (385, 25), (385, 270), (195, 270)],
         [(25, 285), (385, 285), (385, 565), (25, 565)]],
        [], None, {0: 1, 1: 1, 2: 1},
    ),
    "bleeding": (
        [(0, 0, 255, 245), (270, 30, 110, 215), (30, 260, 380, 150), (30, 425, 350, 135)], [], None,
        {0: 0.9, 1: 1, 2: 0.95, 3: 1},
    ),
    "ragged before a margin": ([(15, 15, 380, 130)], [_bump(15, 165, 345, 575, 385)], 395, {0: 1}),
    "ragged beside it": (
        [(15, 15, 380, 250), (15, 285, 140, 290)], [_bump(175, 285, 360, 575, 399)], 399, {0: 1},
    ),
    "ragged beside a gutter": (
        [(15, 15, 380, 250), (15, 285, 140, 290)], [_bump(175, 285, 340, 575, 370)], 370, {0: 1},
    ),
    "ragged before the edge": ([], [[(0, 0), (410, 0), (410, 250), (0, 250)], _bump(0, 285, 360, 590, 386)], 410,
                               {0: 0.85}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_page_turned_or_mirrored_has_its_panels_to_a_few_pixels(layout):
    framed, loose, right, sure = LAYOUTS[layout]
    image, boxes = page(framed, SMALL)
    for seed, corners in enumerate(loose, len(framed)):
        mask = Image.new("L", SMALL, 0)
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        image.paste(art(SMALL, seed), (0, 0), mask)
        xs, ys = np.array(corners).T
        boxes = np.concatenate([boxes.reshape(-1, 4), [[xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)]]])
    if right:
        boxes[-1, 2] = right - boxes[-1, 0]
    wide, high = SMALL
    x0, y0, x1, y1 = boxes[:, 0], boxes[:, 1], boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    turned = {
        None: (x0, y0, x1, y1),
        Image.Transpose.FLIP_LEFT_RIGHT: (wide - x1, y0, wide - x0, y1),
        Image.Transpose.ROTATE_90: (y0, wide - x1, y1, wide - x0),
        Image.Transpose.ROTATE_180: (wide - x1, high - y1, wide - x0, high - y0),
    }
    for turn in TURNS:
        found = OwnDetector().find(image if turn is None else image.transpose(turn))
        assert len(found) == len(boxes)
        made = np.concatenate([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]], axis=1)
        for n, corners in enumerate(np.stack(turned[turn], axis=1)):
            one = int(np.abs(made - corners).max(axis=1).argmin())
            beyond = (made[one] - corners) * [-1, -1, 1, 1]
            assert beyond.min() >= -2  # nothing is cut off
            assert beyond.max() <= 6.6  # nor is there much of the gutter
            if n in sure:
                assert found.confidence[one] == pytest.approx(sure[n], abs=0.02)
        assert right is None or 0.63 < found.confidence.min() < 0.78


@pytest.mark.parametrize(("blur", "least"), [(10, 0.97), (14, 0.88)])
def test_a_drawing_that_fades_into_the_paper_ends_where_it_is_dense(blur, least):
    image, mask = Image.new("RGB", SMALL, "white"), Image.new("L", SMALL, 0)
    ImageDraw.Draw(mask).rectangle((80, 80, 330, 510), fill=255)
    image.paste(art(SMALL, 3), (0, 0), mask.filter(ImageFilter.GaussianBlur(blur)))
    found = OwnDetector().find(image)
    ((x, y, w, h),) = found.boxes
    beyond = np.array([80 - x, 80 - y, x + w - 330, y + h - 510])
    assert (beyond > 0.8 * blur).all()
    assert (beyond < 1.6 * blur).all()
    assert found.confidence[0] > least


@pytest.mark.parametrize(("share", "right"), [(0.16, 334), (0.22, 344), (0.3, 344)])
def test_a_drawing_that_sticks_out_a_little_of_its_frame_does_not_move_it(share, right):
    image, _ = page([(40, 40, 290, 500)], SMALL)
    mask = Image.new("L", SMALL, 0)
    ImageDraw.Draw(mask).rectangle((290, 200, 342, 200 + 500 * share), fill=255)
    image.paste(art(SMALL, 5), (0, 0), mask)
    for turned, at in ((image, right), (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 410 - right)):
        ((x, _, w, _),) = OwnDetector().find(turned).boxes
        assert (x + w if at > 205 else x) == pytest.approx(at, abs=4)


@pytest.mark.parametrize(("edge", "high"), [(0.62, 40), (0.76, 14)])
def test_a_white_road_that_bleeds_off_the_page_does_not_part_a_panel_that_frames_its_start(edge, high):
    image, _ = page([(40, 60, 380, 470)], SMALL)
    pen, end = ImageDraw.Draw(image), round(43 + edge * 367)
    pen.rectangle((43, 300, 410, 300 + high), fill="white")
    pen.polygon([(end, 300), (410, 262), (410, 340 + high), (end, 300 + high)], fill="white")  # it widens
    for turn in TURNS:
        assert len(OwnDetector().find(image if turn is None else image.transpose(turn))) == 1


@pytest.mark.parametrize(("strokes", "long", "step", "seed"), [(250, 40, 6, 1), (400, 40, 10, 0), (150, 80, 6, 0)])
def test_strokes_that_meet_in_a_line_by_chance_part_no_hatched_panel(strokes, long, step, seed):
    rng, image = np.random.default_rng(seed), Image.new("RGB", SMALL, "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((40, 40, 370, 550), fill="#969696", outline="black", width=4)
    for _ in range(strokes):
        x, y = rng.integers(45, 360), 48 + step * rng.integers(0, 496 // step)
        pen.line((x, y, min(x + long, 366), y), fill="#141414", width=2)
    for turn in (None, Image.Transpose.ROTATE_90):
        assert len(OwnDetector().find(image if turn is None else image.transpose(turn))) == 1


@pytest.mark.parametrize(("radius", "panels"), [(6, 2), (10, 3)])
def test_dense_lettering_without_a_frame_is_no_panel_until_much_of_it_is_solid(radius, panels):
    image, _ = page([(30, 30, 350, 180), (30, 400, 350, 160)], SMALL)
    pen = ImageDraw.Draw(image)
    for line in range(7):
        pen.text((50, 240 + 12 * line), "AND SO THEY WALKED ON AND ON", fill="black", font_size=16)
    for x in (100, 180, 250):
        pen.ellipse((x - radius, 270 - radius, x + radius, 270 + radius), fill="black")
    assert len(OwnDetector().find(image)) == panels


@pytest.mark.parametrize("factor", [0.6, 1.9])
def test_boxes_are_in_pixels_of_the_page_whatever_its_size(factor):
    image, boxes = page(UNEVEN)
    check(image.resize((round(820 * factor), round(1180 * factor)), Image.Resampling.LANCZOS), boxes * factor)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_of_an_image_is_looked_at(mode):
    image, boxes = page(UNEVEN)
    check(image.convert(mode), boxes)


def test_a_tall_strip_is_cut_between_its_panels():
    shapes = [(40, 100 + 700 * i + 60 * (i % 3), 520, 450 + 40 * (i % 4)) for i in range(12)]
    image, boxes = page(shapes, size=(600, 8700), frame=3)
    check(image, boxes)
    edges = screens(image)
    assert edges[0][0] == 0
    assert edges[-1][1] == 8700
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    for _, cut in edges[:-1]:
        assert not any(y < cut < y + h for _, y, _, h in boxes)


def test_a_strip_without_any_gap_is_cut_all_the_same():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6000, 200, 3), dtype=np.uint8))
    edges = screens(noise)
    assert max(bottom - top for top, bottom in edges) <= 6.0 * 200 + 2
    assert sum(bottom - top for top, bottom in edges) == 6000


@pytest.mark.parametrize("color", ["white", "black", "#88aacc"])
def test_a_blank_page_has_no_panels_and_stays_whole(color):
    found = OwnDetector().find(Image.new("RGB", SIZE, color))
    kept, whole = or_whole_page(found, *SIZE)
    assert whole
    assert kept.boxes.tolist() == [[0, 0, *SIZE]]
    assert kept.confidence[0] < WHOLE_PAGE


def test_the_page_confidence_is_what_panels_cover_as_far_as_they_are_certain():
    found = Found(np.array([[0.0, 0, 50, 100], [50, 50, 50, 50]]), np.array([0.8, 0.4]))
    assert page_confidence(found, 100, 100) == pytest.approx(0.5 * 0.8 + 0.25 * 0.4)
    assert or_whole_page(found, 100, 100) == (found, False)
    kept, whole = or_whole_page(found, 200, 200)
    assert whole
    assert len(kept) == 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 260), st.integers(1, 900), st.integers(0, 3), st.integers(0, 10**6))
def test_any_image_gives_boxes_with_area_inside_it(width, height, kind, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        values = np.repeat(np.repeat(values[: height // 16 + 1, : width // 16 + 1], 16, 0), 16, 1)[:height, :width]
    elif kind == 2:
        values[:] = values[:1, :1]
    elif kind == 3:
        values = np.where(values > 250, values, 255).astype(np.uint8)
    found = OwnDetector().find(Image.fromarray(np.ascontiguousarray(values)))
    assert found.boxes.shape == (len(found), 4)
    assert found.confidence.shape == (len(found),)
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] >= 1).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= np.array([width, height]) + 1e-9).all()


def test_the_same_page_gives_the_same_boxes():
    image, _ = page(UNEVEN)
    a, b = load_detector("own").find(image), load_detector().find(image)
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.confidence, b.confidence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "least"),
    [("plain", 0.8), ("bleeding", 0.65), ("borderless", 0.8), ("overlapping", 0.55), ("slanted", 0.8)],
)
def test_drawn_comics_of_every_style_are_mostly_found(style, least, tmp_path):
    draw_books(tmp_path / "set", 2, seed=11, pages=5, style=style)
    total = Score()
    for score in measure(tmp_path / "set", OwnDetector(), ()).values():
        total.true, total.found = total.true + score.true, total.found + score.found
        total.right_5 += score.right_5
    assert total.true > 20
    assert total.f1(total.right_5) >= least
