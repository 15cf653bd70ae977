"""What training adds on comics that this project did not draw: frozen features, the start and the trained model.

    python -m benchmarks.real --manifest comics/manifest.csv --panels comics/ocr --panel_format ocr --labels labels.json
    python -m benchmarks.real --data data/samples --splits 3 --lr 0.003

Every setting of `stage3.train` can be given. Books are split anew for each of `--splits` splits; the seed of the
weights is the split's number. All rows are measured on test books, which take no part in training or in choosing the
checkpoint. Intervals are bootstrap intervals over the splits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.cli import Parser, say, settings_from
from stage3.config import Config
from stage3.model import baselines, embedding, validation
from stage3.model.baselines import MAIN
from stage3.runs import RunFolder
from stage3.storage import to_json
from stage3.train.trainer import Trainer

SHOWN = {
    MAIN: "same page",
    "retrieval/i2t_r1": "R@1 i→t",
    "retrieval/t2i_r1": "R@1 t→i",
    "retrieval/i2t_r5": "R@5 i→t",
    "retrieval/t2i_r5": "R@5 t→i",
    "reconstruction/skill": "skill",
    "collapse/effective_rank": "rank",
}


def measure(config: Config, folder: Path, split: str = "test") -> dict[str, dict[str, float]]:
    """{"frozen", "untrained", "best", "last": their metrics on the pages of a split} of one run."""
    data = Dataset.load(config, progress=False)
    run = RunFolder.create(folder, config)
    with run.lock():
        trainer = Trainer(run, data)
        rows = {"untrained": validation.all_metrics(trainer.model.eval(), data.panel_set, data.pages(split))[0]}
        began = time.process_time()
        trainer.fit(lambda: False)
        took = time.process_time() - began
    best = run.best()
    for name, step in (("best", best.step if best else trainer.step), ("last", trainer.step)):
        rows[name] = validation.all_metrics(run.model(step), data.panel_set, data.pages(split))[0]
    embedded = embedding.embed(trainer.model, data.panel_set, data.pages(split))
    frozen = baselines.frozen_of(data, embedded)[0].panel
    same = metrics.same_page_r_precision(frozen, embedded.page_ids)
    rows["best"] |= {"step": float(best.step if best else trainer.step), "cpu_s": took}
    return {"frozen": {MAIN: metrics.mean_defined(same)}} | rows


def table(rows: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """Markdown: means over splits, and trained minus frozen in same-page R-precision with its interval."""
    lines = ["| | " + " | ".join(SHOWN.values()) + " | against frozen, paired |", "|---" * (len(SHOWN) + 2) + "|"]
    frozen = np.array([r["frozen"][MAIN] for r in rows])
    for name in rows[0]:
        cells = []
        for metric in SHOWN:
            values = np.array([r[name].get(metric, np.nan) for r in rows])
            scale, form = (1, ".2f") if metric.endswith("skill") else (1, ".0f") if "rank" in metric else (100, ".1f")
            cells.append("" if np.isnan(values).any() else f"{scale * values.mean():{form}}")
        added = np.array([r[name][MAIN] for r in rows]) - frozen
        low, high = bootstrap(added)
        worse = int((added < 0).sum())
        paired = f"{100 * added.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], worse in {worse} of {len(rows)}"
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if name == 'frozen' else paired} |")
    return lines


def bootstrap(values: np.ndarray, repeats: int = 10_000) -> tuple[float, float]:
    """A 95 % percentile interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (repeats, len(values)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main(argv: Sequence[str] | None = None) -> int:
    """Train one run per split and print the table."""
    parser = Parser("real", "What training adds, over splits by book.", ("python -m benchmarks.real --data DIR",))
    parser.add_argument("--splits", type=int, default=10, metavar="N", help="splits by book, 0 to N-1; default 10")
    parser.add_argument("--on", default="test", choices=("val", "test"), help="books that are measured; default test")
    parser.add_argument("--one_split", action="store_true", help="keep split_seed, so that only the weights differ")
    parser.add_json()
    parser.add_settings()
    args = parser.parse(argv)
    torch.set_num_threads(1)
    config = settings_from(args)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for split in range(args.splits):
            own = {"seed": split} if args.one_split else {"seed": split, "split_seed": split}
            rows.append(measure(config.replace(**own), Path(folder) / str(split), args.on))
    say(to_json({"rows": rows}) if args.json else "\n".join(table(rows)))
    if not args.json:
        steps = ", ".join(f"{r['best']['step']:.0f}" for r in rows)
        say(f"best steps: {steps}; training took {np.mean([r['best']['cpu_s'] for r in rows]):.1f} s of CPU a run")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
