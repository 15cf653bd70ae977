"""The components as the browser gets them, and what becomes of what it sends back: it may be anything."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from app import components

STATE: dict[str, Any] = {}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What each component was declared with and is shown with, by its name; `STATE` is the session's."""
    found: dict[str, dict[str, Any]] = {}

    def component(name: str, **parts: Any) -> Any:
        return lambda **given: found.update({name: parts | given})

    monkeypatch.setattr(components.st, "components", SimpleNamespace(v2=SimpleNamespace(component=component)))
    monkeypatch.setattr(components.st, "session_state", STATE)
    STATE.clear()
    return found


def test_styles_and_scripts_reach_the_whole_page(sent) -> None:
    components.style()
    components.shortcuts("samples/first")
    components.into_view("cards", "7")
    for name, file in (("style", "style.css"), ("keys", "keys.js"), ("into-view", "into_view.js")):
        shown = sent[f"stage3.{name}"]
        assert shown["isolate_styles"] is False
        assert shown[file.rpartition(".")[2]] == (components.HERE / file).read_text(encoding="utf-8")
    assert sent["stage3.keys"]["data"]["run"] == "samples/first"
    assert ["p", "Page"] in sent["stage3.keys"]["data"]["views"]
    assert sent["stage3.into-view"]["data"] == {"target": ".st-key-cards", "token": "7"}


def test_a_click_in_a_page_chooses_a_panel_that_is_there(sent) -> None:
    picked: list[int] = []
    boxes = [(0.1, 0.2, 0.3, 0.4), None, (0.5, 0.6, 0.1, 0.2)]
    about = {"ratio": 0.7, "alt": "a page", "key": "x"}
    for focus, shown in ((None, -1), (0, 0), (2, 2)):
        components.framed_page("/images/1", boxes, focus, **about, on_pick=picked.append)
        data = sent["stage3.page"]["data"]
        assert data == {"image": "/images/1", "boxes": boxes, "focus": shown, "ratio": 0.7, "alt": "a page"}
    for value in (0, 2, 3, -1, True, 1.0, "1", None):
        STATE["x"] = {"pick": value}
        sent["stage3.page"]["on_pick_change"]()
    assert picked == [0, 2]


def test_a_click_on_a_chip_is_one_of_the_chips(sent) -> None:
    picked: list[str] = []
    items = [{"id": "a", "text": "A"}, {"id": "b", "text": "B"}]
    components.chips(items, key="x", on_pick=picked.append, hint="Remove", close=True)
    assert sent["stage3.chips"]["data"] == {"items": items, "hint": "Remove", "close": True, "list": False}
    for value in ("b", "c", None, 0, ["a"]):
        STATE["x"] = {"pick": value}
        sent["stage3.chips"]["on_pick_change"]()
    assert picked == ["b"]


def test_a_zoom_is_four_finite_numbers_or_none_of_a_chart_that_is_there(sent) -> None:
    told: list[tuple[Any, ...]] = []
    components.zoom(["left", "right"], key="x", on_zoom=lambda *given: told.append(given))
    assert sent["stage3.map"]["data"] == {"charts": ["left", "right"]}
    good = {"chart": 1, "range": [0.5, 1, -2, 3.5], "height": 600.4}
    whole = {"chart": 0, "range": None, "height": 200}
    for value in (
        good, whole, None, [good], {}, good | {"chart": 2}, good | {"chart": -1}, good | {"chart": "1"},
        good | {"range": [1, 2, 3]}, good | {"range": "1234"}, good | {"range": [1, 2, 3, "4"]},
        good | {"range": [0, 1, 2, math.inf]}, good | {"range": [math.nan, 1, 2, 3]}, good | {"height": None},
        good | {"height": 199}, good | {"height": 4001},
    ):  # fmt: skip
        STATE["x"] = {"zoom": value}
        sent["stage3.map"]["on_zoom_change"]()
    assert told == [(1, [0.5, 1, -2, 3.5], 600), (0, None, 200)]
    assert type(told[0][2]) is int
    assert set(STATE) == {"x"}, "no error is kept for the page"


def test_addresses_of_images_on_hover_are_what_stands_before_and_after_the_number(sent) -> None:
    components.hover("map", lambda row: f"/panel/{row}/240?v=1", 220, lambda page: f"/page/{page}/360?v=2")
    shown = sent["stage3.hover"]
    assert shown["key"] == "hover-map"
    assert shown["data"] == {
        "chart": "map", "side": 220, "panel": ["/panel/", "/240?v=1"], "page": ["/page/", "/360?v=2"],
    }  # fmt: skip
    components.hover("map", lambda row: f"/panel/{row}/240", 160)
    assert sent["stage3.hover"]["data"] == {"chart": "map", "side": 160, "panel": ["/panel/", "/240"]}


def test_the_editor_of_boxes_is_asked_for_what_a_person_saves(sent) -> None:
    components.box_editor({"panels": []}, "boxes")
    shown = sent["stage3.boxes"]
    assert (shown["key"], shown["data"]) == ("boxes", {"panels": []})
    assert shown["on_save_change"]() is shown["on_revert_change"]() is None


def test_the_icon_is_three_panels_on_nothing() -> None:
    icon = components.icon.__wrapped__()  # drawn now, not kept from before
    blue, orange, green = (0x1F, 0x5F, 0xA8, 255), (0xE6, 0x9F, 0x00, 255), (0x00, 0x9E, 0x73, 255)
    assert icon.size == (64, 64)
    assert [icon.getpixel(at)[3] for at in ((0, 0), (39, 16), (30, 31), (63, 63))] == [0] * 4
    for color, (left, top, right, bottom) in (
        (blue, (4, 4, 36, 28)), (orange, (42, 4, 60, 28)), (green, (4, 34, 60, 60)),
    ):  # fmt: skip
        x, y = (left + right) // 2, (top + bottom) // 2
        edge = [icon.getpixel(at) for at in ((left, y), (right, y), (x, top), (x, bottom))]
        beyond = [icon.getpixel(at)[3] for at in ((left - 1, y), (right + 1, y), (x, top - 1), (x, bottom + 1))]
        assert (edge, beyond) == ([color] * 4, [0] * 4)
