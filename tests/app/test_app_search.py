"""The Search view by content: both directions, every kind of query, refusals, filters, metrics, failures."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from pathlib import Path

import app_images
import app_support
import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import shell
from app.parts import doubt, query
from app.store import loaders
from stage3.data import images
from stage3.search import search_words
from stage3.search.searcher import Searcher

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("search-view"))


@pytest.fixture
def here(small, monkeypatch):
    monkeypatch.chdir(small)
    return small


def opened(**params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "search"
    for name, value in params.items():
        app.query_params[name] = str(value)
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].message
    return app


def words(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.caption) for e in kind)


def lists(app: AppTest) -> list[dict]:
    """What the left and the right list show."""
    found = [json.loads(e.proto.json) for e in app.get("bidi_component") if e.proto.component_name == "stage3.results"]
    return [f for f in found if f["mode"] != "strip"]


def rows(shown: dict) -> list[int]:
    return [i["row"] for i in shown["items"] if not i.get("gap")]


def the_searcher() -> Searcher:
    entry = loaders.entry("samples/first")
    return query.searcher_of(shell.Chosen(entry.id, entry.run, loaders.resolve_step(entry.run, None), True))


def panel_with_both(searcher: Searcher, n: int = 0) -> int:
    frame = searcher.frame
    return int(frame.index[frame["has_image"] & frame["has_text"]][n])


# --- a panel of the set


def test_both_directions_are_shown_side_by_side_with_the_true_match_marked(here):
    searcher = the_searcher()
    row = panel_with_both(searcher, 5)
    app = opened(panel=row)
    assert [len(column.segmented_control) for column in app.columns[:3]] == [1, 0, 0]  # the query is left of the lists
    left, right = lists(app)
    for shown, space, target in ((left, "image", "text"), (right, "text", "image")):
        found = searcher.search(searcher.from_panel(row, space), target, 10)
        assert rows(shown) == found.rows.tolist()
        assert shown["mode"] == target
        match = [i for i in shown["items"] if i.get("tag") == "true match"]
        assert [i["row"] for i in match] == [row]
        if found.match_rank > 10:
            assert match[0]["rank"] == f"{found.match_rank:g}"
        assert f"True match at rank {found.match_rank:g} of {found.gallery:,}." in words(app)
        assert found.compared[1:] in words(app)
    name = f"The query: panel {searcher.frame['order'][row] + 1} of its page"
    image = app_images.of_panel(loaders.entry("samples/first").run, row, 640)
    assert app_images.shown(app) == [(name, image)]
    assert app.query_params["panel"] in (str(row), [str(row)])
    frame, panel = searcher.frame, searcher.frame.loc[row]
    assert panel["text"] in words(app)
    assert f"{panel['page_id']} · panel {panel['order'] + 1} · {panel['split']}" in words(app)
    app.session_state["search_choose"] = True
    checked(app.run())
    book, page = (next(s for s in app.selectbox if s.label == label) for label in ("Book", "Page"))
    assert (book.value, page.value) == (panel["book"], panel["page_id"])
    assert page.options == frame["page_id"][frame["book"] == panel["book"]].unique().tolist()
    strips = [json.loads(e.proto.json) for e in app.get("bidi_component") if "search-strip" in e.proto.id]
    assert [rows(s) for s in strips] == [frame.index[frame["page_id"] == panel["page_id"]].tolist()]
    checked(page.select(page.options[1]).run())
    other = next(name for name in book.options if name != panel["book"])
    checked(book.select(other).run())
    page = next(s for s in app.selectbox if s.label == "Page")
    assert page.options == frame["page_id"][frame["book"] == other].unique().tolist()
    assert page.value == page.options[0]


def test_an_unknown_panel_is_said_and_another_is_shown(here):
    app = opened(panel=999_999)
    assert "There is no panel 999999 in this data set; it has 128 panels." in words(app)
    assert len(lists(app)) == 2


def test_a_panel_without_text_still_has_lists_and_no_true_match(here):
    searcher = the_searcher()
    frame = searcher.frame
    row = int(frame.index[~frame["has_text"]][0])
    app = opened(panel=row)
    assert "the true match is not among them" in words(app)
    assert "(no text)" in words(app)
    assert not any(i.get("tag") == "true match" for shown in lists(app) for i in shown["items"])


def test_a_list_can_compare_other_spaces_and_says_which(here):
    row = panel_with_both(the_searcher())
    app = opened(panel=row)
    box = next(s for s in app.selectbox if s.label == "Right list")
    checked(box.select("Fused → fused panels").run())
    assert "Fused panel embedding against fused panel embeddings: one space." in words(app)
    assert row not in rows(lists(app)[1])
    assert "121 panels searched." in [t.value for t in app.text]  # all but itself; it has no true match of its kind


def test_filters_narrow_both_lists_and_say_how_many_are_searched(here):
    searcher = the_searcher()
    app = opened(panel=panel_with_both(searcher))
    checked(app.multiselect(key="search_filter_book").select("book002").run())
    frame = searcher.frame
    for shown in lists(app):
        found = [i for i in shown["items"] if not i.get("gap")]
        assert {frame["book"][i["row"]] for i in found} == {"book002"}
    with_text = int((frame["has_text"] & (frame["book"] == "book002")).sum())
    assert f"{with_text} panels searched; the true match is not among them." in words(app)
    checked(app.selectbox(key="search_filter_text").select("without").run())
    assert not lists(app)[0]["items"]  # no text is found among panels without one


def test_the_export_of_a_list_is_there_once_its_menu_is_open(here):
    app = opened(panel=panel_with_both(the_searcher()))
    assert not app.get("download_button") or "Export 10 panels" not in words(app)
    app.session_state["search_export_0"] = True
    checked(app.run())
    assert "Export 10 panels" in words(app)
    assert {"Parquet", "CSV", "COCO", "Images"} <= {b.proto.label for b in app.get("download_button")}


# --- words


def test_words_of_an_address_are_searched_and_results_can_become_the_query(here, monkeypatch):
    monkeypatch.setattr(doubt, "of_words", lambda run: f"words of {run.name} are arbitrary")
    searcher = the_searcher()
    app = opened(q="a red circle before blue")
    assert words(app).count("Note: words of first are arbitrary.") == 1  # beside the left list alone
    left, right = lists(app)
    query = searcher.from_words("a red circle before blue")
    assert rows(left) == search_words(searcher, "a red circle before blue").rows.tolist()
    assert rows(right) == searcher.search(query, "image", 10).rows.tolist()
    box = next(s for s in app.selectbox if s.label == "Right list")
    _, right = lists(checked(box.select("Words → texts").run()))
    assert rows(right) == searcher.search(query, "text", 10).rows.tolist()
    best = searcher.frame["text"][rows(right)[0]]
    assert "red" in best or "circle" in best or "blue" in best
    app.session_state["search_kind"], app.session_state["search_panel"] = "panel", rows(left)[0]  # as a click does
    checked(app.run())
    assert app.query_params["panel"] in (str(rows(left)[0]), [str(rows(left)[0])])
    assert "q" not in app.query_params
    assert "are arbitrary" not in words(app)  # of typed words alone
    asked = []
    monkeypatch.setattr(shell, "go", lambda view, **params: asked.append((view, params)))
    checked(app.button(key="search_open").click().run())
    panel = rows(left)[0]
    assert asked == [("page", {"page": int(searcher.frame["page"][panel]), "panel": panel})]


def test_each_card_says_which_ways_found_it_and_the_list_how_many_say_the_words(here):
    searcher = the_searcher()
    says = [i for i, text in enumerate(searcher.frame["text"]) if "circle" in text.split()]
    assert len(says) > 10
    app = opened(q="circles")
    left, _ = lists(app)
    assert set(rows(left)) <= set(says)
    assert all(item["ways"][0] == "word forms" for item in left["items"])
    found = search_words(searcher, "circles")
    for item, ways in zip(left["items"], found.ways, strict=True):
        assert item["ways"][1:] == [f"{name} {ways[name]}" for name in ("text", "image") if name in ways]
        assert 0 < item["bar"] <= 1
    assert f"122 panels searched; {len(says)} panels with all the words." in words(app)
    box = next(s for s in app.selectbox if s.label == "Right list")
    _, right = lists(checked(box.select("Words → words").run()))
    assert rows(right) == says[:10]
    assert (left["mode"], right["mode"]) == ("image", "text")
    assert {tuple(item["ways"]) for item in right["items"]} == {("word forms",)}
    checked(app.text_input(key="search_words").input("zebra").run())
    left, right = lists(app)
    assert len(left["items"]) == 10
    assert right["items"] == []
    assert right["empty"] == "No panel that passes the filters says these words."
    assert app.query_params["q"] in ("zebra", ["zebra"])
    app.session_state["search_export_0"] = True
    checked(app.run())
    assert "Export 10 panels" in words(app)


def test_frequent_words_alone_are_said_to_be_one_phrase(here):
    assert "only very frequent words" in words(opened(q="the of"))


def test_without_a_text_backbone_words_are_still_found_and_the_view_says_what_is_missing(here, monkeypatch):
    searcher = the_searcher()
    monkeypatch.setattr(searcher, "names", ("tiny", "nobody/no-such-model"))
    monkeypatch.delitem(searcher._backbones, "text", raising=False)
    app = opened(q="circle")
    left, _ = lists(app)
    assert all(item["ways"] == ["words"] for item in left["items"])
    assert len(left["items"]) == 10
    assert "only words are searched, not their meaning" in words(app)
    options = next(s for s in app.selectbox if s.label == "Left list").options
    assert options == ["Words → all", "Words → words"]


def test_five_megabytes_of_words_are_refused_in_one_box(here):
    app = opened()
    app.session_state["search_words"] = "  "
    checked(app.segmented_control(key="search_kind").set_value("words").run())
    assert "press Enter" in words(app)
    start = time.process_time()
    app.session_state["search_words"] = "word " * 1_000_000
    checked(app.run())
    assert time.process_time() - start < 5
    assert "This text is longer than 2,000 characters. Shorten it." in words(app)
    assert not lists(app)
    app.session_state["search_words"] = "a red circle"
    checked(app.run())
    assert len(lists(app)) == 2


# --- images


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), "red" if mode == "RGB" else 0).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A one-bit PNG of 900 megapixels in about a hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows_of = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows_of) + chunk(b"IEND", b"")


def upload(app: AppTest, data: bytes, name: str = "mine.png") -> AppTest:
    if app.session_state["search_kind"] != "image":
        checked(app.segmented_control(key="search_kind").set_value("image").run())
    return checked(app.file_uploader[0].set_value((name, data, "image/png")).run())


def test_an_uploaded_crop_finds_its_own_panel_and_only_a_small_copy_is_kept(here, monkeypatch):
    searcher = the_searcher()
    row = panel_with_both(searcher, 3)
    panel = searcher.frame.loc[row]
    page = images.open_page(searcher.data.table.pages["image_path"][panel["page"]])
    crop = images.crop(page, [panel[c] for c in "xywh"])
    app = upload(opened(), images.encode(crop.resize((crop.width * 9, crop.height * 9), Image.Resampling.NEAREST)))
    right = lists(app)[1]
    assert right["items"][0]["row"] == row
    assert right["items"][0]["score"] > 0.95
    _, kept = app.session_state["search_image"]
    assert max(kept.size) <= query.KEPT_SIDE
    assert app_images.shown(app) == [("The query image", images.encode(kept, "WEBP"))]
    assert app.file_uploader[0].value is None  # the file itself is forgotten
    assert "true match" not in words(app)  # an image of elsewhere has none
    monkeypatch.setattr(query, "id", lambda _: 1, raising=False)  # which an object may have after another has gone
    for name in ("runs/second", "samples/first"):
        checked(app.selectbox(key="_run_choice").select(name).run())
        entry = loaders.entry(name)
        own = query.searcher_of(shell.Chosen(name, entry.run, loaders.resolve_step(entry.run, None), False))
        found = own.search(own.from_image(kept), "image", 10)
        assert [(i["row"], i["score"]) for i in lists(app)[1]["items"]] == [
            (row, round(float(score), 4)) for row, score in zip(found.rows.tolist(), found.scores, strict=True)
        ]


HOSTILE = {  # functions, since a bomb takes half a second to make
    "an executable": (lambda: b"MZ\x90\x00" + bytes(500), "It is not a JPEG, PNG, WEBP"),
    "a web page": (lambda: b"<html><img src=http://x>", "It is not a JPEG, PNG, WEBP"),
    "a bomb": (bomb, "more than 50 megapixels"),
    "too large": (lambda: png(8, 8) + bytes(21 * 2**20), "larger than 20 MB"),
    "empty": (lambda: b"", "empty"),
    "cut": (lambda: png(300, 300)[:400], "ends in the middle"),
    "one pixel": (lambda: png(1, 1), "smaller than 4 pixels"),
    "a line": (lambda: png(4, 900), "hundred times"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_image_that_cannot_be_used_is_refused_politely_and_the_session_goes_on(case, here):
    make, reason = HOSTILE[case]
    data = make()
    app = opened()
    start = time.process_time()
    if len(data) > query.MAX_UPLOAD:  # the server refuses these before they arrive; asked directly, so do we
        with pytest.raises(images.ImageProblem) as problem:
            query.take_image(data)
        assert reason in query.refusal(problem.value)
        return
    upload(app, data)
    assert time.process_time() - start < 5
    assert reason in words(app)
    assert not lists(app)
    checked(app.segmented_control(key="search_kind").set_value("panel").run())
    assert len(lists(app)) == 2


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.png", "a\nb.png", "<script>alert(1)</script>.png", "x" * 300 + ".png"]
)
def test_the_name_of_an_upload_is_never_shown_nor_used(name, here):
    app = upload(opened(), png(60, 60), name)
    assert len(lists(app)) == 2
    everything = words(app) + json.dumps(lists(app)) + str(app.session_state["search_image"])
    assert "passwd" not in everything
    assert "alert(1)</script>.png" not in everything
    assert "x" * 100 not in everything


def test_an_image_and_words_are_blended_by_the_slider(here, monkeypatch):
    monkeypatch.setattr(doubt, "of_words", lambda run: "words are arbitrary")
    searcher = the_searcher()
    app = upload(opened(), png(80, 60))
    checked(app.segmented_control(key="search_kind").set_value("both").run())
    assert app.slider(key="search_blend").disabled
    checked(app.text_input(key="search_words").input("a red circle").run())
    _, image = app.session_state["search_image"]
    asked = (searcher.from_image(image), searcher.from_words("a red circle"))
    for weight in (0.5, 0.1, 1.0):
        checked(app.slider(key="search_blend").set_value(weight).run())
        found = searcher.search(searcher.blend(*asked, weight), "image", 10)
        assert rows(lists(app)[0]) == found.rows.tolist()
    assert "blend of an image and a text embedding" in words(app).lower()
    assert words(app).count("Note: words are arbitrary.") == 1


# --- quality


def test_metrics_of_both_directions_come_with_intervals_and_chance(here):
    app = opened()
    table = next(d.value for d in app.dataframe if "chance" in d.value.columns)
    assert len(table) == 8
    from stage3.evaluate import evaluation_report

    report = evaluation_report(loaders.entry("samples/first").run, split="test")
    shown = dict(zip(table.iloc[:, 0], table["value"], strict=True))
    assert shown["R@5  image → text"] == f"{100 * report['retrieval/i2t_r5']:.1f} %"
    assert shown["MRR  text → image"] == f"{report['retrieval/t2i_mrr']:.3f}"
    low, high = report["intervals"]["retrieval/i2t_r10"]
    intervals = dict(zip(table.iloc[:, 0], table["95 % interval"], strict=True))
    assert intervals["R@10  image → text"] == f"{100 * low:.1f} % to {100 * high:.1f} %"
    assert "resampling whole pages" in words(app)


def test_missed_panels_are_listed_with_what_beat_them(here):
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "search"
    app.session_state["search_tabs"] = "Missed panels"
    checked(app.run())
    searcher = the_searcher()
    frame = searcher.frame
    textless = int((~frame["has_text"] & frame["has_image"] & (frame["split"] == "test")).sum())
    metric = {m.label: m.value for m in app.metric}
    assert metric["Textless panels"] == f"{textless:,}"
    panels = loaders.panel_frame(loaders.entry("samples/first").run)
    test = panels[panels["split"] == "test"]
    i2t, t2i = test["rank_i2t"] <= 5, test["rank_t2i"] <= 5
    asked = test["rank_i2t"].notna()
    assert metric["Only image → text"] == str((i2t & ~t2i & asked).sum())
    assert metric["Only text → image"] == str((~i2t & t2i & asked).sum())
    assert metric["Missed both ways"] == str((~i2t & ~t2i & asked).sum()) != "0"
    assert f"Ranks are among {test['gallery'].max():.0f} panels" in words(app)
    reason = app.segmented_control(key="search_reason_test_5")
    checked(reason.set_value("no text").run())
    table = next(d.value for d in app.dataframe if "works" in d.value.columns)
    assert len(table) == textless
    assert (table["text"] == "").all()
    assert "The panel has no text to search with" in words(app)


def test_a_missed_panel_becomes_the_query_in_the_gallery_of_its_rank(here):
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "search"
    panels = loaders.panel_frame(loaders.entry("samples/first").run)
    test = panels[panels["split"] == "test"]
    row = int(test["rank_i2t"].idxmax())
    app.run()

    def use() -> None:
        from app.parts import query

        query.use_panel_within(int(__import__("streamlit").session_state["wanted"]), "test")

    checker = AppTest.from_function(use)
    checker.session_state["wanted"] = row
    checker.run()
    for name in ("search_kind", "search_panel", "search_filter_split", "search_filter_text"):
        app.session_state[name] = checker.session_state[name]
    app.query_params["panel"] = str(row)
    checked(app.run())
    ranks = {"Image → texts": test["rank_i2t"][row], "Text → images": test["rank_t2i"][row]}
    gallery = int(test["gallery"].max())
    shown = [t.value for t in app.text if t.value.startswith("True match at rank")]
    assert shown == [f"True match at rank {rank:g} of {gallery}." for rank in ranks.values()]


# --- size


@pytest.mark.slow
def test_five_thousand_panels_and_a_filter_within_its_time(large):
    app = opened(panel=17)
    frame = loaders.panel_frame(loaders.entry("samples/first").run)
    assert len(frame) > 4000
    said = " ".join(t.value for t in app.text)
    assert f"of {frame['has_text'].sum():,}." in said
    assert f"of {frame['has_image'].sum():,}." in said
    app.multiselect(key="search_filter_book").select("book003").run()  # everything is loaded now
    seconds = []
    for book in ("book004", "book005", "book006"):
        start = time.process_time()
        checked(app.multiselect(key="search_filter_book").select(book).run())
        seconds.append(time.process_time() - start)
    assert np.min(seconds) < 0.5  # the whole page, which a browser does not draw again for a filter
    shown = {frame["book"][i["row"]] for i in lists(app)[1]["items"]}
    assert shown <= {"book000", "book003", "book004", "book005", "book006"}
