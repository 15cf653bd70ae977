"""The page view by content: the image or its layout, the panels' numbers, similarity, neighbors, paging."""

from __future__ import annotations

import io
import json
from pathlib import Path

import app_images
import app_support
import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import shell
from app.charts import pages
from app.parts import panel
from app.store import loaders, thumbs
from app.views import page as page_view
from stage3.metrics.neighbors import pages_pulled_to, share_below

UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = app_support.world(tmp_path_factory.mktemp("page"))
    (folder / "data" / "samples" / "pages" / "b001p002.png").unlink()
    return folder


@pytest.fixture
def run(small, monkeypatch):
    monkeypatch.chdir(small)
    return loaders.entry("samples/first").run


def opened(**params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "page"
    for name, value in params.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception
    return app


def framed(app: AppTest) -> dict:
    """The data of the page with its frames."""
    return json.loads(next(c for c in app.get("bidi_component") if "page-framed" in str(c.proto)).proto.json)


def said(app: AppTest) -> str:
    kinds = (app.text, app.code, app.subheader, app.caption)
    return "\n".join(str(e.value) for kind in kinds for e in kind)


def test_the_address_names_the_page_and_its_panels_are_listed_in_reading_order(run):
    app = opened(page=7)
    frame = loaders.panel_frame(run)
    part = frame[frame["page"] == 7]
    assert str(part["page_id"].iloc[0]) in said(app)
    assert "page 8 of 32" in said(app)
    table = app.dataframe[0].value
    assert table["n"].tolist() == [1, 2, 3, 4]
    for name in ("loss_contrastive", "loss_alignment", "rank_i2t", "rank_t2i"):
        form = ".0f" if "rank" in name else ".3f"
        assert table[name].tolist() == ["–" if np.isnan(v) else f"{v:{form}}" for v in part[name]], name
    assert not table.isna().any().any()  # an empty number would read "None"
    assert table["text"].tolist() == [t or "(no text)" for t in part["text"]]
    assert [int(u.split("/")[5]) for u in table["image"]] == part.index.tolist()
    assert all(u.startswith("/images/panel/samples/first/") for u in table["image"])
    assert framed(app)["image"].startswith("/images/page/samples/first/7/1200")


def test_a_panel_alone_in_the_address_opens_its_page_with_that_panel_chosen(run, monkeypatch):
    asked = []
    monkeypatch.setattr(shell, "go", lambda view, **params: asked.append((view, params)))
    app = opened(panel=22)
    assert "page 6 of 32" in said(app)
    assert "Panel 3" in [s.value for s in app.subheader]
    frame = loaders.panel_frame(run)
    gates = [f"{name} {100 * frame[f'gate_{name}'][22]:.0f} %" for name in ("image", "text", "box")]
    assert len(set(gates)) == 3
    assert f"Gate: {'   '.join(gates)}   (added" in said(app)
    assert frame["text"][22] in [t.value for t in app.text]
    table = next(d.value for d in app.dataframe if "below" in d.value).set_index("what")
    for name, column in (("Contrastive", "loss_contrastive"), ("Rank i → t", "rank_i2t"),
                         ("Rank t → i", "rank_t2i"), ("Weighted sum", "loss_total")):  # fmt: skip
        values = frame[column].dropna()
        below = ((values < frame[column][22]).sum() + 0.5 * (values == frame[column][22]).sum()) / len(values)
        assert table.loc[name].tolist() == pytest.approx([frame[column][22], 100 * below], rel=1e-5), name
    # each image is that of the panel whose name it has
    (name, own), *near = app_images.shown(app)[:13]
    assert (name, own) == (panel.title_of(frame, 22), app_images.of_panel(run, 22, 360))
    assert name == f"Panel 3 of 4  ·  {frame['page_id'][22]}"
    rows = loaders.embedded(run).rows.numpy()
    z = loaders.embedded(run).panel.numpy().astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosine = z @ z[rows.tolist().index(22)]
    buttons = [b for b in app.button if b.key and b.key.startswith("page-near-")]
    nearest = [rows.tolist().index(int(b.key.split("-")[2])) for b in buttons]
    cosine[rows == 22] = -1
    np.testing.assert_allclose(cosine[nearest], np.sort(cosine)[::-1][:12], atol=1e-6)  # some are equally near
    assert [b.label for b in buttons] == [f"{cosine[at]:.3f}" for at in nearest]
    of_the_book = frame["book"] == frame["book"][22]
    for button, (alt, image), other in zip(buttons, near, rows[nearest].tolist(), strict=True):
        assert alt == f"Panel {frame['order'][other] + 1} of 4  ·  {frame['page_id'][other]}"
        assert image == (app_images.of_panel(run, other, 160) or thumbs.placeholder(160))
        mate, book = frame["page"][other] == 5, of_the_book[other]
        assert button.icon == (":material/check:" if mate else "")
        assert ("same page" if mate else "same book" if book else "another book") in button.help
    app.button(key="page-map").click().run().button(key="page-search").click().run()
    assert asked == [("map", {"panel": 22}), ("search", {"panel": 22})]


def test_a_panels_ranks_say_among_how_many_of_which_split(run):
    frame = loaders.panel_frame(run)
    counts = frame.dropna(subset=["gallery"]).groupby("split")["gallery"].agg(["size", "max"])
    assert len(counts) == 3
    for split, (size, largest) in counts.iterrows():
        assert size == largest
        row = frame[(frame["split"] == split) & frame["gallery"].notna()].index[-1]
        assert f"among the {int(size):,} panels of the {split} split" in said(opened(panel=row))


def test_before_a_choice_the_first_panel_is_shown_and_a_click_in_the_image_chooses_one(run):
    app = opened(page=7)
    assert "Panel 1" in [s.value for s in app.subheader]
    assert "panel" not in app.query_params
    assert framed(app)["focus"] == -1
    assert framed(opened(panel=30))["focus"] == 2
    rows = loaders.panel_frame(run).query("page == 7")
    shown = framed(app)["boxes"]
    assert [box is None for box in shown] == (~rows["has_box"]).tolist() == [False, False, False, True]
    boxes = [box or (np.nan,) * 4 for box in shown]
    np.testing.assert_allclose(boxes, rows[list("xywh")].to_numpy(), atol=1e-6)
    app.button(key="page-correct").click().run()
    assert not app.exception
    edited = json.loads(next(c for c in app.get("bidi_component") if "page-boxes" in c.proto.id).proto.json)
    assert edited["image"].startswith("/images/page/samples/first/7/1200")
    assert [p["box"] is None for p in edited["panels"]] == [box is None for box in shown]
    np.testing.assert_allclose([p["box"] for p in edited["panels"][:3]], boxes[:3], atol=1e-5)


@pytest.mark.parametrize("page", [32, 10**9])
def test_a_page_that_is_not_there_is_said_and_the_first_is_shown(run, page):
    app = opened(page=page)
    assert f"There is no page {page}; this data set has 32 pages" in said(app)
    assert "page 1 of 32" in said(app)


def test_previous_next_and_the_lists_turn_pages(run):
    app = opened()
    assert "in the address" not in said(app)  # to name no page is no mistake
    assert app.button(key="page-previous").disabled
    app.button(key="page-next").click().run()
    assert "page 2 of 32" in said(app)
    assert app.query_params["page"] in ("1", ["1"])
    app.selectbox(key="page_book").set_value("book003").run()
    assert "page 13 of 32" in said(app)
    app.selectbox(key="page_row").set_value(14).run()
    assert "page 15 of 32" in said(app)
    app.button(key="page-previous").click().run()
    assert (app.selectbox(key="page_book").value, app.selectbox(key="page_row").value) == ("book003", 13)
    assert opened(page=31).button(key="page-next").disabled


def test_a_missing_image_becomes_a_drawing_of_the_layout(run):
    row = int(np.flatnonzero(loaders.open_dataset(run).table.pages["page_id"] == "book001/page002")[0])
    app = opened(page=row, panel=4 * row + 1)
    assert "missing or unreadable" in said(app)
    part = loaders.panel_frame(run).query("page == @row")
    assert part["has_box"].all()
    boxes = [tuple(b) for b in part[list("xywh")].to_numpy().tolist()]
    name, layout = app_images.shown(app)[0]
    assert name == "The page with its 4 panels framed and numbered in reading order"
    assert layout == pages.boxed(None, boxes, 1, ratio=0.7, side=1200)
    assert app_images.shown(app)[1] == (panel.title_of(part, 4 * row + 1), thumbs.placeholder(360))
    assert "missing or unreadable" not in said(opened(page=row + 1))


def test_similarities_are_the_cosines_of_the_page(run):
    app = opened(page=7)  # of whose four panels three are embedded
    embedded = loaders.embedded(run)
    at = np.flatnonzero(embedded.page_ids.numpy() == 7)
    z = embedded.panel.numpy()[at].astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    heat, other = (json.loads(chart.proto.spec)["data"][0] for chart in app.get("plotly_chart"))
    shown = np.array([[float(v) for v in row] for row in heat["text"]])
    np.testing.assert_allclose(shown, z @ z.T, atol=0.006)
    part = loaders.panel_frame(run).loc[embedded.rows.numpy()[at]]
    numbers = [str(n + 1) for n in part["order"]]
    assert len(numbers) == 3
    assert heat["x"] == heat["y"] == other["x"] == other["y"] == numbers
    aligned = other["text"]
    assert [all(row[i] == "" for row in aligned) for i in range(3)] == (~part["has_text"]).tolist()


def test_a_page_of_which_no_panel_was_embedded_is_compared_with_nothing(run, monkeypatch):
    monkeypatch.setattr(panel, "positions_of", lambda chosen, rows: np.full(len(rows), -1))
    app = opened(page=9)
    assert "This panel was not embedded." in said(app)
    assert not {"Panel similarity", "Image-text similarity", "Nearest pages"} & {s.value for s in app.subheader}


def test_it_says_where_the_page_is_pulled(run):
    app = opened(page=9)
    embedded = loaders.embedded(run)
    at = np.flatnonzero(embedded.page_ids.numpy() == 9)
    z = embedded.panel.numpy().astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosine = z[at] @ z.T
    cosine[np.arange(4), at] = -2
    near = np.argsort(-cosine, axis=1)[:, :8]
    page_of = embedded.page_ids.numpy()[near]
    own = int((page_of == 9).sum())
    assert f"32 nearest panels: {own} of the 12 page mates" in said(app)
    ids = loaders.open_dataset(run).table.pages["page_id"]
    counts = {int(p): int((page_of == p).sum()) for p in set(page_of.ravel().tolist()) - {9}}
    others = [int(b.key.split("-")[2]) for b in app.button if b.key and b.key.startswith("page-pull-")]
    assert len(others) == 6
    assert [counts[p] for p in others] == sorted(counts.values(), reverse=True)[:6]
    texts = [t.value for t in app.text][-12:]  # an id and the numbers below each
    for page, page_id, numbers, (alt, image) in zip(
        others, texts[::2], texts[1::2], app_images.shown(app)[-6:], strict=True
    ):
        assert page_id == ids[page]
        mean = np.take_along_axis(cosine, near, axis=1)[page_of == page].mean()
        assert numbers == f"{counts[page]} of 32, mean cosine {mean:.2f}"
        assert (alt, image) == (f"Page {page_id}", app_images.of_page(run, page, 240) or thumbs.placeholder(240))


def test_a_click_in_the_table_chooses_the_panel_of_its_row_and_another_one_none(monkeypatch):
    chosen: list[int | None] = []
    monkeypatch.setattr(page_view.panel, "focus_on", chosen.append)
    for picked in ([1], []):
        state = {"table": {"selection": {"rows": picked, "columns": [0], "cells": []}}}
        monkeypatch.setattr(page_view.st, "session_state", state)
        page_view._row_chosen("table", [12, 13, 14])
    assert chosen == [13, None]


def test_a_long_id_of_a_page_keeps_its_end():
    assert page_view.ending("book/" + 39 * "x") == "book/" + 39 * "x"
    assert page_view.ending("book/" + 38 * "x" + "12") == "…ok/" + 38 * "x" + "12"


def test_text_of_data_is_shown_as_text_only(run):
    app = opened(page=0, panel=0)
    assert "<script>alert(1)</script> **bold** =HYPERLINK(1)" in said(app)
    assert not any("script" in m.value or "http:" in m.value for m in app.markdown)


# --- the image


def test_frames_lie_on_their_boxes_and_the_chosen_one_differs():
    page = Image.new("RGB", (400, 600), (200, 200, 200))
    buffer = io.BytesIO()
    page.save(buffer, "WEBP", lossless=True)
    boxes = [(0.1, 0.1, 0.3, 0.2), None, (0.5, 0.5, 0.4, 0.4)]
    made = Image.open(io.BytesIO(pages.boxed(buffer.getvalue(), boxes, focus=2))).convert("RGB")
    assert made.size == (400, 600)
    blue, orange = made.getpixel((110, 61)), made.getpixel((280, 302))
    assert blue[2] > blue[0] + 60
    assert orange[0] > orange[2] + 60
    for at in ((100, 120), (280, 420), (20, 20)):  # what the page shows is seen within its frames
        np.testing.assert_allclose(made.getpixel(at), 200, atol=8)


def test_a_page_without_image_keeps_its_shape():
    made = Image.open(io.BytesIO(pages.boxed(None, [(0.0, 0.0, 1.0, 0.5)], ratio=2.0, side=640)))
    assert made.size == (640, 320)
    assert min(made.convert("RGB").getpixel((400, 80))) > 240
    assert max(made.convert("RGB").getpixel((400, 300))) < 240


# --- numbers


def test_the_share_below_counts_ties_half_and_skips_what_is_undefined():
    values = np.array([1.0, 2.0, 2.0, 4.0, np.nan])
    assert share_below(values, 2.0) == pytest.approx((1 + 1) / 4)
    assert share_below(values, 4.0) == pytest.approx(3.5 / 4)
    assert np.isnan(share_below(values, float("nan")))
    assert np.isnan(share_below(np.full(3, np.nan), 1.0))


def test_pages_pulled_to_are_counted_with_their_mean_cosine():
    page_of_row = np.array([0, 0, 1, 1, 2])
    near = np.array([[1, 2, 3], [0, 4, 2]])
    cosine = np.array([[0.9, 0.8, 0.6], [0.9, 0.5, 0.7]])
    assert pages_pulled_to(0, near, cosine, page_of_row) == [
        (0, 2, pytest.approx(0.9)),
        (1, 3, pytest.approx(0.7)),
        (2, 1, pytest.approx(0.5)),
    ]


def test_neighbors_of_a_panel_never_hold_the_panel(run):
    chosen = shell.Chosen("samples/first", run, loaders.resolve_step(run, None), True)
    rows, cosine = panel.nearest(chosen, np.arange(40), 6)
    assert (rows != np.arange(40)[:, None]).all()
    assert (np.diff(cosine, axis=1) <= 0).all()
