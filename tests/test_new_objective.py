"""A fourth objective needs one declaration and its function: everything else finds it there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
DECLARED = """    Objective(
        name="toy",
        label="Toy spread",
        of="the toy",
        loss="toy_loss:toy",
        weight=0.25,
        counted="toyed",
        counted_label="toyed panels",
        color=6,
    ),
)

TERMS ="""
FUNCTION = '''"""Every panel that has a text pays the mean square of its embedding."""

from stage3.batches import TEXT
from stage3.losses import PanelLoss


def toy(model, batch, embeddings, generator):
    valid = batch.present[:, TEXT]
    return {"toy": PanelLoss(embeddings.panel.float().square().mean(dim=1) * valid, valid)}
'''
VIEWS = """
import json, sys
from pathlib import Path
from streamlit.testing.v1 import AppTest

def opened(view, **params):
    app = AppTest.from_file(sys.argv[1], default_timeout=120)
    app.query_params["view"] = view
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app

losses, retrain = opened("losses"), opened("retrain")
colors = opened("map", color="toy")
print(json.dumps({
    "cards": [s.value for s in losses.subheader],
    "sliders": {s.label: s.value for s in retrain.select_slider},
    "menu": [str(o) for s in colors.selectbox for o in s.options],
    "chosen": [str(s.value) for s in colors.selectbox],
    "bar": [t.value for t in losses.text],
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package and the explorer with one declaration more, and a small run of theirs."""
    folder = tmp_path_factory.mktemp("toy")
    for name in ("stage3", "app", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "stage3" / "objectives.py"
    text = source.read_text(encoding="utf-8")
    assert text.count(")\n\nTERMS =") == 1
    source.write_text(text.replace(")\n\nTERMS =", DECLARED), encoding="utf-8")
    (folder / "toy_loss.py").write_text(FUNCTION, encoding="utf-8")
    make = "import app_support; from pathlib import Path; app_support.workspace(Path('here').resolve(), epochs=2)"
    run_in(folder, "-c", make)
    return folder


def run_in(folder: Path, *arguments: str, cwd: Path | None = None) -> str:
    path = os.pathsep.join([str(folder), str(folder / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd or folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(folder: Path, split: str) -> list[dict]:
    lines = (folder / "here/data/samples/runs/first/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for line in lines if (row := json.loads(line))["split"] == split]


@pytest.mark.slow
def test_the_command_has_its_weight_with_help_and_default(copy):
    shown = run_in(copy, "-m", "stage3.train", "--help")
    assert "--toy_weight VALUE" in shown
    assert "weight of the toy (from 0 to 100); default 0.25" in " ".join(shown.split())


@pytest.mark.slow
def test_metrics_have_its_loss_weighted_counted_and_its_pull_on_the_encoder(copy):
    train, val = rows(copy, "train")[0], rows(copy, "val")[-1]
    for row in (train, val):
        assert row["weighted/toy"] == pytest.approx(0.25 * row["loss/toy"])
        terms = ("contrastive", "reconstruction", "alignment", "toy")
        assert row["loss/total"] == pytest.approx(sum(row[f"weighted/{t}"] for t in terms))
        assert 0 < row["active/toyed"] < row["active/panels"]  # a quarter of the panels is textless
    assert val["gradient/toy"] > 0
    assert -1 <= val["gradient_cosine/alignment_toy"] <= 1


@pytest.mark.slow
def test_the_explorer_shows_its_curve_its_slider_and_its_color(copy):
    shown = json.loads(run_in(copy, "-c", VIEWS, str(copy / "app" / "ui.py"), cwd=copy / "here").splitlines()[-1])
    assert "Toy spread" in shown["cards"]
    assert shown["sliders"]["Toy spread"] == 0.25
    assert "Color: Loss: toy spread" in shown["menu"]
    assert "toy" in shown["chosen"]
    assert any("weights 1 / 0.5 / 1 / 0.25" in line for line in shown["bar"])
