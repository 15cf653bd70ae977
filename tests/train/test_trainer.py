"""The training loop: exact resumption, no hidden randomness, no move without signal, numbers that are not finite."""

import contextlib
import json
import math

import numpy as np
import pytest
import torch

from stage3 import metrics
from stage3.batches import PanelBatch
from stage3.errors import Interrupted, NumericError, StorageError
from stage3.model import embedding, validation
from stage3.model.objectives import Stage3
from stage3.objectives import TERMS
from stage3.train.optimizer import clip, learning_rate, make_optimizer
from stage3.train.trainer import Outcome, Totals, Trainer
from tests import synthetic

CLOCKS = ("seconds", "panels_per_second")


def never() -> bool:
    return False


def trained(path, data=None, **settings) -> Trainer:
    run = synthetic.run(path, **settings)
    return trained_on(run, data or synthetic.dataset(run.config))


def trained_on(run, data) -> Trainer:
    trainer = Trainer(run, data)
    with run.lock():
        trainer.fit(never)
    return trainer


def rows(run) -> list[dict]:
    """Metrics without the two clock readings."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def checkpoint_bytes(run) -> dict[str, bytes]:
    folder = run.checkpoints()[-1].path
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".safetensors"}


def copy_of(model: Stage3) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stop_after", [1, 4, 7, 10])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stop_after):
    settings = {"epochs": 3, "log_every": 2, "learn_temperature": True}
    whole = trained(tmp_path / "whole", **settings)
    run = synthetic.run(tmp_path / "parts", **settings)
    data = synthetic.dataset(run.config)
    first = Trainer(run, data)
    with run.lock(), pytest.raises(Interrupted):
        first.fit(lambda: first.step >= stop_after)
    assert first.step == stop_after < whole.total_steps
    second = Trainer(run, data)
    second.beforehand = True  # as on a GPU; the same batches, however they are cut
    second.resume(run.load_checkpoint())
    with run.lock():
        second.fit(never)
    assert checkpoint_bytes(run) == checkpoint_bytes(whole.run)
    assert rows(run) == rows(whole.run)
    assert run.best() == whole.run.best()


def test_what_not_every_batch_can_have_is_said_once_however_often_the_run_is_resumed(tmp_path):
    run = synthetic.run(tmp_path / "r", epochs=2)
    data = synthetic.dataset(run.config, single=0.9, textless=0.8)
    said: list[str] = []
    for stop_after in (1, 4, 999):
        t = Trainer(run, data, say=said.append)
        if run.checkpoints():
            t.resume(run.load_checkpoint())
        with run.lock(), contextlib.suppress(Interrupted):
            t.fit(lambda t=t, stop_after=stop_after: t.step >= stop_after)
    assert t.step == t.total_steps
    assert len(t.sampler.shortfalls) == 2
    for line in t.sampler.shortfalls:
        assert said.count(f"batches: {line}") == 1


def test_rows_written_after_the_checkpoint_are_written_again_not_twice(tmp_path):
    run = synthetic.run(tmp_path / "r", epochs=2, checkpoint_steps=2)
    data = synthetic.dataset(run.config)
    trainer = Trainer(run, data)
    with run.lock(), pytest.raises(Interrupted):
        trainer.fit(lambda: trainer.step >= 3)
    for checkpoint in run.checkpoints():  # as if killed after step 3 and before its checkpoint
        if checkpoint.step == 3:
            for file in checkpoint.path.iterdir():
                file.unlink()
            checkpoint.path.rmdir()
    again = Trainer(run, data)
    again.resume(run.load_checkpoint())
    assert again.step == 2
    with run.lock():
        again.fit(never)
    steps = [r["step"] for r in rows(run) if r["split"] == "train"]
    assert steps == list(range(1, again.total_steps + 1))
    assert checkpoint_bytes(run) == checkpoint_bytes(trained(tmp_path / "whole", epochs=2).run)


def test_validating_every_epoch_or_never_gives_the_same_weights(tmp_path):
    often = trained(tmp_path / "often", epochs=3)
    once = trained(tmp_path / "once", epochs=3, validate_every=100)
    assert [r["epoch"] for r in rows(often.run) if r["split"] == "val"] == [0, 1, 2, 3]
    assert [r["epoch"] for r in rows(once.run) if r["split"] == "val"] == [0, 3]
    assert same(often.model.state_dict(), once.model.state_dict())


def test_training_reads_and_leaves_no_global_random_state(tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = trained(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b = trained(tmp_path / "b")
    assert same(a.model.state_dict(), b.model.state_dict())
    assert not same(a.model.state_dict(), trained(tmp_path / "c", seed=1).model.state_dict())


def test_validation_is_the_same_twenty_times_whatever_the_global_seed(tmp_path):
    t = trained(tmp_path / "r", epochs=1)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        row = validation.validate(t.model, t.data.panel_set, t.val_batches)
        row |= validation.all_metrics(t.model, t.data.panel_set, t.val_pages)[0]
        seen.add(json.dumps(row))
    assert len(seen) == 1


@pytest.mark.parametrize("fault", [{"validation_dropout": True}, {"validation_random_mask": True}])
def test_each_validation_fault_alone_brings_the_noise_back(tmp_path, fault):
    # eval() alone still masks at random, and leave-one-out alone still drops out: both half-fixes must show noise
    t = trained(tmp_path / "r", epochs=1, **fault)
    totals = {
        validation.validate(t.model, t.data.panel_set, t.val_batches, noise_seed=s)["loss/total"] for s in range(5)
    }
    assert len(totals) == 5


def test_modes_are_restored_even_after_an_exception(tmp_path):
    t = trained(tmp_path / "r", epochs=1)
    t.model.train()
    t.model.encoder.vision.eval()  # a mixed state must come back as it was
    before = [m.training for m in t.model.modules()]

    def fail() -> None:
        with embedding.frozen(t.model):
            assert not any(m.training for m in t.model.modules())
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert [m.training for m in t.model.modules()] == before


def test_validation_losses_do_not_depend_on_how_panels_fall_into_batches(tmp_path):
    """Means over active items, not over batches: unequal batches must not weigh their panels differently."""
    t = trained(tmp_path / "r", epochs=1, contrastive_weight=0, alignment_weight=0)
    whole = validation.validate(t.model, t.data.panel_set, [t.val_pages])
    uneven = validation.validate(t.model, t.data.panel_set, [t.val_pages[:1], t.val_pages[1:3], t.val_pages[3:]])
    assert whole["loss/reconstruction"] == pytest.approx(uneven["loss/reconstruction"], rel=1e-5)
    per_batch = [
        validation.validate(t.model, t.data.panel_set, [b])["loss/reconstruction"]
        for b in (t.val_pages[:1], t.val_pages[1:3], t.val_pages[3:])
    ]
    assert np.mean(per_batch) != pytest.approx(whole["loss/reconstruction"], rel=1e-3)  # the wrong average differs


def without_signal(t: Trainer) -> PanelBatch:
    """Single-panel pages without text: nothing to attract, reconstruct or align."""
    pages = np.flatnonzero((t.data.panel_set.count == 1) & (t.data.panel_set.pairs == 0))
    assert len(pages) >= 2
    return t.data.panel_set.batch(pages)


def test_a_batch_without_signal_changes_no_weight_and_no_optimizer_state(tmp_path):
    run = synthetic.run(tmp_path / "r")
    t = Trainer(run, synthetic.dataset(run.config, single=0.6, textless=0.7))
    for step in (1, 2):  # momentum and decay are under way
        assert t.train_step(t.data.panel_set.batch(t.data.pages("train")), step) is Outcome.DONE
    weights = copy_of(t.model)
    moments = {k: v.clone() for k, v in _moments(t).items()}
    t.totals = Totals()
    assert t.train_step(without_signal(t), 3) is Outcome.DONE
    assert same(weights, t.model.state_dict())
    assert same(moments, _moments(t))
    assert t.totals.silent == 1
    row = t.totals.row(t.model.weights)
    assert "loss/contrastive" not in row  # no zero is averaged in
    assert math.isnan(row["loss/total"])
    # the wrong fix, a zero loss with an optimizer step, does move weights here
    t.optimizer.zero_grad(set_to_none=False)
    for p in t.model.parameters():
        p.grad = torch.zeros_like(p)
    t.optimizer.step()
    assert not same(weights, t.model.state_dict())


def test_batches_without_a_signal_are_averaged_in_as_zeros_where_that_is_asked_for(tmp_path):
    kinds = {"single": 0.8, "textless": 0.8}
    settings = {"epochs": 1, "batch_pages": 2, "sampler": "shuffled", "val_fraction": 0.25}
    made = []
    for name, more in (("steps", {"log_every": 1}), ("plain", {}), ("batches", {"batch_means": True})):
        run = synthetic.run(tmp_path / name, **{"log_every": 1000, **settings, **more})
        made.append(trained_on(run, synthetic.dataset(run.config, **kinds)))
    steps, (plain,), (batches,) = ([r for r in rows(t.run) if r["split"] == "train"] for t in made)
    assert sum(r["active/silent_batches"] for r in steps) == batches["active/silent_batches"] > 0
    for name, counted in (("contrastive", "anchors"), ("reconstruction", "reconstructed"), ("alignment", "aligned")):
        of_step = [(r.get(f"loss/{name}"), r[f"active/{counted}"]) for r in steps]
        defined = [(value, n) for value, n in of_step if value is not None]
        assert len(defined) < len(of_step)
        over_panels = sum(value * n for value, n in defined) / sum(n for _, n in defined)
        assert plain[f"loss/{name}"] == pytest.approx(over_panels, rel=1e-4)
        over_batches = sum(value for value, _ in defined) / len(of_step)
        assert batches[f"loss/{name}"] == pytest.approx(over_batches, rel=1e-4)
        assert abs(over_panels - over_batches) > 0.05
    assert same(made[1].model.state_dict(), made[2].model.state_dict())  # what is minimized is the same


def _moments(t: Trainer) -> dict[str, torch.Tensor]:
    from stage3.train.optimizer import optimizer_tensors

    return optimizer_tensors(t.model, t.optimizer)


def test_non_finite_steps_are_skipped_counted_named_and_end_the_run_at_three(tmp_path, monkeypatch):
    run = synthetic.run(tmp_path / "r", epochs=4)
    t = Trainer(run, synthetic.dataset(run.config))
    real = t.data.panel_set.batch

    def poisoned(pages):
        batch = real(pages)
        if t.model.training and t.step in (2, 5, 6, 7):
            batch.image[:] = math.nan
        return batch

    monkeypatch.setattr(type(t.data.panel_set), "batch", lambda _set, pages, *_: poisoned(pages))
    weights: dict[int, dict] = {}
    t.on_step = lambda s: weights.__setitem__(s, copy_of(t.model))
    t.model.train()
    with run.lock(), pytest.raises(NumericError, match="3 steps in a row"):
        t.fit(never)
    assert same(weights[2], weights[3])  # step 3 was skipped
    assert not same(weights[3], weights[4])  # and training went on
    skipped = [r["step"] for r in rows(run) if r["split"] == "train" and r["skipped_steps"]]
    assert skipped[0] == 3
    assert "step 3 skipped" in (run.path / "train.log").read_text(encoding="utf-8")
    assert run.load_checkpoint().step < 6


def test_a_validation_row_says_how_training_went_since_the_one_before_also_after_a_resume(tmp_path, monkeypatch):
    real = Trainer.train_step
    monkeypatch.setattr(
        Trainer,
        "train_step",
        lambda self, batch, step, *more: Outcome.NOT_FINITE if step in (2, 3, 7, 9) else real(self, batch, step, *more),
    )
    settings = {"epochs": 3, "log_every": 2, "learn_temperature": True}
    whole = trained(tmp_path / "whole", **settings)
    per_epoch = whole.sampler.n_batches
    found = [(r["step"], r["skipped_steps"]) for r in rows(whole.run) if r["split"] == "val"]
    expected = [sum(e * per_epoch < s <= (e + 1) * per_epoch for s in (2, 3, 7, 9)) for e in range(3)]
    assert found == [(0, 0), *(((e + 1) * per_epoch, n) for e, n in enumerate(expected))]
    assert len(set(expected)) > 1
    for row in rows(whole.run):
        before = [r for r in rows(whole.run) if r["split"] == "train" and r["step"] == row["step"]]
        if row["split"] == "val" and row["step"] > 0:  # the temperatures are those of the step that was just made
            names = ("temperature/contrastive", "temperature/alignment")
            assert [row[n] for n in names] == [before[0][n] for n in names]
            assert row[names[0]] != 0.07
    data = synthetic.dataset(whole.run.config)
    for stop_after in (3, 8):  # a row of two steps is still open; the skipped one before it is in a row
        run = synthetic.run(tmp_path / f"stopped{stop_after}", **settings)
        first, second = Trainer(run, data), Trainer(run, data)
        with run.lock(), pytest.raises(Interrupted):
            first.fit(lambda first=first, n=stop_after: first.step >= n)
        second.resume(run.load_checkpoint())
        with run.lock():
            second.fit(never)
        assert rows(run) == rows(whole.run)


def test_validation_counts_its_batches_without_a_signal(tmp_path):
    t = trained(tmp_path / "r", epochs=1)
    single = np.flatnonzero(t.data.panel_set.count == 1)[:1]
    row = validation.validate(t.model, t.data.panel_set, [t.val_pages, single, single])
    assert row["active/silent_batches"] == 2
    assert [r["active/silent_batches"] for r in rows(t.run) if r["split"] == "val"] == [0, 0]  # before and after


def test_weights_that_are_not_finite_are_never_saved_and_never_push_out_a_good_checkpoint(tmp_path):
    run = synthetic.run(tmp_path / "r", epochs=30, keep_checkpoints=1)
    t = Trainer(run, synthetic.dataset(run.config))

    def break_it(step: int) -> None:
        if step == 7:
            with torch.no_grad():
                t.model.encoder.residual_weight.fill_(math.inf)

    t.on_step = break_it
    with run.lock(), pytest.raises(NumericError, match=r"not finite after step|3 steps in a row") as caught:
        t.fit(never)
    assert caught.value.exit_code == 3
    t.step = t.saved_step + 1
    with pytest.raises(NumericError, match=r"the first is encoder\.residual_weight"):
        t.checkpoint()
    loaded = run.load_checkpoint()
    assert (loaded.step <= 7, loaded.damaged) == (True, [])


def saved_as(t: Trainer, change) -> None:
    """One more checkpoint, like the newest but for a change to its tensors and its state."""
    newest = t.run.load_checkpoint()
    tensors = {group: dict(members) for group, members in newest.tensors.items()}
    state = {**newest.state, "step": newest.step + 1}
    change(tensors["model"], tensors["optimizer"], state)
    t.run.save_checkpoint(newest.step + 1, tensors, state)


def renamed(model, *_):
    model["encoder.vision.other"] = model.pop("encoder.residual_weight")


def of_another_size(model, *_):
    model["encoder.text.learned.0.weight"] = torch.zeros(3, 3)


def of_another_type(model, *_):
    model["encoder.residual_weight"] = model["encoder.residual_weight"].double()


def lacking_all(model, *_):
    model.clear()


def optimizer_of_another(_, optimizer, __):
    optimizer["exp_avg/encoder.residual_weight"] = torch.zeros(7)


def optimizer_halved(_, optimizer, __):
    del optimizer["exp_avg_sq/encoder.residual_weight"]


def optimizer_infinite(_, optimizer, __):
    optimizer["exp_avg/encoder.residual_weight"] = torch.tensor(math.inf)


def without_scaler(*arguments):
    del arguments[-1]["scaler"]


def with_a_step_elsewhere(*arguments):
    arguments[-1]["step"] += 5


def with_a_strange_best(*arguments):
    arguments[-1]["best"] = {"step": 1, "value": 0.5, "metric": "x", "path": "/etc/passwd"}


def with_text_for_pending(*arguments):
    arguments[-1]["pending"] = "x"


def with_a_huge_encoder(*arguments):
    arguments[-1]["encoder"]["dim"] = 10**9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renamed, r"encoder\.residual_weight is missing; encoder\.vision\.other is not known"),
        (of_another_size, r"encoder\.text\.learned\.0\.weight is \(3, 3\)"),
        (of_another_type, r"residual_weight is \(\) torch\.float64, expected \(\) torch\.float32"),
        (lacking_all, r"(\S+ is missing; ){9}\S+ is missing and \d+ more"),
        (optimizer_of_another, "optimizer state 'exp_avg/encoder.residual_weight' of shape"),
        (optimizer_halved, "lacks exp_avg_sq"),
        (optimizer_infinite, "optimizer state 'exp_avg/encoder.residual_weight'"),
        (without_scaler, "scaler: nothing, expected dict"),
        (with_a_step_elsewhere, "in the folder of step"),
        (with_a_strange_best, "best: entry 'path'"),
        (with_text_for_pending, "pending: str, expected dict"),
        (with_a_huge_encoder, "dim 1000000000, this run has 32"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_named_and_the_one_before_used(tmp_path, change, reason):
    t = trained(tmp_path / "r", epochs=1)
    good = t.run.checkpoints()[-1].step
    saved_as(t, change)
    again = Trainer(t.run, t.data)
    with pytest.raises(StorageError, match=reason):
        again.resume(t.run.load_checkpoint(good + 1))
    loaded = t.run.load_checkpoint(check=again.check)
    assert loaded.step == good
    assert len(loaded.damaged) == 1
    again.resume(loaded)
    assert same(again.model.state_dict(), t.model.state_dict())


HOSTILE_SPECS = [
    {"dim": 10**9},
    {"dim": 4096},
    {"text_size": 65536},
    {"image_sizes": [65536] * 8},
    {"image_sizes": [10**9]},
    {"image_sizes": []},
    {"image_sizes": "24"},
    {"image_sizes": [True]},
    {"gate_hidden": -1},
    {"layout_hidden": 0},
    {"dropout": 2},
    {"dropout": "0.1"},
    {"panel_norm": "/etc/passwd"},
    {"visual_fusion": ["concat"]},
    {"auto_map": {"AutoModel": "evil.Model"}},
]


@pytest.mark.parametrize("change", [*HOSTILE_SPECS, None, "not one"], ids=str)
def test_an_encoder_that_the_file_does_not_hold_is_refused_before_it_is_made(tmp_path, monkeypatch, change):
    run = synthetic.run(tmp_path / "r")
    t = Trainer(run, synthetic.dataset(run.config))
    t.checkpoint()
    assert same(run.model().state_dict(), t.model.state_dict())

    def hostile(*arguments):
        spec = arguments[-1]["encoder"]
        arguments[-1]["encoder"] = {**spec, **change} if isinstance(change, dict) else change

    saved_as(t, hostile)
    monkeypatch.setattr(Stage3, "initialized", None)  # nothing is allocated
    with pytest.raises(StorageError, match=r"encoder: |its tensors are not this model's"):
        run.model()


@pytest.mark.slow
def test_finding_the_loss_scale_of_fp16_is_no_numeric_failure(tmp_path):
    run = synthetic.run(tmp_path / "r", precision="fp16", epochs=10)
    t = Trainer(run, synthetic.dataset(run.config))
    t.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)  # eight halvings from where float16 begins to hold
    with run.lock():
        t.fit(never)
    row = [r for r in rows(run) if r["split"] == "train"]
    assert 3 < sum(r["skipped_steps"] for r in row) < len(row) / 2
    assert "loss scale" in (run.path / "train.log").read_text(encoding="utf-8")
    assert t.step == t.total_steps


def test_a_loss_that_is_not_finite_ends_a_run_in_fp16_too(tmp_path, monkeypatch):
    run = synthetic.run(tmp_path / "r", precision="fp16")
    t = Trainer(run, synthetic.dataset(run.config))
    real = t.data.panel_set.batch

    def poisoned(pages):
        batch = real(pages)
        batch.image[:] = math.nan
        return batch

    monkeypatch.setattr(type(t.data.panel_set), "batch", lambda _set, pages, *_: poisoned(pages))
    with run.lock(), pytest.raises(NumericError, match="3 steps in a row"):
        t.fit(never)
    assert t.step == 3


@pytest.mark.parametrize("weights", [(1, 0.5, 0.3), (0.2, 3, 0), (0, 0, 2), (0, 1, 0)])
def test_the_total_is_the_weighted_sum_in_training_and_validation(tmp_path, weights):
    names = ("contrastive_weight", "reconstruction_weight", "alignment_weight")
    t = trained(tmp_path / "r", **dict(zip(names, weights, strict=True)))
    by_split = {"train": 0, "val": 0}
    for row in rows(t.run):
        expected = sum(w * row[f"loss/{term}"] for w, term in zip(weights, TERMS, strict=True) if w)
        assert row["loss/total"] == pytest.approx(expected, rel=1e-6)
        assert all((f"loss/{term}" in row) == (w > 0) for w, term in zip(weights, TERMS, strict=True))
        by_split[row["split"]] += 1
    assert all(by_split.values())


def test_a_weight_of_zero_keeps_a_broken_term_out_of_the_total(tmp_path):
    run = synthetic.run(tmp_path / "r", reconstruction_weight=0)
    t = Trainer(run, synthetic.dataset(run.config))
    with torch.no_grad():
        for p in t.model.reconstruction_head.parameters():
            p.fill_(math.nan)
    assert t.train_step(t.data.panel_set.batch(t.data.pages("train")), 1) is Outcome.DONE
    assert all(torch.isfinite(p).all() for p in t.model.encoder.parameters())


def test_the_clip_covers_the_head_and_the_temperatures_and_reports_the_norm_before(tmp_path):
    run = synthetic.run(tmp_path / "r", learn_temperature=True, grad_clip=0.01)
    t = Trainer(run, synthetic.dataset(run.config))
    step = t.model(t.data.panel_set.batch(t.data.pages("train")))
    step.total.backward()
    before = torch.cat([p.grad.flatten() for p in t.model.parameters() if p.grad is not None]).norm()
    assert clip(t.model, run.config) == pytest.approx(float(before), rel=1e-5)
    after = torch.cat([p.grad.flatten() for p in t.model.parameters() if p.grad is not None]).norm()
    assert float(after) == pytest.approx(0.01, rel=1e-3)
    head = torch.cat([p.grad.flatten() for p in t.model.reconstruction_head.parameters()]).norm()
    assert float(head) < 0.01
    assert t.model.alignment_temperature.raw.grad is not None
    # two clips of their own would leave a norm of up to sqrt(2) times as much
    t.model.zero_grad()
    t.model(t.data.panel_set.batch(t.data.pages("train"))).total.backward()
    clip(t.model, run.config.replace(clip_scope="separate"))
    apart = torch.cat([p.grad.flatten() for p in t.model.parameters() if p.grad is not None]).norm()
    assert float(apart) > 0.012


def test_the_clip_reaches_the_step_and_the_norm_before_it_is_logged(tmp_path):
    run = synthetic.run(tmp_path / "r", grad_clip=0.01)
    t = Trainer(run, synthetic.dataset(run.config))
    at_the_step: list[float] = []

    def note(*_: object) -> None:
        grads = [p.grad.flatten() for p in t.model.parameters() if p.grad is not None]
        at_the_step.append(float(torch.cat(grads).norm()))

    t.optimizer.register_step_pre_hook(note)
    assert t.train_step(t.data.panel_set.batch(t.data.pages("train")), 1) is Outcome.DONE
    assert at_the_step == [pytest.approx(0.01, rel=1e-3)]
    assert t.totals.norms[0] > 0.1


def test_only_matrices_and_the_strengths_of_adapters_decay(tmp_path):
    run = synthetic.run(tmp_path / "r", learn_temperature=True)
    t = Trainer(run, synthetic.dataset(run.config))
    decayed, kept = (group["params"] for group in make_optimizer(t.model, run.config).param_groups)
    strengths = {id(p) for name, p in t.model.named_parameters() if name.endswith(".strength")}
    assert {id(p) for p in decayed if p.ndim != 2} == strengths
    assert len(strengths) == 2
    assert {p.ndim for p in kept} == {0, 1}
    assert len(decayed) + len(kept) == len(list(t.model.parameters()))


def test_the_learning_rate_warms_up_to_its_peak_and_ends_at_zero(tmp_path):
    config = synthetic.run(tmp_path / "r", lr=0.1, warmup=0.25).config
    rates = [learning_rate(s, 100, config, config.lr) for s in range(1, 101)]
    assert max(rates) == rates[24] == pytest.approx(0.1)
    assert rates[:25] == sorted(rates[:25])
    assert rates[24:] == sorted(rates[24:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_patience_ends_a_run_that_no_longer_improves(tmp_path):
    t = trained(tmp_path / "r", epochs=50, patience=2, lr=1e-6, select_margin=0.0)
    assert t.step < t.total_steps
    epochs = [r["epoch"] for r in rows(t.run) if r["split"] == "val"]
    best_epoch = t.run.best().step / t.sampler.n_batches
    assert epochs[-1] == best_epoch + 2


def test_the_best_checkpoint_is_kept_when_newer_ones_push_it_out(tmp_path):
    t = trained(tmp_path / "r", epochs=8, keep_checkpoints=1, select_margin=0.0)
    steps = {c.step for c in t.run.checkpoints()}
    assert steps == {t.run.best().step, t.total_steps}
    value = max(r["retrieval/same_page_r_precision"] for r in rows(t.run) if r["split"] == "val")
    assert t.run.best().value == value


def test_the_choice_of_the_best_does_not_follow_the_weighted_total(tmp_path):
    """Scaling all weights scales the total; what is chosen and its value must not notice."""
    a = trained(tmp_path / "a", epochs=3, grad_clip=1e6, lr=1e-4)
    b = a.run.model()
    doubled = a.run.config.replace(contrastive_weight=2, reconstruction_weight=1, alignment_weight=2)
    b.config = doubled
    one = validation.validate(a.model, a.data.panel_set, a.val_batches)["loss/total"]
    a.model.config = doubled
    two = validation.validate(a.model, a.data.panel_set, a.val_batches)["loss/total"]
    assert two == pytest.approx(2 * one, rel=1e-5)
    metrics, _ = validation.all_metrics(b, a.data.panel_set, a.val_pages)
    assert metrics["retrieval/same_page_r_precision"] == a.run.best().value


def test_resuming_with_other_threads_is_refused_unless_asked_for(tmp_path):
    t = trained(tmp_path / "r", epochs=1)
    loaded = t.run.load_checkpoint()
    loaded.state["threads"] = 7
    other = Trainer(t.run, t.data)
    with pytest.raises(StorageError, match="threads 7 then"):
        other.resume(loaded)
    other.resume(loaded, inexact=True)
    assert other.step == t.step


@pytest.mark.slow
def test_every_setting_that_is_resume_free_leaves_the_weights_alone(tmp_path):
    changed = {"keep_checkpoints": 1, "checkpoint_every": 2, "checkpoint_steps": 3, "embed_every": 1, "workers": 0}
    plain, other = trained(tmp_path / "a"), trained(tmp_path / "b", **changed)
    assert same(plain.model.state_dict(), other.model.state_dict())
    assert sorted(p.name for p in (other.run.path / "embeddings").iterdir())[0].startswith("epoch-0001")


@pytest.mark.slow
def test_a_term_alone_learns_what_it_is_for(tmp_path):
    """The last epoch, with two seeds: each term is ahead of the other, and of chance, in what it is for."""
    quiet = {"contrastive_weight": 0, "reconstruction_weight": 0, "alignment_weight": 0}
    r1, page = "retrieval/mean_r1", "retrieval/same_page_r_precision"
    ahead = 0.0
    for seed in range(2):
        last = {}
        for term in ("alignment", "contrastive"):
            settings = quiet | {f"{term}_weight": 1, "seed": seed, "form": "plain", "epochs": 8}
            t = trained(tmp_path / f"{term}{seed}", **settings)
            last[term] = [r for r in rows(t.run) if r["split"] == "val"][-1]
        pages = t.data.panel_set.batch(t.val_pages).page_ids
        assert last["alignment"][r1] > 3 / last["alignment"]["retrieval/gallery"], seed
        assert last["alignment"][r1] > last["contrastive"][r1], seed
        assert last["contrastive"][page] > 2 * metrics.chance_r_precision(pages), seed
        ahead += last["contrastive"][page] - last["alignment"][page]
    assert ahead > 0  # both gain in it: panels of a page share their setting, and texts name it


@pytest.mark.slow
def test_reconstruction_alone_keeps_its_rank_and_skill_unless_the_target_moves(tmp_path):
    alone = {"contrastive_weight": 0, "reconstruction_weight": 1, "alignment_weight": 0}
    data = synthetic.dataset(noise=0.1, theme=2.0, books=24, pages=6, single=0.0)
    last = {}
    for detach in (True, False):
        settings = {**alone, "detach_target": detach, "epochs": 40, "batch_pages": 8, "form": "plain"}
        t = trained(tmp_path / str(detach), data, validate_every=40, **settings)
        last[detach] = rows(t.run)[-1]
    assert last[True]["reconstruction/skill"] > 0.2
    assert last[False]["reconstruction/skill"] < 0.1
    assert last[True]["collapse/effective_rank"] > 2 * last[False]["collapse/effective_rank"]
    assert last[False]["loss/reconstruction"] < last[True]["loss/reconstruction"] / 10  # lower mse, worse model
