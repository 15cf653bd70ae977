"""Colors that can be told from the page: every scale, in both themes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from app.charts import maps, theme
from app.components import HERE

SCALES = {"light": (theme.ORDERED_LIGHT, theme.LIGHT), "dark": (theme.ORDERED_DARK, theme.DARK)}


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def luminance(color: np.ndarray) -> float:
    """Relative luminance of WCAG 2.2."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast(rgb("#000000"), rgb("#FFFFFF")) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#FFFFFF")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("name", SCALES)
def test_every_color_of_a_scale_has_a_contrast_of_three_to_the_page_and_to_a_card(name):
    stops, look = SCALES[name]
    colors = np.array([rgb(c) for c in stops])
    between = [np.array([np.interp(t, range(len(stops)), colors[:, k]) for k in range(3)])
               for t in np.linspace(0, len(stops) - 1, 101)]  # fmt: skip
    for page in (look.paper, look.panel):
        assert min(contrast(c, rgb(page)) for c in between) >= 3
    light = [luminance(c) for c in between]
    assert np.all(np.diff(light) > 0), "from dark to light all the way, so that it also works in gray"


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_chooses_the_scale_and_numbers_are_drawn_without_paling(monkeypatch, dark):
    monkeypatch.setattr(theme, "is_dark", lambda: dark)
    scale = theme.ordered()
    assert tuple(c for _, c in scale) == (theme.ORDERED_DARK if dark else theme.ORDERED_LIGHT)
    values = pd.Series([0.0, 1.0, np.nan], name="trust")
    figure = maps.scatter(np.arange(3), np.eye(3)[:, :2], values, maps.COLORINGS["trust"], (0, 1, 0, 1))
    numbers = next(t for t in figure.data if t.marker.colorscale is not None)
    assert numbers.marker.opacity == 1
    assert numbers.marker.colorscale[0][1] == scale[0][1]


def test_as_many_colors_as_are_asked_for():
    assert [len(theme.categorical(n)) for n in (None, 3, 8, 9, 25)] == [8, 3, 8, 9, 25]
    assert theme.categorical(3) == theme.categorical()[:3]
    assert len(set(theme.categorical(12))) == 12


def test_a_group_has_one_hue_in_both_themes():
    def hue(color: str) -> complex:
        red, green, blue = rgb(color)
        made = complex(red - (green + blue) / 2, (green - blue) * 3**0.5 / 2)
        return made / abs(made)

    for light, dark in zip(theme.OKABE_ITO, theme.OKABE_ITO_DARK, strict=True):
        assert abs(hue(light) - hue(dark)) < 0.2, light  # 11 degrees


def test_no_chart_names_a_scale_of_its_own():
    """A named scale of Plotly's has ends that vanish in one of the themes."""
    for path in (HERE.parent / "charts").glob("*.py"):
        assert not re.search(r"colorscale\W+[\"'][A-Za-z]", path.read_text(encoding="utf-8")), path


def test_a_hovered_dot_is_told_below_its_image_and_not_by_plotly_too():
    figure = maps.scatter(
        np.arange(2), np.eye(2), pd.Series([0.1, 0.9], name="trust"), maps.COLORINGS["trust"], (0, 1, 0, 1),
        hover=["page <b>1</b>", "page 2"],
    )  # fmt: skip
    assert figure.data[0].hoverinfo == "none"
    assert list(figure.data[0].text) == ["page <b>1</b>", "page 2"]
    script = Path(HERE / "hover.js").read_text(encoding="utf-8")
    assert "label.textContent" in script
    assert "innerHTML" not in script


@pytest.mark.parametrize("dark", [False, True])
def test_a_chart_has_the_colors_of_its_theme(dark, monkeypatch):
    monkeypatch.setattr(theme, "is_dark", lambda: dark)
    own, colors = (theme.DARK, theme.OKABE_ITO_DARK) if dark else (theme.LIGHT, theme.OKABE_ITO)
    sent = theme.style(go.Figure(go.Scatter(y=[1, 2])), height=111, title="ours").to_plotly_json()["layout"]
    assert (sent["height"], sent["title"], sent["uirevision"]) == (111, {"text": "ours"}, "keep")
    common = sent["template"]["layout"]
    assert common["paper_bgcolor"] == common["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert common["font"] == {"family": theme.FONT, "size": 13, "color": own.text}
    assert tuple(common["colorway"]) == colors
    assert common["hoverlabel"]["bgcolor"] == own.panel
    assert common["hoverlabel"]["bordercolor"] == own.grid
    assert common["hoverlabel"]["font"]["color"] == own.text
    assert common["modebar"] == {"bgcolor": "rgba(0,0,0,0)", "color": own.quiet, "activecolor": own.accent}
    legend = common["legend"]
    assert (legend["orientation"], legend["x"], legend["y"], legend["yanchor"]) == ("h", 0, 1, "bottom")
    assert (common["title"]["x"], common["title"]["xanchor"]) == (0, "left")
    for axis in (common["xaxis"], common["yaxis"]):
        assert axis["gridcolor"] == axis["zerolinecolor"] == axis["linecolor"] == own.grid
        assert axis["tickfont"]["color"] == axis["title"]["font"]["color"] == own.quiet
        assert axis["ticklabeloverflow"] == "allow"
    assert common["xaxis"]["title"]["standoff"] < common["yaxis"]["title"]["standoff"]
    assert set(sent["template"]["data"]) == set(theme.TRACES)


def test_a_chart_takes_no_look_from_the_one_before(monkeypatch):
    monkeypatch.setattr(theme, "is_dark", lambda: False)
    first = theme.bare(theme.style(go.Figure(), height=100))
    first.layout.template.layout.font.color = "#123456"
    again = theme.style(go.Figure(), height=200)
    assert again.layout.template.layout.font.color == theme.LIGHT.text
    assert again.layout.xaxis.visible is None
