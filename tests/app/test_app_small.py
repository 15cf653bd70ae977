"""Small parts of views, each drawn alone on a page of its own from what is handed to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.parts import add_choice, add_train, data_report, embedding, filters, moved, results, strip, waiting
from app.store import embeds, imports, jobs, map_jobs
from app.views import retrain
from stage3.config import Config
from stage3.errors import StorageError
from stage3.model.outlook import Outlook
from stage3.projection.files import Job


def texts(app: AppTest) -> list[str]:
    assert not app.exception
    return [str(e.value) for kind in (app.text, app.code, app.subheader) for e in kind]


def test_the_latest_five_stores_are_listed_with_what_each_says(monkeypatch) -> None:
    def page() -> None:
        from app.parts import embedding

        embedding.show()

    states = ["failed", "running", "finished", "finished", "failed", "failed"]
    made = [
        embeds.Embed(Path(f"s{n}.zarr"), f"run {n}", "comics", state, f"log {n}", 5, 9.0 - n)
        for n, state in enumerate(states)
    ]
    monkeypatch.setattr(embeds, "embeds", lambda: made)
    assert embedding.LISTED == 5
    app = AppTest.from_function(page, default_timeout=60).run()
    assert [t for t in texts(app) if t.startswith("run ")] == [f"run {n} on comics" for n in range(5)]
    assert [c.value for c in app.code] == ["log 0", "log 1", "log 4"]  # one that is finished has nothing to say
    assert [b.key for b in app.button] == ["embed-cancel-s1.zarr"]
    made.clear()
    assert texts(app.run()) == []


def test_the_progress_of_a_map_is_shown_until_there_is_one(monkeypatch) -> None:
    def page() -> None:
        from app.parts import waiting

        waiting.show(**waiting.GIVEN)

    now, drawn = [Job("running", "layout", 3, 7)], []
    chosen: Any = SimpleNamespace(run="run", step=4)
    monkeypatch.setattr(waiting, "GIVEN", {"path": Path("m"), "job": now[0], "chosen": chosen}, raising=False)
    monkeypatch.setattr(map_jobs, "ensure", lambda run, step, **how: (drawn.append((run, step, how)), now[0])[1])
    monkeypatch.setattr(waiting.st, "progress", lambda share, text: drawn.append((share, text)))
    monkeypatch.setattr(waiting.st, "rerun", lambda: drawn.append("again"))
    texts(AppTest.from_function(page, default_timeout=60).run())
    said = "Computing UMAP (layout); showing principal components meanwhile."
    assert drawn == [("run", 4, {"drift": False}), (0.5, said)]
    now[0] = Job("ready")
    drawn.clear()
    texts(AppTest.from_function(page, default_timeout=60).run())
    assert drawn[:2] == [("run", 4, {"drift": False}), "again"]


@pytest.mark.parametrize("missing", ["", "data/comics is not here (the data that the run was trained on)"])
def test_a_run_whose_data_has_moved_says_so_and_takes_a_new_place(missing, monkeypatch) -> None:
    def page() -> None:
        from app.parts import moved

        moved.notice("the run")

    named: list[tuple[Any, ...]] = []
    monkeypatch.setattr(moved.loaders, "missing", lambda run: missing)
    monkeypatch.setattr(moved.places, "offered", lambda: {"data/a": Path("a"), "data/b": Path("b")})
    monkeypatch.setattr(moved.places, "name", lambda run, label: (named.append((run, label)), "")[1])
    app = AppTest.from_function(page, default_timeout=60).run()
    assert [c.value for c in app.code] == ([missing] if missing else [])
    if not missing:
        assert texts(app) == []
        return
    app.selectbox(key="moved-to").select("data/b").run()
    texts(app.button(key="moved-use").click().run())
    assert named == [("the run", "data/b")]


def test_an_error_is_shown_unless_the_page_has_said_already_that_the_data_is_gone(monkeypatch) -> None:
    told: list[str] = []
    state: dict[str, object] = {}
    monkeypatch.setattr(moved.st, "session_state", state)
    monkeypatch.setattr(moved.shell, "error_box", lambda error: told.append(f"error: {error}"))
    monkeypatch.setattr(moved.shell, "line", told.append)
    monkeypatch.setattr(moved.loaders, "missing", lambda run: "data/comics is not here")
    moved.box("before a run is chosen")
    state["_chosen"] = SimpleNamespace(run="the run")
    moved.box(StorageError("a file is damaged"))
    moved.box(StorageError("data/comics is not here (the data that the run was trained on)"))
    assert told == [
        "error: before a run is chosen",
        "error: a file is damaged",
        "This view needs the data, and the cache does not hold all of it.",
    ]


def test_what_was_unusual_is_counted_without_what_is_no_anomaly(monkeypatch) -> None:
    def page() -> None:
        from app.parts import data_report

        data_report.anomalies(data_report.GIVEN)

    counts = Counter({"box_clamped": 3, "page:story": 9, "image:damaged": 5, "panel_type": 0})
    examples = {"box_clamped": ["a/1", "a/2"], "image:damaged": ["b/1", "b\t2"]}
    given = SimpleNamespace(counts=counts, examples=examples)
    monkeypatch.setattr(data_report, "GIVEN", given, raising=False)
    app = AppTest.from_function(page, default_timeout=60).run()
    table = app.dataframe[0].value
    assert table[["code", "count", "first"]].to_numpy().tolist() == [
        ["image:damaged", 5, "b/1"],
        ["box_clamped", 3, "a/1"],
    ]
    assert table["meaning"].tolist() == ["images that cannot be used", data_report.ANOMALIES["box_clamped"]]
    assert texts(app) == ["image:damaged: the first 2 of 5. Choose a row for another code.", "b/1\nb 2"]
    counts.clear()
    assert texts(app.run()) == ["Nothing unusual was found: every box, text and image could be used as it is."]


def test_the_strip_is_there_while_a_job_is_live_or_can_go_on(monkeypatch) -> None:
    found: list[list[Any]] = [[], []]
    state: dict[str, Any] = {}
    drawn: list[str] = []
    monkeypatch.setattr(strip.st, "session_state", state)
    monkeypatch.setattr(jobs, "live_and_stopped", lambda since: (list(found[0]), list(found[1])))
    monkeypatch.setattr(jobs, "live", lambda: found[0])
    monkeypatch.setattr(strip.shell, "fragment", lambda run_every: lambda watch: watch)
    monkeypatch.setattr(strip, "_live", lambda job: drawn.append(f"live {job.run.name}"))
    monkeypatch.setattr(strip, "_stopped", lambda job: drawn.append(f"stopped {job.run.name}"))

    def shown() -> list[str]:
        drawn.clear()
        strip.show()
        return list(drawn)

    def job(name: str) -> Any:
        return SimpleNamespace(run=SimpleNamespace(name=name, status=SimpleNamespace(updated="1")))

    assert shown() == []
    found[0].append(job("a"))
    assert shown() == ["live a"]
    found[1] += [job("b"), job("c")]
    assert shown() == ["live a", "stopped b", "stopped c"]
    found[0].clear()
    strip._hide("b", "1")
    assert shown() == ["stopped c"]
    strip._hide("c", "1")
    assert shown() == []
    monkeypatch.setattr(strip.st, "text", drawn.append)
    found[0] += [job(name) for name in "defghi"]
    assert shown() == ["live d", "live e", "live f", "live g", "and 2 jobs more, see Retrain"]


def test_a_job_of_the_strip_shows_its_share_of_the_steps_once_it_trains(monkeypatch) -> None:
    def page() -> None:
        from app.parts import strip

        for job in strip.GIVEN:
            strip._live(job)

    def job(name: str, state: str, step: int, total: int) -> Any:
        status = SimpleNamespace(step=step, total_steps=total, epoch=2)
        run = SimpleNamespace(name=name, status=status, stop_requested=name == "c", config=Config(epochs=8))
        return SimpleNamespace(run=run, state=state)

    given = [job("a", "running", 0, 0), job("b", "running", 2, 8), job("c", "starting", 2, 8)]
    monkeypatch.setattr(strip, "GIVEN", given, raising=False)
    monkeypatch.setattr(jobs, "press", lambda run: None)
    app = AppTest.from_function(page, default_timeout=60).run()
    assert texts(app) == ["a", "", "b", "step 2 of 8 · epoch 2 of 8", "c", ""]
    assert [p.proto.value for p in app.get("progress")] == [0, 25, 0]
    cancel = [app.button(key=f"strip-cancel-{name}") for name in "abc"]
    assert [(b.label, b.disabled) for b in cancel] == [("Cancel", False)] * 2 + [("Stopping …", True)]


def test_a_run_is_measured_where_it_has_a_checkpoint_and_its_data(monkeypatch) -> None:
    def evaluation(run: str) -> dict[str, str]:
        if run == "moved":
            raise StorageError("its data is not here")
        return {"of": run}

    monkeypatch.setattr(results.loaders, "steps", lambda run: [] if run == "fresh" else [3])
    monkeypatch.setattr(results.loaders, "evaluation", evaluation)
    assert [results.of_run(run) for run in ("good", "fresh", "moved")] == [{"of": "good"}, None, None]  # type: ignore[arg-type]


def test_fields_of_filters_show_what_the_address_asks_for_and_write_it(monkeypatch) -> None:
    def page() -> None:
        from app.parts import filters

        filters.popover(filters.GIVEN[0], filters.GIVEN[1], filters.asked(filters.GIVEN[1], []))

    frame = pd.DataFrame(
        {"book": ["a", "b", "b"], "text": ["red", "a fox", ""], "rank_i2t": [1.0, 2.0, 9.0], "loss_total": 0.5},
        index=[3, 5, 8],
    )
    chosen: Any = SimpleNamespace(run="run", step=4)
    monkeypatch.setattr(filters, "GIVEN", (chosen, frame), raising=False)
    monkeypatch.setattr(filters.loaders, "checkpoint_key", lambda run, step: (run, step))
    app = AppTest.from_function(page, default_timeout=60)
    app.query_params["filter"] = ["text:fox", "book:b"]
    texts(app.run())
    assert app.text_input(key="map_filter_text_part").value == "fox"
    assert app.multiselect(key="map_filter_book").value == ["b"]
    assert app.multiselect(key="map_filter_book").options == ["a", "b"]
    app.text_input(key="map_filter_text_part").set_value("  red ")
    app.run()
    assert app.query_params["filter"] == ["book:b", "text:red"]
    app.selectbox(key="map_filter_measure").select("rank_i2t")
    app.text_input(key="map_filter_high").set_value("7")
    app.run()
    app.button(key="map_filter_add").click().run()
    assert app.query_params["filter"] == ["book:b", "text:red", "rank_i2t:..7"]
    app.multiselect(key="map_filter_book").set_value([]).run()
    assert app.query_params["filter"] == ["text:red", "rank_i2t:..7"]
    app.text_input(key="map_filter_high").set_value("x")
    app.run()
    app.button(key="map_filter_add").click().run()
    assert "Give a number in From or To, the smaller one first." in texts(app)


@pytest.mark.parametrize("reads", [True, False])
def test_choices_of_an_import_stand_at_what_it_was_last_asked_for(reads, monkeypatch) -> None:
    def page() -> None:
        from app.parts import add_choice

        add_choice._choices(add_choice.GIVEN)

    choice = imports.Choice("page", "none", "coco", "cell", "right")
    monkeypatch.setattr(add_choice, "GIVEN", imports.Import("m", "comics", Path("x"), choice, True), raising=False)
    monkeypatch.setattr(imports, "reads_text", lambda: reads)
    app = AppTest.from_function(page, default_timeout=60).run()
    assert ("install the reader" in "".join(texts(app))) is not reads
    fields = [*app.radio, *app.selectbox, *app.text_input]
    assert {f.key.removeprefix("add-m-"): f.value for f in fields} == {
        "boxes": "page", "texts": "none", "format": "coco", "class": "cell", "direction": "right"
    }  # fmt: skip
    assert len(app.radio(key="add-m-texts").options) == 2 + reads


def test_training_begins_with_what_was_typed_and_a_setting_that_is_refused_begins_nothing(monkeypatch) -> None:
    def page() -> None:
        from app.parts import add_train

        add_train.show(add_train.GIVEN)

    started: list[tuple[str, int, float]] = []
    went: list[tuple[str, dict[str, str]]] = []

    def start(config: Config, name: str) -> Any:
        started.append((name, config.epochs, config.test_fraction))
        return SimpleNamespace(name=name)

    monkeypatch.setattr(add_train, "GIVEN", imports.Import("m", "comics", Path("x"), imports.Choice()), raising=False)
    monkeypatch.setattr(add_train.outlook, "of", lambda config: (Outlook(True, True, ("one book",)), 90, 30))
    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs, "free_name", lambda name: f"{name}-{len(started) + 1}")
    monkeypatch.setattr(add_train.shell, "go", lambda view, **params: went.append((view, params)))
    app = AppTest.from_function(page, default_timeout=60).run()
    app.text_input(key="add-train-m-epochs").set_value("x").run()
    assert "epochs: expected an integer, got 'x'" in texts(app)
    assert not app.button
    app.text_input(key="add-train-m-epochs").set_value("3").run()
    assert "one book" in texts(app)
    app.button(key="add-train").click().run()
    assert started == [("m-1", 3, 0.0)]  # of one book nothing is held out
    assert went == [("retrain", {"run": "runs/m-1", "job": "runs/m-1"})]
    texts(app.run())
    app.button(key="add-embed").click().run()
    assert started[1:] == [("m-2", 0, 0.0)], "the name of the next one is free again"


def test_the_latest_twenty_imports_are_listed_and_one_is_opened_by_its_button(monkeypatch) -> None:
    def page() -> None:
        from app.views import add

        add._earlier()

    made = [imports.Import(f"m{n}", f"comics/{n}", Path("x"), imports.Choice()) for n in range(21)]
    words = {"m0": "none", "m1": "finished"}
    monkeypatch.setattr(imports, "imports", lambda: made)
    monkeypatch.setattr(
        imports.Task, "state", lambda task: imports.State(words.get(task.folder.parent.name, "failed")), raising=True
    )
    app = AppTest.from_function(page, default_timeout=60).run()
    assert texts(app) == [
        "m0  ·  comics/0  ·  not imported yet", "m1  ·  comics/1  ·  imported",
        *(f"m{n}  ·  comics/{n}  ·  failed" for n in range(2, 20)), "Added before",
    ]  # fmt: skip
    texts(app.button(key="add-open-m7").click().run())
    assert app.query_params["import"] in ("m7", ["m7"])


def test_earlier_runs_are_listed_without_the_one_that_is_watched(monkeypatch) -> None:
    def page() -> None:
        from app.views import retrain

        retrain._list(retrain.GIVEN)

    def job(n: int) -> Any:
        run = SimpleNamespace(name=f"r{n}", path=Path(f"r{n}"))
        return SimpleNamespace(run=run, state="stopped", is_live=n == 2, parent="samples/first" if n == 1 else "")

    found = [job(n) for n in range(22)]
    monkeypatch.setattr(retrain, "GIVEN", SimpleNamespace(run=found[0].run), raising=False)
    monkeypatch.setattr(jobs, "jobs", lambda: found)
    app = AppTest.from_function(page, default_timeout=60).run()
    assert texts(app) == [
        "r1  ·  stopped  ·  from samples/first", *(f"r{n}  ·  stopped" for n in range(2, 21))
    ]  # fmt: skip
    assert [app.button(key=f"watch-r{n}").label for n in (1, 2)] == ["Show", "Watch"]
    assert app.expander[0].label == "Earlier runs started here: 21"
