"""Whatever JSON a page holds, a reader either gives sound panels or says why not."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stage3.data.readers import READERS, DataSource, PageProblem
from stage3.data.readers.boxes import four
from stage3.data.readers.jsonfile import parse
from stage3.data.readers.rules import PageInfo, finish, flatten

pytestmark = pytest.mark.slow

NUMBERS = st.one_of(
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.integers(-50, 1100),
    st.floats(-0.5, 1.5),
    st.sampled_from([0, 1, 1000, 1e308, -1e308, "500", " 7 ", "nan", "1e999", "１２", "1_0", True, None]),
)
BOX = st.one_of(st.lists(NUMBERS, min_size=4, max_size=4), st.lists(NUMBERS, max_size=6), st.text(max_size=12))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
BOX_FIELDS = ("box_2d", "box", "bbox", "rcnn_bbox", "vlm_box_px", "vlm_box_2d")
OTHER_FIELDS = ("panel_number", "description", "text", "text_content", "speakers", "caption", "modality_mask")
FIELDS = {**dict.fromkeys(BOX_FIELDS, st.one_of(BOX, ANYTHING)), **dict.fromkeys(OTHER_FIELDS, ANYTHING)}
PANEL = st.one_of(st.fixed_dictionaries({}, optional=FIELDS), ANYTHING)
PAGE = st.one_of(
    st.fixed_dictionaries(
        {"panels": st.one_of(st.lists(PANEL, max_size=6), ANYTHING)},
        optional={
            "image_width": NUMBERS,
            "image_height": NUMBERS,
            "overall_summary": ANYTHING,
            "canonical_id": ANYTHING,
        },
    ),
    ANYTHING,
)


def source(style: str, box_order: str = "yxyx") -> DataSource:
    return DataSource("x", Path(), Path("m.csv"), Path("p"), style, box_order=box_order)


@pytest.mark.parametrize("style", sorted(READERS))
@given(
    value=PAGE, size=st.sampled_from([(0, 0), (200, 300), (1988, 3057)]), box_order=st.sampled_from(["yxyx", "xyxy"])
)
@example(value={"panels": [{"bbox": [1e308, 1e308, 1e308, 1e308]}]}, size=(200, 300), box_order="yxyx")
@example(value={"panels": [{"box_2d": [0, 0, 5e-324, 5e-324]}]}, size=(200, 300), box_order="yxyx")
@settings(max_examples=80, deadline=None)
def test_any_json_gives_sound_panels_or_a_reason(style: str, value: Any, size: tuple[int, int], box_order: str) -> None:
    info = PageInfo("b/1", lambda: size, lambda code, detail: None)
    try:
        raw = READERS[style].page(value, source(style, box_order), info.note)
        panels, page_size = finish(raw, info, 4)
    except PageProblem:
        return
    assert 1 <= len(panels) <= 4
    assert len({p.source_index for p in panels}) == len(panels)
    assert all(0 <= p.source_index < len(raw.panels) for p in panels)
    assert all(side >= 0 for side in page_size)
    for panel in panels:
        for text in (panel.dialogue, panel.description, panel.speakers):
            assert text == text.strip() or len(text) in (500, 10_000)
            text.encode()  # no lone surrogate is left
        if panel.box is None:
            assert panel.dialogue or panel.description
        else:
            x, y, w, h = np.array(panel.box, np.float32)
            assert all(math.isfinite(v) for v in (x, y, w, h))
            assert x >= 0 and y >= 0 and w > 0 and h > 0  # noqa: PT018 - one statement about one box
            assert x + w <= 1 + 1e-6
            assert y + h <= 1 + 1e-6
    flatten(raw.summary).encode()


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_bytes_parse_or_give_a_reason(data: bytes) -> None:
    with contextlib.suppress(PageProblem):
        parse(data)


@given(ANYTHING)
@settings(max_examples=80, deadline=None)
def test_what_json_writes_parses_to_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert json.dumps(parse(text.encode())) == text


@given(BOX)
@settings(max_examples=100, deadline=None)
def test_a_box_is_four_finite_floats_or_a_reason(value: Any) -> None:
    made, problem = four(value)
    assert (made is None) == bool(problem)
    if made is not None:
        assert len(made) == 4
        assert all(isinstance(v, float) and math.isfinite(v) for v in made)
