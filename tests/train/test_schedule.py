"""When a run validates, saves, logs, embeds and stops, and what it says; its steps cost nothing here."""

import itertools
import json
import math
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stage3.batches import derived_seed, generator, steps_from
from stage3.config import Config
from stage3.errors import NumericError
from stage3.model import embedding, validation
from stage3.objectives import TERMS
from stage3.peers import ALONE
from stage3.runs import Best
from stage3.train import trainer as loop
from stage3.train.trainer import Outcome, Totals, Trainer, validation_line
from tests import synthetic

SAME_PAGE = "retrieval/same_page_r_precision"


def ran(tmp_path, monkeypatch, values, outcome=Outcome.DONE, **settings) -> tuple[Trainer, dict[str, list[int]], str]:
    """A run whose validations find these values: what was done at which steps or epochs, and what was said."""
    found, said = iter(values), []
    monkeypatch.setattr(Trainer, "train_step", lambda *_: outcome)
    peers: list[object] = []
    monkeypatch.setattr(validation, "validate", lambda *_, **of: peers.append(of["peers"]) or {})
    budgets: list[list[int]] = []
    monkeypatch.setattr(validation, "gradient_budget", lambda _, batch: budgets.append(batch.rows.tolist()) or {})
    monkeypatch.setattr(validation, "all_metrics", lambda *_: ({SAME_PAGE: next(found)}, None))
    monkeypatch.setattr(embedding, "embed", lambda *_: None)
    embedded: list[int] = []
    monkeypatch.setattr(embedding, "save_embeddings", lambda path, _: embedded.append(int(path.stem[-4:])))
    run = synthetic.run(tmp_path / "r", keep_checkpoints=0, **settings)
    trainer = Trainer(run, synthetic.dataset(run.config), say=said.append)
    with run.lock():
        trainer.fit(lambda: False)
    assert set(peers) == {ALONE}  # all processes share the batches
    first, *others = (trainer.data.panel_set.batch(pages).rows.tolist() for pages in trainer.val_batches)
    assert first not in others
    assert all(rows == first for rows in budgets)  # gradients are always compared on the same panels
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    done = {split: [r["step"] for r in rows if r["split"] == split] for split in ("train", "val")}
    return trainer, done | {"saved": [c.step for c in run.checkpoints()], "embedded": embedded}, "\n".join(said)


def test_each_thing_is_done_at_its_own_interval_and_at_the_end(tmp_path, monkeypatch):
    every = {"validate_every": 2, "checkpoint_every": 3, "log_every": 3, "embed_every": 3}
    trainer, done, _ = ran(tmp_path, monkeypatch, (0.5, 0.1, 0.2, 0.1), epochs=5, select_margin=0.0, **every)
    n = trainer.sampler.n_batches
    assert n % 3
    assert done == {
        "train": sorted({*range(3, 5 * n + 1, 3), *range(n, 5 * n + 1, n)}),
        "val": [0, 2 * n, 4 * n, 5 * n],
        "saved": [0, 3 * n, 5 * n],
        "embedded": [3, 5],
    }


def test_a_better_validation_is_saved_and_so_are_steps_between_where_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STATUS_SECONDS", -1)  # at each row
    every = {"checkpoint_every": 9, "checkpoint_steps": 5, "embed_every": 0}
    trainer, done, _ = ran(tmp_path, monkeypatch, (0.1, 0.05, 0.3, 0.2), epochs=3, select_margin=0.0, **every)
    n = trainer.sampler.n_batches
    assert done["saved"] == sorted({0, *range(5, 3 * n + 1, 5), 2 * n, 3 * n})
    assert done["embedded"] == []
    status = trainer.run.status
    assert (status.step, status.saved_step, status.best_step, status.best_value) == (3 * n, 3 * n, 2 * n, 0.3)
    assert (status.total_steps, status.epoch) == (3 * n, 3)


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_training_after_its_number_of_validations(tmp_path, monkeypatch, patience):
    settings = {"epochs": 9, "patience": patience, "select_margin": 0.0}
    trainer, done, said = ran(tmp_path, monkeypatch, (0.1, 0.3, 0.2, 0.2, 0.2), **settings)
    n = trainer.sampler.n_batches
    assert done["val"] == [0, n, 2 * n, 3 * n][: 2 + patience]
    assert f"stopped early: {patience} validations without a better checkpoint" in said


def test_skipped_steps_end_training_at_the_third_in_a_row_unless_only_the_loss_scale_moved(tmp_path, monkeypatch):
    with pytest.raises(
        NumericError, match=r"3 steps in a row were not finite, the last is step 3 \(pages book\d+/p\d+, "
    ):
        ran(tmp_path / "a", monkeypatch, (0.1,), Outcome.NOT_FINITE, epochs=1)
    log = (tmp_path / "a" / "r" / "train.log").read_text(encoding="utf-8")
    assert len(re.findall(r"skipped: loss or gradient not finite; pages (book\d+/p\d+(, |\n)){4}", log)) == 3
    trainer, _, _ = ran(tmp_path / "b", monkeypatch, (0.1, 0.2), Outcome.RESCALED, epochs=1)
    n = trainer.sampler.n_batches
    assert n > 3
    log = (trainer.run.path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.endswith(f"step {i} skipped: {Outcome.RESCALED.value}, now 1") for i, line in enumerate(log, 1)] == (
        [True] * n
    )
    val = trainer.run.metrics().query("split == 'val'")
    assert val["skipped_steps"].tolist() == [0, n]
    assert trainer.run.metrics().query("split == 'train'")["skipped_steps"].sum() == n


def test_a_step_is_skipped_for_its_scale_or_for_good_and_trained_backbones_count(tmp_path, monkeypatch):
    """By hand: the norm of the gradients, of the model and of trained backbones."""
    outcomes = []
    for precision, scale, norms in (
        ("fp16", 2.0, (math.inf, 1.0)),
        ("fp16", 1.0, (math.inf, 1.0)),
        ("float32", 1.0, (math.inf, 1.0)),
        ("float32", 1.0, (3.0, math.nan)),
        ("float32", 1.0, (3.0, 7.0)),
    ):
        run = synthetic.run(tmp_path / str(len(outcomes)), precision=precision)
        trainer = Trainer(run, synthetic.dataset(run.config))
        if precision == "fp16":
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.tuned = lambda batch, _: batch
        monkeypatch.setattr(loop, "clip", lambda *_, norms=norms: norms[0])
        monkeypatch.setattr(loop, "clip_backbones", lambda *_, norms=norms: norms[1])
        batch = trainer.data.panel_set.batch(trainer.data.pages("train")[:4])
        outcomes.append(trainer.train_step(batch, 1))
    assert outcomes == [Outcome.RESCALED, *[Outcome.NOT_FINITE] * 3, Outcome.DONE]
    assert trainer.totals.norms == [3.0]


def test_a_step_draws_by_seed_and_step_and_computes_as_precisely_as_asked(tmp_path, monkeypatch):
    seen, drawn, computed = [], [], []

    def forward(batch, mask):
        seen.append(mask)
        drawn.append(torch.initial_seed())
        computed.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        raise KeyboardInterrupt

    for leave_one_out, step, precision in ((True, 3, "float32"), (False, 3, "bf16"), (False, 4, "fp16")):
        run = synthetic.run(tmp_path / str(len(seen)), leave_one_out=leave_one_out, precision=precision)
        trainer = Trainer(run, synthetic.dataset(run.config))
        monkeypatch.setattr(trainer.model, "forward", forward)
        with pytest.raises(KeyboardInterrupt):
            trainer.train_step(trainer.data.panel_set.batch(np.array([1, 2])), step)
    assert seen[0] is None
    assert seen[1].initial_seed() == generator(run.config.seed, "mask", 3).initial_seed() != seen[2].initial_seed()
    assert computed == [torch.float32, torch.bfloat16, torch.float16]
    assert drawn == [derived_seed(run.config.seed, "dropout", step) for step in (3, 3, 4)]


def test_what_a_step_does_not_reach_is_not_moved_by_the_steps_before(tmp_path):
    run = synthetic.run(tmp_path / "r", weight_decay=0.5)
    trainer = Trainer(run, synthetic.dataset(run.config, single=0.5, textless=0.0))
    counts = trainer.data.table.pages["n_panels"].to_numpy()
    several, single = (trainer.data.panel_set.batch(np.flatnonzero(of)[:4]) for of in (counts > 1, counts == 1))
    assert trainer.train_step(several, 1) is Outcome.DONE
    head = [p.detach().clone() for p in trainer.model.reconstruction_head.parameters()]
    text = trainer.model.encoder.text.learned[0].weight.detach().clone()
    assert trainer.train_step(single, 2) is Outcome.DONE  # nothing to reconstruct
    assert all(torch.equal(a, b) for a, b in zip(head, trainer.model.reconstruction_head.parameters(), strict=True))
    assert not torch.equal(text, trainer.model.encoder.text.learned[0].weight)


def test_crops_are_cut_only_where_an_image_backbone_is_trained(tmp_path):
    run = synthetic.run(tmp_path / "r")
    trainer = Trainer(run, synthetic.dataset(run.config))
    plain = [
        (step, epoch, pages.tolist()) for step, epoch, pages in itertools.islice(steps_from(trainer.sampler, 0), 6)
    ]

    def ahead(steps, share):
        return ((step, epoch, pages, share(pages).tolist()) for step, epoch, pages in steps)

    with_images = SimpleNamespace(vision="some", crops=SimpleNamespace(ahead=ahead))
    for tuned in (None, SimpleNamespace(vision=None), with_images):
        trainer.tuned = tuned
        found = list(itertools.islice(trainer._steps(), 6))
        assert [(step, epoch, pages.tolist()) for step, epoch, pages, _ in found] == plain
        cut = tuned is not None and tuned.vision
        assert [list(crops) for *_, crops in found] == [pages if cut else [] for *_, pages in plain]
    trainer.tuned = SimpleNamespace(panel_set=lambda pages, peers: (pages, peers))
    assert trainer.panel_set("some pages") == ("some pages", ALONE)
    trainer.tuned = None
    assert trainer.panel_set("some pages") is trainer.data.panel_set


def test_a_trained_backbone_validates_on_some_pages_evenly_spaced_and_is_kept_with_its_moments(tmp_path, monkeypatch):
    class Tuned(torch.nn.Module):
        def __init__(self, *_: object) -> None:
            super().__init__()
            self.backbones = torch.nn.ModuleDict({"backbone-image": torch.nn.Linear(2, 1)})

        def groups(self, _: object) -> list[dict]:
            return [{"params": list(self.parameters()), "rate": 0.5, "weight_decay": 0.0}]

        def files(self) -> dict[str, bytes]:
            return {"backbone-image/w": b"weights"}

    monkeypatch.setattr(loop, "Tuned", Tuned)
    said: list[str] = []
    run = synthetic.run(tmp_path / "r", finetune="image")
    data = synthetic.dataset(run.config)
    every = data.pages("val")
    assert len(every) == 8
    for most, kept, words in (
        (8, range(8), []),
        (4, (0, 2, 5, 7), ["finetune: 4 of 8 validation pages are used, evenly spaced"]),
    ):
        monkeypatch.setattr(loop, "VALIDATED_PAGES", most)
        trainer = Trainer(run, data, say=said.append)
        assert trainer.val_pages.tolist() == every[list(kept)].tolist()
        assert said == words
    warm = round(run.config.warmup * trainer.total_steps)
    for step in (1, warm):  # its rate has the same share of its peak as that of everything else
        trainer._log_train(step, 1)
    rates = trainer.run.metrics()["finetune_lr"].tolist()
    assert rates == pytest.approx([run.config.finetune_lr / warm, run.config.finetune_lr])
    assert warm > 1
    assert list(trainer.everything) == [trainer.model, trainer.tuned]
    for parameter in trainer.everything.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.optimizer.step()
    trainer.checkpoint()
    loaded = run.load_checkpoint()
    names = [f"backbones.backbone-image.{name}" for name in ("weight", "bias")]
    names += [name for name, _ in trainer.model.named_parameters()]
    assert set(loaded.tensors["optimizer"]) == {
        f"{kind}/{n}" for kind in ("step", "exp_avg", "exp_avg_sq") for n in names
    }
    assert loaded.state["moments"] == 3 * len(names)
    assert (loaded.path / "backbone-image" / "w").read_bytes() == b"weights"
    trainer.saved_step = -1
    with torch.no_grad():
        trainer.tuned.backbones["backbone-image"].bias.fill_(math.nan)
    with pytest.raises(
        NumericError, match=r"1 tensors of the model are not finite .* the first is backbone-image\.bias"
    ):
        trainer.checkpoint()


@pytest.mark.parametrize(("panels", "every"), [(1, 1), (2000, 1), (2001, 2), (4001, 3)])
def test_embeddings_of_large_data_are_those_of_evenly_spaced_pages(tmp_path, monkeypatch, panels, every):
    saved = {}
    monkeypatch.setattr(
        embedding, "embed", lambda model, panel_set, pages, device: (panel_set.tolist(), pages.tolist())
    )
    monkeypatch.setattr(embedding, "save_embeddings", lambda path, found: saved.update({path: found}))
    data = SimpleNamespace(pages=lambda which: np.arange(90) if which == "all" else None, table=range(panels))
    of = {"data": data, "model": None, "device": "cpu", "run": SimpleNamespace(path=tmp_path)}
    trainer = SimpleNamespace(peers=SimpleNamespace(leads=True), panel_set=lambda pages: pages, **of)
    Trainer._save_embeddings(trainer, 7)
    kept = list(range(0, 90, every))
    assert saved == {tmp_path / "embeddings" / "epoch-0007.safetensors": (kept, kept)}
    trainer.peers.leads = False
    Trainer._save_embeddings(trainer, 8)
    assert len(saved) == 1


@pytest.mark.parametrize(
    ("minutes", "since", "stop", "requested", "orphaned", "stops"),
    [
        (2, 121, False, False, False, True),
        (2, 119, False, False, False, False),
        (0, 1e6, False, False, False, False),
        (0, 0, True, False, False, True),
        (0, 0, False, True, False, True),
        (0, 0, False, False, True, True),
    ],
)
def test_training_stops_when_asked_after_its_time_or_alone(
    monkeypatch, minutes, since, stop, requested, orphaned, stops
):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + since)
    trainer = SimpleNamespace(
        config=Config(max_minutes=float(minutes)),
        began=1000.0,
        run=SimpleNamespace(stop_requested=requested),
        peers=SimpleNamespace(any=bool, orphaned=orphaned),
    )
    assert Trainer._should_stop(trainer, lambda: stop) is stops


NOT_MEASURED = "retrieval/mean_r5 was not measured"
NO_PANEL = "no validation panel has page mates or both image and text"


@pytest.mark.parametrize(
    ("best", "val_pages", "words"),
    [
        (None, 0, [f"{NOT_MEASURED} (no validation books): the last checkpoint is used"]),
        (None, 2, [f"{NOT_MEASURED} ({NO_PANEL}): the last checkpoint is used"]),
        (Best(4, 0.5, SAME_PAGE), 2, [f"{NOT_MEASURED}: {SAME_PAGE} chose the checkpoint"]),
        (Best(4, 0.5, "retrieval/mean_r5"), 2, []),
        (Best(0, 0.5, "retrieval/mean_r5"), 2, ["no checkpoint is better than the start"]),
    ],
)  # fmt: skip
def test_the_end_says_where_the_checkpoint_is_not_what_was_asked_for(best, val_pages, words):
    said: list[str] = []
    config = Config(select_by="retrieval/mean_r5")
    Trainer._finish_best(SimpleNamespace(best=best, val_pages=range(val_pages), config=config, say=said.append))
    assert len(said) == len(words)
    assert all(line.startswith(start) for line, start in zip(said, words, strict=True))


def test_a_row_holds_means_over_what_was_active_since_the_last_one(monkeypatch):
    found = iter([{"total": (6.0, 4), "alignment": (3.0, 2)}, {"total": (2.0, 1), "contrastive": (0.0, 0)}])
    by_batch: list[bool] = []
    monkeypatch.setattr(loop, "sums", lambda *_, **of: by_batch.append(of["by_batch"]) or next(found))
    monkeypatch.setattr(time, "perf_counter", lambda: 16.0)
    totals = Totals(norms=[1.0, 4.0], skipped=3, started=12.0)
    for counts, has_signal in (({"panels": 5, "pages": 2}, True), ({"panels": 7}, False)):
        totals.add(SimpleNamespace(counts=counts, has_signal=has_signal), by_batch=has_signal)
    assert by_batch == [True, False]
    row = totals.row(dict.fromkeys(TERMS, 0.5))
    wanted = {
        "active/panels": 12, "active/pages": 2, "active/silent_batches": 1, "skipped_steps": 3, "grad_norm": 2.5,
        "seconds": 4.0, "panels_per_second": 3.0, "loss/alignment": 1.5,
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert "loss/contrastive" not in row
    assert math.isnan(Totals().row({})["grad_norm"])


def test_a_validation_is_one_line():
    row = {"epoch": 3, "step": 40, "loss/total": 1.23456, "retrieval/i2t_r5": 0.125, "retrieval/t2i_r5": 0.5}
    row |= {f"loss/{term}": i + 0.5 for i, term in enumerate(TERMS[1:], start=1)}
    terms = ", ".join([f"{TERMS[0]} –", *(f"{t} {i}.500" for i, t in enumerate(TERMS[1:], start=1))])
    assert validation_line(row, Config(epochs=12), 160) == (
        f"epoch   3/12  step    40/160  val loss 1.235 ({terms})  R@5 image→text 12.5 %, text→image 50.0 %"
    )
