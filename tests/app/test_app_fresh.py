"""Nothing that is kept in memory answers for anything else: in one server, another input gives another output.

And every parameter of an address opens its view with a value that is not the default.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import app_support
import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import shell
from app.charts import pages, theme
from app.parts import export, panel
from app.store import loaders, map_jobs, thumbs, watch
from app.views import losses, map_compare, map_parts
from app.views import page as page_view
from stage3.evaluate import evaluation_report
from stage3.runs import RunFolder

pytestmark = pytest.mark.slow
UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setattr(map_jobs, "ensure", lambda *_, **__: map_jobs.Job("running"))  # no child is started


def the(name: str, step: int | None = None) -> shell.Chosen:
    run = loaders.entry(name).run
    return shell.Chosen(name, run, loaders.resolve_step(run, step), name.startswith("samples"))


def early_and_best() -> tuple[shell.Chosen, shell.Chosen]:
    """Two checkpoints of one run."""
    run = loaders.entry("samples/first").run
    best = loaders.resolve_step(run, None)
    other = next(s for s in loaders.steps(run) if s != best)  # the earliest
    return the("samples/first", other), the("samples/first", best)


def test_every_result_of_a_checkpoint_is_that_of_its_own():
    early, best = early_and_best()
    for make in (
        lambda c: loaders.fingerprint(c.run, c.step),
        lambda c: loaders.embedded(c.run, c.step).panel.tolist(),
        lambda c: [p.sum().item() for p in loaders.load_model(c.run, c.step).parameters()],
        lambda c: loaders.panel_frame(c.run, c.step)["loss_total"].dropna().tolist(),
        lambda c: loaders.diagnosis(c.run, c.step).numbers,
        lambda c: id(loaders.added(c.run, c.step)),  # a share of so few panels may well be the same
        lambda c: loaders.evaluation(c.run, c.step)["retrieval/i2t_mrr"],
        lambda c: panel.unit_embeddings(c).tolist(),
        lambda c: panel.nearest(c, np.array([13]), 5)[1].tolist(),
        lambda c: map_jobs.pca_positions(c.run, c.step).tolist(),
        lambda c: map_parts.joined(c, loaders.panel_frame(c.run, c.step), None)["loss_total"].dropna().tolist(),
    ):
        first, second = make(early), make(best)
        assert first != second
        assert make(early) == first


def test_runs_on_one_data_set_hold_it_once(tmp_path):
    first = the("samples/first").run
    again = RunFolder.load(shutil.copytree(first.path, tmp_path / "again"))
    tables = [loaders.open_dataset(run).table for run in (first, again, the("runs/other").run)]
    assert tables[0] is tables[1] is not tables[2]


def test_an_evaluation_is_of_the_split_that_is_asked_for():
    run = the("samples/first").run
    found = {split: loaders.evaluation(run, split=split) for split in ("test", "val", "all", None)}
    assert [found[s]["split"] for s in ("test", "val", "all", None)] == ["test", "val", "all", "test"]
    for split in ("val", "all"):
        direct = evaluation_report(run, split=split, data=loaders.open_dataset(run))
        assert found[split]["retrieval/i2t_r5"] == direct["retrieval/i2t_r5"]
        assert found[split]["retrieval/t2i_mrr"] == direct["retrieval/t2i_mrr"]


def test_a_comparison_the_other_way_round_has_the_other_signs():
    first, second = the("samples/first").run, the("runs/second").run
    one, other = (loaders.comparison(*pair).table.set_index("metric") for pair in ((first, second), (second, first)))
    metric = "retrieval/i2t_mrr" if "retrieval/i2t_mrr" in one.index else "retrieval/i2t_r5"
    assert one.loc[metric, "first"] == other.loc[metric, "second"] != one.loc[metric, "second"]
    assert one.loc[metric, "difference"] == pytest.approx(-other.loc[metric, "difference"])
    assert one.loc[metric, "difference"] == pytest.approx(one.loc[metric, "second"] - one.loc[metric, "first"])
    assert one.loc[metric, "low"] == pytest.approx(-other.loc[metric, "high"])


def test_neighbors_are_as_many_as_asked_for_of_the_panels_asked_for():
    chosen = the("samples/first")
    frame, rows = loaders.panel_frame(chosen.run), loaders.embedded(chosen.run).rows.numpy()
    z = loaders.embedded(chosen.run).panel.numpy().astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    for row, k in ((13, 3), (13, 5), (90, 3)):
        cosine = z @ z[rows.tolist().index(row)]
        cosine[rows.tolist().index(row)] = -2
        best = np.argsort(-cosine, kind="stable")[:k]
        found, near = panel.nearest(chosen, np.array([row]), k)
        assert found.tolist() == [rows[best].tolist()]
        np.testing.assert_allclose(near[0], cosine[best], atol=1e-6)
    assert panel.positions_of(chosen, np.array([6, 7, 8])).tolist() == [6, -1, 7]
    assert frame.loc[7, "modality"] == "nothing"


def test_thumbnails_are_of_their_kind_row_size_and_run():
    of_panel = thumbs.image("samples/first", "panel", 8, 160)
    others = [
        thumbs.image("samples/first", "page", 8, 160),
        thumbs.image("samples/first", "panel", 9, 160),
        thumbs.image("samples/first", "panel", 8, 96),
        thumbs.image("runs/other", "panel", 8, 160),
    ]
    assert len({of_panel, *others}) == 5
    assert thumbs.image("samples/first", "panel", 8, 160) == of_panel
    frame = loaders.panel_frame(the("samples/first").run)
    page = Image.open(Path("data/samples/pages/b002p000.png"))  # page 8
    seen = Image.open(io.BytesIO(others[0])).convert("RGB")
    small = np.asarray(page.convert("RGB").resize(seen.size), float)
    assert np.abs(small - np.asarray(seen, float)).mean() < 12
    assert frame.loc[8, "page"] == 2
    focus = [panel.page_image(the("samples/first"), 2, at, 360)[0] for at in (0, 1)]
    assert focus[0] != focus[1]


def test_two_maps_are_of_their_two_checkpoints_in_their_order():
    early, best = early_and_best()
    second, other = the("runs/second"), the("runs/other")
    _, _, kept = map_compare.overlap(best, second)
    _, _, kept_early = map_compare.overlap(early, second)
    assert kept.tolist() != kept_early.tolist()
    here, there = map_compare.common(best, other)  # other comics: book names coincide, so some ids do
    back, forth = map_compare.common(other, best)
    ids = {
        c.id: loaders.panel_frame(c.run)["panel_id"].loc[loaders.embedded(c.run).rows.numpy()] for c in (best, other)
    }
    for a, b, ca, cb in ((here, there, best, other), (back, forth, other, best)):
        assert ids[ca.id].iloc[a].tolist() == ids[cb.id].iloc[b].tolist()
    assert len(here) == len(back) > 0
    assert here.tolist() != there.tolist()


def test_a_split_is_the_one_that_the_run_recorded():
    run = RunFolder.load("runs/second")
    kept = (run.path / "data.json").read_bytes()
    before = loaders.open_dataset(run).split.copy()
    record = json.loads(kept)
    books = record["books"]
    books["test"], books["val"] = books["val"], books["test"]
    (run.path / "data.json").write_text(json.dumps(record), encoding="utf-8")
    os.utime(run.path / "data.json", ns=(1, 1))
    try:
        after = loaders.open_dataset(run).split
        assert after.tolist() == [{0: 0, 1: 2, 2: 1}[s] for s in before.tolist()]
        frame = loaders.panel_frame(run)
        assert frame["split"].map({"train": 0, "val": 1, "test": 2}).tolist() == after[frame["page"]].tolist()
    finally:
        (run.path / "data.json").write_bytes(kept)
    assert loaders.open_dataset(run).split.tolist() == before.tolist()


def test_features_and_texts_are_those_of_the_settings():
    run = the("samples/first").run
    base = loaders.open_dataset(run)
    said = RunFolder(run.path, run.config.replace(text_parts="dialogue"))
    assert loaders.data_key(said.config) != loaders.data_key(run.config)
    assert not np.array_equal(loaders.open_dataset(said).features.text_rows, base.features.text_rows)
    others = {"split_seed": 9, "val_fraction": 0.3, "test_fraction": 0.1, "keep_labels": ("story",), "crop_fit": "pad"}
    others |= {"vision_backbone": "resnet18", "text_backbone": "minilm", "max_panels": 3, "panel_format": "ocr"}
    keys = {loaders.data_key(run.config.replace(**{name: value})) for name, value in others.items()}
    assert len(keys | {loaders.data_key(run.config)}) == len(others) + 1


def test_a_data_set_whose_description_changes_is_read_again():
    run = the("runs/other").run
    about = Path("data/others/dataset.yaml")
    text = about.read_text(encoding="utf-8")
    assert set(loaders.panel_frame(run)["page_type"]) == {"story", "narrative"}
    version = loaders.data_version(run)
    about.write_text(text.replace("labels: labels.json\n", ""), encoding="utf-8")
    watch.forget()
    try:
        assert set(loaders.panel_frame(run)["page_type"]) == {""}
        assert loaders.data_version(run) != version
    finally:
        about.write_text(text, encoding="utf-8")
        watch.forget()
    assert set(loaders.panel_frame(run)["page_type"]) == {"story", "narrative"}
    assert loaders.data_version(run) == version


def test_what_a_run_is_worth_follows_its_best_checkpoint():
    run = RunFolder.load("runs/second")
    kept = (run.path / "best.json").read_bytes()
    before = loaders.result(run)
    other = next(s for s in loaders.steps(run) if s != run.best().step)
    (run.path / "best.json").write_text(json.dumps(json.loads(kept) | {"step": other}), encoding="utf-8")
    os.utime(run.path / "best.json", ns=(1, 1))
    try:
        rows = run.metrics()
        at = rows[(rows["split"] == "val") & (rows["step"] == other)].iloc[0]
        after = loaders.result(run)
        assert after["loss/total"] == at["loss/total"] != before["loss/total"]
    finally:
        (run.path / "best.json").write_bytes(kept)


def test_a_figure_is_of_its_numbers_names_and_axes():
    matrix = np.array([[0.1, 0.9], [0.2, 0.8]])
    first = pages.similarities(matrix, ["a", "b"], ["c", "d"], axes=("image", "text"))
    assert pages.similarities(matrix, ["a", "b"], ["c", "d"], axes=("image", "text")) is first
    for changed in (
        pages.similarities(matrix.T.copy(), ["a", "b"], ["c", "d"], axes=("image", "text")),
        pages.similarities(matrix, ["b", "a"], ["c", "d"], axes=("image", "text")),
        pages.similarities(matrix, ["a", "b"], ["d", "c"], axes=("image", "text")),
        pages.similarities(matrix, ["a", "b"], ["c", "d"], axes=("text", "image")),
    ):
        assert changed.to_json() != first.to_json()
    assert theme.kept(("a", 1), theme.go.Figure) is not theme.kept(("a", 2), theme.go.Figure)


def test_the_gap_is_of_the_run_and_its_best_step():
    run = the("samples/first").run
    source = losses.Source("first", loaders.metrics(run), loaders.metrics_key(run))
    early, best = early_and_best()
    tables = [losses._gap_table(source, c.step).set_index("loss")["val_best"] for c in (early, best)]
    rows = source.frame[source.frame["split"] == "val"].set_index("step")
    for table, chosen in zip(tables, (early, best), strict=True):
        assert table["total"] == rows.loc[chosen.step, "loss/total"]
    assert tables[0]["total"] != tables[1]["total"]


# --- addresses


def opened(view: str, **params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in {"view": view, **params}.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception
    return app


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.markdown) for e in kind)


def decoded(value):
    """What a chart's specification holds for an array."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
    return value


@pytest.mark.parametrize("view", ["runs", "map", "search", "page", "losses", "retrain", "data"])
def test_a_run_and_a_step_of_an_address_are_the_ones_that_a_view_shows(view):
    run = loaders.entry("runs/other").run
    best = loaders.resolve_step(run, None)
    step = next(s for s in loaders.steps(run) if s != best)
    app = opened(view, run="runs/other", step=step)
    assert app.selectbox(key="_run_choice").value == "runs/other"
    assert app.selectbox(key="_step_choice").value == step
    assert "weights 0.5 / 1.5 / 0.75  ·  τ 0.2 / 0.05" in said(app)
    assert app.session_state["_chosen"].step == step


def test_a_step_of_an_address_without_a_run_is_of_the_run_that_is_shown():
    early, _ = early_and_best()
    app = opened("runs", step=early.step)
    assert (app.session_state["_chosen"].id, app.session_state["_chosen"].step) == ("samples/first", early.step)
    for step in ("99999", "x" * 21):
        app.query_params["step"] = step
        app.run()
        shown = app.session_state["_chosen"].step
        assert f"step={step[:20]} in the address is no checkpoint of first; step {shown} is shown." in said(app)
        assert "step" not in app.query_params
    assert "in the address" not in said(app.run()), "once is enough"
    other = opened("runs", run=f"runs/{'x' * 96}", step=early.step)
    assert f"There is no run 'runs/{'x' * 95}' here" in said(other)  # a long name is cut
    assert "step" not in other.query_params, "it was of that run"


@pytest.mark.parametrize(
    ("view", "params", "whys"),
    [
        ("page", {"page": "x"}, ["page=x in the address is not the number of a page"]),
        ("page", {"page": 1, "panel": 3}, ["panel=3 in the address is not on this page"]),
        ("search", {"panel": "x"}, ["panel=x in the address is not the number of a panel"]),
        ("map", {"mode": "two", "with": "runs/nobody"}, ["with=runs/nobody in the address is no other run"]),
        ("losses", {"with": "runs/nobody"}, ["with=runs/nobody in the address names a run that is not here"]),
        (
            "runs",
            {"pick": "runs/a", "with": "b"},
            ["pick=runs/a in the address is no run", "with=b in the address is no"],
        ),
        ("retrain", {"job": "runs/nobody"}, ["runs/nobody: no such run"]),
        ("retrain", {"job": "samples/first"}, ["job=samples/first in the address is a run that was not started here"]),
        (
            "maps",
            {"with": "runs/second", "lasso": "right:-9,-9;9,-9;9,9", "tab": "x"},
            [
                "view=maps in the address is none of runs, map,",
                "with in the address needs mode=two",
                "was drawn on the right one of two maps",
                "tab=x in the address is not known here",
            ],
        ),
    ],
)
def test_what_an_address_asks_for_in_vain_is_said(view, params, whys):
    words = said(opened(view, run="samples/first", **params))
    assert [why for why in whys if why not in words] == [], words


def test_a_page_shows_the_losses_and_ranks_of_the_step_of_the_address():
    early, best = early_and_best()
    shown = {}
    for chosen in (early, best):
        table = opened("page", run="samples/first", page=5, step=chosen.step).dataframe[0].value
        frame = loaders.panel_frame(chosen.run, chosen.step)
        part = frame[frame["page"] == 5]
        for column, digits in (("loss_total", 3), ("rank_i2t", 0), ("rank_t2i", 0)):
            assert table[column].tolist() == ["–" if np.isnan(v) else f"{v:.{digits}f}" for v in part[column]]
        shown[chosen.step] = table["loss_total"].tolist()
    assert shown[early.step] != shown[best.step]
    frame = loaders.panel_frame(best.run)
    assert frame.loc[frame["page"] == 5, "rank_i2t"].tolist() != frame.loc[frame["page"] == 5, "rank_t2i"].tolist()


def test_the_lists_of_a_page_are_those_of_its_own_data_set(monkeypatch):
    monkeypatch.setattr(page_view, "id", lambda _: 1, raising=False)  # which an object may have after another has gone
    for name, books, pages_of in (("samples/first", 8, 4), ("runs/other", 7, 3)):
        app = opened("page", run=name, page=2 * pages_of)  # the first page of the third book
        assert app.selectbox(key="page_book").options == [f"book{b:03d}" for b in range(books)]
        assert app.selectbox(key="page_book").value == "book002"
        assert app.selectbox(key="page_row").options == [f"page{p:03d}" for p in range(pages_of)]
        assert app.selectbox(key="page_row").value == 2 * pages_of


def test_a_comparison_of_the_address_names_its_two_runs_in_their_order():
    app = opened("runs", pick="runs/second", **{"with": "samples/first"})
    table = next(d.value for d in app.dataframe if list(d.value.columns) == ["setting", "first", "second"])
    values = table.set_index("setting").loc["alignment_weight"]
    assert (values["first"], values["second"]) == ("3.0", "1.0")


def test_retrain_shows_the_job_of_the_address_now_and_the_run_that_it_was_started_from_before():
    before, now = (loaders.entry(n).run for n in ("samples/first", "runs/second"))
    (now.path / "job.json").write_text(json.dumps({"pid": 2**22 - 1, "parent": "samples/first"}), encoding="utf-8")
    app = opened("retrain", job="runs/second")
    (now.path / "job.json").unlink()
    tables = {tuple(d.value.columns): d.value.set_index(d.value.columns[0]) for d in app.dataframe}
    settings = tables["setting", "before", "now"]
    assert settings.loc["alignment_weight"].tolist() == ["1", "3"]
    assert settings.loc["epochs"].tolist() == ["5", "3"]
    compared, tiles = tables["metric", "before", "now", "difference", "verdict"], {m.label: m for m in app.metric}
    expected = loaders.comparison(before, now).table.set_index("metric")
    for label, metric in (
        ("Same-page precision", "retrieval/same_page_r_precision"),
        ("R@5 image → text", "retrieval/i2t_r5"),
        ("R@5 text → image", "retrieval/t2i_r5"),
        ("MRR image → text", "retrieval/i2t_mrr"),
        ("MRR text → image", "retrieval/t2i_mrr"),
    ):
        row = expected.loc[metric]
        words = [f"{row[n]:.2f}" if "mrr" in metric else f"{100 * row[n]:.1f} %" for n in ("first", "second")]
        assert compared.loc[label, ["before", "now"]].tolist() == words
        assert "mrr" not in metric or words[0] != words[1]  # or a swap could not be seen
        if label in tiles:
            assert (tiles[label].value, tiles[label].delta) == (words[1], f"{100 * row['difference']:+.1f} points")
    assert len(tiles) == 4
    lines = [t for c in app.get("plotly_chart") for t in json.loads(c.proto.spec)["data"] if t.get("name")]
    dashed = {t["name"]: float(np.asarray(decoded(t["x"]))[-1]) for t in lines if t["line"]["dash"] == "dash"}
    alone = ("Contrastive, validation", "Alignment, validation")  # their temperatures differ
    assert dashed == {"runs/second": 3, "samples/first (before)": 5} | dict.fromkeys(alone, 3)  # epochs


def test_losses_of_several_runs_of_an_address_are_all_drawn():
    app = opened("losses", **{"with": "runs/other,runs/second"})
    assert app.multiselect(key="losses-with").value == ["runs/other", "runs/second"]
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    drawn = {t["name"] for t in figure["data"] if t.get("name")}
    assert drawn == {f"{n} · {s}" for n in ("samples/first", "runs/other", "runs/second") for s in ("train", "val")}


def test_a_lasso_with_a_filter_takes_exactly_the_panels_that_are_inside_and_pass():
    chosen = the("samples/first")
    rows, xy = loaders.embedded(chosen.run).rows.numpy(), map_jobs.pca_positions(chosen.run, chosen.step)
    frame = loaders.panel_frame(chosen.run)
    middle = float(np.median(xy[:, 0]))
    corners = f"pca:-9,-9;{middle:.4f},-9;{middle:.4f},9;-9,9"
    inside = {int(r) for r, (x, _) in zip(rows, xy, strict=True) if x < middle}
    wanted = [r for r in rows.tolist() if r in inside and frame.loc[r, "book"] in ("book003", "book004")]
    assert any(r != i for i, r in enumerate(rows.tolist()))
    app = opened("map", lasso=corners, filter="book:book003", tab="selection")
    found = [r for r in wanted if frame.loc[r, "book"] == "book003"]
    assert 0 < len(found) < 16
    assert f"{len(found)} panels selected" in said(app)
    cards = next(json.loads(c.proto.json) for c in app.get("bidi_component") if "map-selection-cards" in c.proto.id)
    assert [c["row"] for c in cards["items"]] == found[:12]


def test_a_zip_holds_the_bytes_of_the_rows_that_it_names(monkeypatch):
    chosen = the("samples/first")
    frame = loaders.panel_frame(chosen.run).loc[[89, 13, 7, 18, 12]]  # 7 has nothing, 18 only a text; two share a page
    archive = zipfile.ZipFile(io.BytesIO(export.crops(chosen, frame)))
    crops = {r: f"panels/row-{r:07d}-panel-{int(frame.loc[r, 'order']) + 1}.webp" for r in (89, 13, 12)}
    for row, name in crops.items():
        assert archive.read(name) == thumbs.image("samples/first", "panel", row, 640)
    assert len({archive.read(name) for name in crops.values()}) == 3
    listed = [line.split("\t") for line in archive.read("panels.tsv").decode().splitlines()]
    pages_of = {int(p): f"b{int(p) // 4:03d}p{int(p) % 4:03d}.png" for p in frame["page"]}
    assert listed == [
        ["file", "panel_id", "page_image"],
        *(
            [crops.get(r, "(no_box)"), frame.loc[r, "panel_id"], pages_of[int(frame.loc[r, "page"])]]
            for r in (89, 13, 7, 18, 12)
        ),
    ]
    for name in set(pages_of.values()):
        ours = np.asarray(Image.open(archive.open(name)).convert("RGB"))
        file = np.asarray(Image.open(Path("data/samples/pages") / name).convert("RGB"))
        np.testing.assert_array_equal(ours, file)
    coco = json.loads(archive.read("coco.json"))
    names = {i["id"]: i["file_name"] for i in coco["images"]}
    assert {a["id"] - 1: names[a["image_id"]] for a in coco["annotations"]} == {
        r: pages_of[int(frame.loc[r, "page"])] for r in crops
    }
    monkeypatch.setattr(export, "MAX_IMAGES", 2)
    few = zipfile.ZipFile(io.BytesIO(export.crops(chosen, frame))).read("panels.tsv").decode().splitlines()
    left_out = "(3 more panels left out: an export has at most 2)"
    assert few == [*("\t".join(row) for row in listed[:3]), left_out]


def test_values_of_a_filter_are_those_of_its_column():
    app = opened("map")
    frame = loaders.panel_frame(the("samples/first").run)
    for column in ("book", "page_type", "split"):
        assert app.multiselect(key=f"map_filter_{column}").options == sorted(frame[column].unique())
