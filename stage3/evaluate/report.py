"""What a finished run is worth on held-out pages: every metric with its interval, its chance level and its meaning.

Beside this file: `items` has each metric's values item by item, `compared` the baselines, `words` the lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stage3.batches import fixed_batches
from stage3.batches.dataset import Dataset
from stage3.errors import DataError
from stage3.evaluate.compared import are_joint, baselines, differences
from stage3.evaluate.items import LEVEL, interval, item_values, summary
from stage3.evaluate.undefined import Counts, undefined
from stage3.features import usable_device
from stage3.model import validation
from stage3.model.baselines import books_of, frozen_of, what_training_added
from stage3.model.chance import against_chance
from stage3.runs import RunFolder
from stage3.runs.data import MAX_PAGES, check_features, chosen_pages, load_data
from stage3.runs.tuned import seen_by

SPACES = {
    "i2t, t2i": "image-only against text-only embeddings; the fused panel embedding plays no part",
    "text_to_panel, image_to_panel": "a text-only or image-only query against fused panel embeddings: two spaces "
    "that no loss brings together, and a fused embedding has seen the query itself",
    "same_page_r_precision": "fused panel embeddings among themselves",
}


def evaluation_report(
    run: RunFolder,
    *,
    split: str | None = None,
    data: Dataset | None = None,
    checkpoint: int | None = None,
    intervals: str = "page",
    max_pages: int = MAX_PAGES,
    device: str = "cpu",
) -> dict[str, Any]:
    """Everything that `python -m stage3.evaluate` prints, as plain JSON values (NaN where nothing is defined).

    Args:
        run: an open run.
        split: "test", "val", "train" or "all"; None takes test, or what there is, and says so in `notes`.
        data: the data set; None loads the run's own. Of other data than the run's all pages are used.
        checkpoint: step; None is the best.
        intervals: what the bootstrap resamples: "page" or "book".
        max_pages: evenly spaced pages of a larger split stand for it, and `notes` says so; 0 takes all.
        device: where the model runs: "cpu", "cuda" or "auto".

    Returns:
        The metrics under their names in metrics.jsonl, plus `retrieval/{text,image}_to_panel_*`; `intervals` and
        `chance` by the same names; `baselines` and `difference` (see `compared`) of the frozen features and of the
        untrained model, by the same names; `added`, what training added to the frozen features (`Added.to_dict`);
        `against_chance`, whether retrieval is above chance in each direction (`AgainstChance.to_dict`);
        `undefined`, why a number of the table is not defined, as {metric: {column: reason}};
        `run step selected_by split pages panels books gallery notes spaces` and so on.

    Raises:
        DataError: no pages, or features of other backbones.
        StorageError: the checkpoint does not load.
    """
    if intervals not in ("page", "book"):
        raise DataError(f"intervals: {intervals!r} is not one of page, book")
    with run.threads():
        step = run.checkpoint(checkpoint).step
        device = usable_device(device)
        model = run.model(step).to(device)
        data = data or load_data(run)
        check_features(run, model.encoder.spec, data)
        split, pages, notes = chosen_pages(run, data, split, max_pages)
        panel_set = seen_by(run, step, data).panel_set
        row, embedded = validation.all_metrics(model, panel_set, pages, device)
        batches = fixed_batches(pages, run.config.batch_pages, run.config.seed)
        row |= validation.validate(model, panel_set, batches, device)
        values, chance = item_values(model, embedded, device)
        row |= {name: summary(name, v) for name, (v, _) in values.items() if name not in row}
        book_ids = books_of(data, embedded)
        groups = embedded.page_ids if intervals == "page" else book_ids
        frozen, more = frozen_of(data, embedded)
        found = baselines(model, data, pages, frozen, device)
        minus = {n: differences(values, b.items, embedded.page_ids, book_ids) for n, b in found.items()}
        added = what_training_added(embedded.panel, frozen.panel, embedded.page_ids, book_ids)
        best = run.best()
        report = {
            "run": str(run.path),
            "step": step,
            "fingerprint": run.fingerprint(step),
            "selected_by": best.metric if best and best.step == step else None,
            "split": split,
            "pages": len(pages),
            "books": len(np.unique(data.table.book_of_page[pages])),
            "panels": len(embedded.rows),
            "gallery": len(embedded.aligned),
            "resampled": intervals,
            "level": LEVEL,
            "notes": notes + more,
            "spaces": SPACES,
            **{name: float(value) for name, value in row.items()},
            "intervals": {name: list(interval(name, v, groups[at])) for name, (v, at) in values.items()},
            "chance": chance | {"collapse/effective_rank_most": float(min(embedded.panel.shape))},
            "baselines": {name: b.row for name, b in found.items()},
            "difference": minus,
            "added": added.to_dict(),
            "against_chance": [way.to_dict() for way in against_chance(embedded, book_ids)],
        }
        return report | {"undefined": undefined(report, Counts.of(embedded), values, groups, are_joint(model, data))}
