"""Correcting boxes in the explorer: what comes from the browser is checked, what is saved is what views show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app.parts.boxes import taken
from app.store import loaders, watch
from stage3.data import correct
from stage3.data.correct import CorrectedPanel
from stage3.errors import DataError

UI = Path(__file__).parents[2] / "app" / "ui.py"


def test_panels_from_the_browser_become_panels() -> None:
    value = [{"of": 2, "box": None}, {"of": None, "box": [0, 0.5, 1, 0.25]}, {"of": 0, "box": [0.1, 0.2, 0.3, 0.4]}]
    assert taken(value) == [
        CorrectedPanel(2, None),
        CorrectedPanel(None, (0.0, 0.5, 1.0, 0.25)),
        CorrectedPanel(0, (0.1, 0.2, 0.3, 0.4)),
    ]
    assert taken([]) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        {},
        [[]],
        [{"of": "0", "box": None}],
        [{"of": True, "box": None}],
        [{"of": -1, "box": None}],
        [{"of": 1.5, "box": None}],
        [{"of": 0, "box": "0,0,1,1"}],
        [{"of": 0, "box": [0, 0, 1]}],
        [{"of": 0, "box": [0, 0, None, 1]}],
        [{"of": 0, "box": None}] * 65,
    ],
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(DataError):
        taken(value)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return app_support.workspace(tmp_path_factory.mktemp("boxes"))


@pytest.mark.slow
def test_what_is_corrected_is_what_the_views_show_at_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    run = loaders.entry("samples/first").run
    config = loaders.config_here(run.config)
    before = loaders.panel_frame(run)
    page_id = str(before["page_id"][4])
    assert before["n_panels"][4] == 4
    page = correct.page_to_correct(config, page_id)
    kept = [CorrectedPanel(entry.of, None) for entry in page.panels[:3]]
    correct.correct(config, page_id, [*reversed(kept), CorrectedPanel(None, (0.0, 0.0, 0.5, 0.5))])
    watch.forget()
    after = loaders.panel_frame(run)
    part = after[after["page_id"] == page_id]
    assert part["source_index"].tolist() == [1, 2, 3, 4]
    assert part["text"].tolist()[:3] == before["text"][4:7].tolist()[::-1]
    assert "ids, boxes or texts of some panels" in loaders.data_changed(run)
    app = AppTest.from_file(str(UI), default_timeout=180)
    app.query_params["view"], app.query_params["panel"] = "page", "7"
    app.run()
    assert not app.exception
    assert app.button(key="page-correct").label == "Correct boxes"
    correct.uncorrect(config, page_id)
    watch.forget()
    assert loaders.data_changed(run) == ""
