"""The model card of a run: what it was trained on, what it is worth with intervals and chance, and its limits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from stage3.cli import DASH, number, percent
from stage3.config import SPLITS, Config
from stage3.runs import RunFolder
from stage3.runs.data import recorded
from stage3.train.sinks import shareable

TAGS = ["comics", "manga", "panel-embeddings", "feature-extraction", "retrieval"]
METRICS = {
    "retrieval/same_page_r_precision": "same-page R-precision",
    "retrieval/i2t_r1": "R@1, image → text",
    "retrieval/i2t_r5": "R@5, image → text",
    "retrieval/t2i_r1": "R@1, text → image",
    "retrieval/t2i_r5": "R@5, text → image",
    "retrieval/within_page_i2t": "own text first, on one page",
    "retrieval/within_page_t2i": "own image first, on one page",
    "reconstruction/skill": "R² of reconstruction",
}
AS_NUMBER = ("reconstruction/skill",)
ROLES = {"train": "trained on", "val": "chose the checkpoint", "test": "held out"}
SHOWN = {  # settings that say how it was trained
    "vision_backbone", "text_backbone", "finetune", "dim", "form", "max_panels", "text_parts", "epochs", "batch_pages",
    "lr", "contrastive_weight", "reconstruction_weight", "alignment_weight", "contrastive_temperature",
    "alignment_temperature", "seed",
}  # fmt: skip


def card(run: RunFolder, step: int, report: Mapping[str, Any] | None, *, license: str, title: str) -> str:
    """The text of `README.md`: YAML for the Hub, then Markdown.

    Args:
        run: the run.
        step: of the checkpoint that is shared.
        report: `evaluate.evaluation_report` of it; None where it was not measured.
        license: an identifier of the Hub, such as "cc-by-4.0"; "" leaves it out.
        title: the name of the repository or the run.
    """
    about: dict[str, Any] = {"library_name": "stage3", "pipeline_tag": "feature-extraction", "tags": TAGS}
    if license:
        about["license"] = license
    parts = [
        f"# {plain(title)}",
        "Embeddings of comic panels from image, text and layout, trained with `stage3`; a panel may lack some of them.",
        "## Data",
        *_data(run),
        "## What it is worth",
        *(_worth(report) if report else ["Not measured on held-out pages."]),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(run, report)),
        "## Training",
        _table(["setting", "value"], [[f"`{n}`", f"`{v}`"] for n, v in shareable(run.config).items() if n in SHOWN]),
        "## How to load",
        _how(title),
    ]
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n\n" + "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    r"""Text that may come from data, without effect in Markdown.

    >>> print(plain("a|b <i>"))
    a\|b \<i\>
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _data(run: RunFolder) -> Iterator[str]:
    record = recorded(run)
    name = _name_of(run.config)
    if "panels" not in record:
        yield "The data that it was trained on is not recorded."
        return
    called = f"{plain(name)}: " if name else ""
    yield f"{called}{record['panels']:,} panels on {record['pages']:,} pages, split by book:"
    books = record.get("books", {})
    sizes = run.read_json("data_report").get("can_show", {}).get("sizes", {}) if _reported(run) else {}
    rows = []
    for split in SPLITS:
        of = sizes.get(split, {})
        pages, panels = (f"{of[n]:,}" if isinstance(of.get(n), int) else DASH for n in ("pages", "panels"))
        rows.append([split, ROLES[split], f"{len(books.get(split, [])):,}", pages, panels])
    yield _table(["split", "role", "books", "pages", "panels"], rows)
    yield f"Panel table `{str(record.get('table', ''))[:16]}`, features `{str(record.get('features', ''))[:16]}`."


def _reported(run: RunFolder) -> bool:
    return (run.path / "data_report.json").exists()


def _name_of(config: Config) -> str:
    return PurePath((config.data or config.manifest).replace("\\", "/")).name


def _worth(report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Checkpoint of step {report['step']}, on {report['panels']:,} panels of {report['pages']:,} pages and "
        f"{report['books']:,} books of the {report['split']} split; gallery of {report['gallery']:,} panels with image "
        f"and text. Intervals of {percent(report['level'], 0)} from resampling {report['resampled']}s."
    )
    rows = []
    for name, label in METRICS.items():
        if name not in report:
            continue
        show = number if name in AS_NUMBER else percent
        low, high = report["intervals"].get(name, (math.nan, math.nan))
        columns = [report["chance"].get(name), *(report["baselines"][b].get(name) for b in ("frozen", "untrained"))]
        between = f"{show(low)} to {show(high)}" if math.isfinite(low) else DASH
        rows.append([label, show(report[name]), between, *(show(value) for value in columns)])
    yield _table(["metric", "value", "interval", "chance", "frozen features", "untrained model"], rows)
    sentences = [report["added"]["sentence"], *(way["sentence"] for way in report.get("against_chance", []))]
    yield "\n".join(f"- {plain(sentence)}" for sentence in sentences)


def _limits(run: RunFolder, report: Mapping[str, Any] | None) -> Iterator[str]:
    config = run.config
    tiny = [n for n in ("vision_backbone", "text_backbone") if "tiny" in getattr(config, n).split("+")]
    if tiny:
        yield "The `tiny` backbones were trained on synthetic comics alone: expect little of images of other comics."
    yield "Comics unlike the training books may be embedded worse than by their frozen features: evaluate on your own."
    yield f"At most {config.max_panels} panels of a page were read; texts beyond the text backbone's window were cut."
    yield "Panels and texts come from whatever made the data set: detectors and language models make mistakes."
    can_show = run.read_json("data_report").get("can_show", {}) if _reported(run) else {}
    smallest = can_show.get("smallest")
    if isinstance(smallest, int | float):
        yield f"On its held-out pages, differences below {100 * smallest:.1f} points of R-precision may be chance."
    for note in report["notes"] if report else ():
        yield plain(note)


def _how(title: str) -> str:
    return f"""```python
import stage3

run = stage3.Run.from_pretrained("{title}")  # or the path of this folder
comics = run.other_data("path/to/comics")  # a folder with a dataset.yaml
run.embeddings(data=comics)  # one row per panel
run.search("a man runs in the rain", data=comics)
run.evaluate(data=comics)
```"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
