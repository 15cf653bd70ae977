"""The training loop: seeded steps, fixed validation, checkpoints that resume bit for bit.

Nothing is drawn from a global random state: batches, masked panels and dropout of step s depend on (seed, purpose, s)
alone. So a resumed run needs no generator state, and a run that validates has the same weights as one that does not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import nn

from stage3.batches import PanelBatch, PanelSet, derived_seed, fixed_batches, generator, sampler_of, seeded, steps_from
from stage3.batches.dataset import Dataset
from stage3.cli import number, percent
from stage3.config import Config
from stage3.errors import Interrupted, NumericError, StorageError
from stage3.features import absent_features, usable_device
from stage3.model import EncoderSpec, PanelEncoder, baselines, checkpoint, embedding, validation
from stage3.model.finetune import VALIDATED_PAGES, Tuned
from stage3.model.objectives import Stage3, Step, sums
from stage3.objectives import TERMS, WITH_TEMPERATURE
from stage3.peers import ALONE, Peers
from stage3.runs import Best, Loaded, RunFolder, curves
from stage3.train.ahead import ahead
from stage3.train.fixed_order import fixed_order
from stage3.train.optimizer import (
    check_optimizer,
    clip,
    clip_backbones,
    decays,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    peak_rate,
    restore_optimizer,
    set_learning_rate,
)
from stage3.train.resuming import check_moments, check_settings, check_state, lost_metrics, recorded_settings

MAX_SKIPPED_IN_A_ROW = 3
STATUS_SECONDS = 0.2  # replacing a file at every step would cost a tenth of a small run
AVERAGES = (0.75, 0.5, 0.25)  # shares of the trained weights in averages with the start
LOWER_IS_BETTER = ("loss/total",)
STATE: dict[str, tuple[type, ...]] = {  # what a checkpoint's state.json holds
    "step": (int,),
    "encoder": (dict,),
    "best": (dict, NoneType),
    "floor": (int, float, NoneType),
    "top": (int, float, NoneType),
    "validations_since_best": (int,),
    "skipped_in_a_row": (int,),
    "scaler": (dict,),
    "threads": (int,),
    "device": (str,),
    "processes": (int,),
    "pending": (dict,),
    "settings": (dict, NoneType),
    "moments": (int, NoneType),
}
ADDED: dict[str, Any] = {
    "floor": None,
    "top": None,
    "processes": 1,
    "settings": None,
    "moments": None,
}  # entries that checkpoints of earlier versions lack, and what they mean there


class Outcome(Enum):
    """What became of a training step."""

    DONE = "done"
    RESCALED = "gradients overflowed float16 at this loss scale, which is halved"  # how fp16 finds its scale
    NOT_FINITE = "loss or gradient not finite"


@dataclass
class Totals:
    """Sums over the active items of the steps since the last row of metrics; means are made only here."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    silent: int = 0  # no-signal batches; a key of checkpoints, so it keeps its name
    skipped: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, step: Step, peers: Peers = ALONE, *, by_batch: bool = False) -> None:
        """Count one forward pass of all processes; `by_batch` is the ablation `batch_means`."""
        for name, (value, count) in sums(step, peers, by_batch=by_batch).items():
            entry = self.losses.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += count
        for name, n in step.counts.items():
            self.counts[name] = self.counts.get(name, 0) + n
        self.silent += not step.has_signal

    def row(self, weights: dict[str, float]) -> dict[str, Any]:
        """The row's losses, counts, gradient norm and speed."""
        means = {name: value / count for name, (value, count) in self.losses.items() if count}
        took = time.perf_counter() - self.started
        row = validation.loss_row(means, weights)
        row |= {f"active/{name}": n for name, n in self.counts.items()}
        row |= {"active/silent_batches": self.silent, "skipped_steps": self.skipped}
        row["grad_norm"] = sum(self.norms) / len(self.norms) if self.norms else math.nan
        return row | {"seconds": took, "panels_per_second": self.counts.get("panels", 0) / max(took, 1e-9)}


class Trainer:
    """One run being trained; `fit` does all of it."""

    def __init__(
        self, run: RunFolder, data: Dataset, *, say: Callable[[str], None] = lambda _: None, peers: Peers = ALONE
    ) -> None:
        """A trainer at step 0.

        Args:
            run: an open run whose lock is held.
            data: its data set.
            say: called with each line to print.
            peers: the processes that train it together; each has a trainer of its own.
        """
        self.run, self.data, self.config, self.say, self.peers = run, data, run.config, say, peers
        self.device = peers.device(usable_device(self.config.device))
        self.beforehand = self.device.type == "cuda"  # cut the next batch while this one is computed
        spec = EncoderSpec.of(self.config, data.features.image_sizes, data.features.text_dim)
        train_pages = data.pages("train")
        self.model = Stage3.untrained(spec, self.config, baselines.statistics(data, train_pages)).to(self.device)
        self.peak = peak_rate(self.config, len(data.panel_set.rows_of(train_pages)))
        if self.config.residual_leak and data.features.keys is not None:  # features made in memory: zeros stand for it
            assert isinstance(self.model.encoder, PanelEncoder)
            self.model.encoder.leak(*absent_features(self.config))
        self.tuned = Tuned(self.config, data, self.device) if self.config.finetune != "none" else None
        self.everything = nn.ModuleList([self.model, *([self.tuned] if self.tuned else [])])
        groups = self.tuned.groups(decays) if self.tuned else ()
        self.optimizer = make_optimizer(self.model, self.config, groups)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "fp16")
        self.sampler = sampler_of(data.panel_set, train_pages, data.table.book_of_page[train_pages], self.config)
        self.val_pages = data.pages("val")
        if self.tuned and len(self.val_pages) > VALIDATED_PAGES:  # each validation encodes them anew
            every = np.linspace(0, len(self.val_pages) - 1, VALIDATED_PAGES).round().astype(np.int64)
            self.say(
                f"finetune: {VALIDATED_PAGES:,} of {len(self.val_pages):,} validation pages are used, evenly spaced"
            )
            self.val_pages = self.val_pages[every]
        self.ranked_pages = validation.evenly(self.val_pages)
        self.val_batches = fixed_batches(self.val_pages, self.config.batch_pages, self.config.seed)
        self.total_steps = self.config.epochs * self.sampler.n_batches
        self.step = 0
        self.saved_step = -1
        self.best: Best | None = None
        self.floor = math.nan  # same-page R-precision on validation pages before the first step
        self.top = math.nan  # the most that was reached in the metric that chooses, higher being better
        self.validations_since_best = 0
        self.skipped_in_a_row = 0
        self.skipped = 0  # steps since the last validation
        self.totals = Totals()
        self.began = time.monotonic()
        self.shown = 0.0  # when status.json last said how far the run is
        self.on_step: Callable[[int], None] = lambda _: None
        self.on_row: Callable[[dict[str, Any]], None] = lambda _: None  # each row of metrics, once it is written

    # --- one step

    def train_step(self, batch: PanelBatch, step: int, crops: Sequence[Any] = ()) -> Outcome:
        """One optimizer step over everything learned, or the reason why it was skipped.

        A batch without any signal changes no weight and no optimizer state.

        Args:
            batch: this process's share of the step's panels.
            step: from 1.
            crops: of its panels with an image, where an image backbone is trained (`finetune.Crops`).
        """
        if not self.model.training:
            self.model.train()
        mask = None if self.config.leave_one_out else generator(self.config.seed, "mask", step)
        apart = (self.peers.rank,) if self.peers.size > 1 else ()  # no two processes draw the same dropout
        with seeded(derived_seed(self.config.seed, "dropout", step, *apart), self.device):
            with torch.autocast(self.device.type, self._dtype(), enabled=self.config.precision != "float32"):
                batch = batch.to(self.device)
                found = self.model(self.tuned(batch, crops) if self.tuned else batch, mask)
            if not found.has_signal:
                self.totals.add(found, self.peers, by_batch=self.config.batch_means)
                return Outcome.DONE
            self.optimizer.zero_grad(set_to_none=True)
            total = found.total
            self.scaler.scale(total).backward()
        self.peers.sum_gradients(self.everything.parameters())
        self.scaler.unscale_(self.optimizer)
        norm = clip(self.model, self.config)
        if self.tuned and not math.isfinite(other := clip_backbones(self.tuned, self.config)):
            norm = other
        finite = math.isfinite(self.peers.sum([float(total.detach())])[0])
        if not (finite and math.isfinite(norm)):
            too_large = finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1
            self.scaler.update()
            return Outcome.RESCALED if too_large else Outcome.NOT_FINITE
        lr = learning_rate(step, self.total_steps, self.config, self.peak)
        set_learning_rate(self.optimizer, lr, self.peak)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.totals.add(found, self.peers, by_batch=self.config.batch_means)
        self.totals.norms.append(norm)
        return Outcome.DONE

    def _dtype(self) -> torch.dtype:
        return torch.float16 if self.config.precision == "fp16" else torch.bfloat16

    # --- the loop

    def fit(self, stop: Callable[[], bool]) -> None:
        """Train to the end, or until `stop()`; the run then holds a checkpoint of the last step.

        Raises:
            Interrupted: stopped on request; a resumed run continues bit for bit.
            NumericError: three steps in a row were not finite.
        """
        self.run.set_status("running", step=self.step, total_steps=self.total_steps, message="training")
        with fixed_order(self.device, strict=self.tuned is None):
            self._fit(stop)

    def _fit(self, stop: Callable[[], bool]) -> None:
        for line in self.sampler.shortfalls if self.step == 0 else ():
            self.say(f"batches: {line}")
        if len(self.ranked_pages) < len(self.val_pages):
            some = f"{len(self.ranked_pages):,} of {len(self.val_pages):,} pages, evenly spaced"
            self.say(f"validation: losses on all pages; retrieval, collapse and reconstruction on {some}")
        if self.saved_step < 0 and len(self.val_pages):  # what no training at all gives can be the best
            self._validate(0, 0)
            self.checkpoint()
        for (step, epoch, pages, crops), batch in ahead(self._steps(), self._batch, beforehand=self.beforehand):
            if step > self.total_steps:
                break
            if 0 < self.config.patience <= self.validations_since_best:
                self.say(f"stopped early: {self.config.patience} validations without a better checkpoint")
                break
            if self._should_stop(stop):
                self.checkpoint()
                raise Interrupted(f"stopped after step {self.step} of {self.total_steps}; the same command resumes it")
            outcome = self.train_step(batch, step, crops)
            self.step = step
            self._count_skip(outcome, pages)
            self._after_step(step, epoch)
            self.on_step(step)
        self.checkpoint()
        if self.config.average_back and self.step <= self.total_steps:
            self._average_back()
        self._finish_best()

    def _steps(self) -> Iterator[tuple[int, int, np.ndarray, Sequence[Any]]]:
        """(step, epoch, pages, crops) of each step to come; crops only where an image backbone is trained."""
        steps = steps_from(self.sampler, self.step)
        if self.tuned is None or self.tuned.vision is None:
            return ((step, epoch, pages, ()) for step, epoch, pages in steps)
        count = self.data.panel_set.count
        return self.tuned.crops.ahead(steps, lambda pages: self.peers.own_share(pages, count[pages]))

    def _batch(self, of: tuple[int, int, np.ndarray, Sequence[Any]]) -> PanelBatch:
        """This process's share of a step's panels, ready to be copied to the device."""
        batch = self.data.panel_set.batch(of[2], self.peers)
        return batch.pinned() if self.device.type == "cuda" else batch

    def panel_set(self, pages: np.ndarray, peers: Peers = ALONE) -> PanelSet:
        """What batches of these pages are cut from, with features as trained backbones give them now."""
        return self.tuned.panel_set(pages, peers) if self.tuned else self.data.panel_set

    def _average_back(self) -> None:
        """Validate averages of the weights with those of the start; one that is better becomes a checkpoint of its own.

        WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). It follows the last step, and may be
        chosen like any other.
        """
        if not len(self.val_pages):
            return
        start = {name: t.to(self.device) for name, t in self.model.before_training().state_dict().items()}
        trained = {name: t.clone() for name, t in self.model.state_dict().items()}
        last = self.step
        for share in AVERAGES:
            mixed = {n: torch.lerp(start[n], t, share) if t.is_floating_point() else t for n, t in trained.items()}
            self.model.load_state_dict(mixed)
            self.step = last + 1
            if self._validate(self.step, self.config.epochs, average=share):
                self.say(f"the average of {percent(share)} of the trained weights with the start is better")
                self.checkpoint()
                return
        self.step = last
        self.model.load_state_dict(trained)

    def _should_stop(self, stop: Callable[[], bool]) -> bool:
        """Whether any process is to stop; then all do, at the same step."""
        limit = self.config.max_minutes
        over = limit > 0 and time.monotonic() - self.began > 60 * limit
        return self.peers.any(stop() or self.run.stop_requested or over or self.peers.orphaned)

    def _count_skip(self, outcome: Outcome, pages: np.ndarray) -> None:
        if outcome is Outcome.DONE:
            self.skipped_in_a_row = 0
            return
        self.totals.skipped += 1
        self.skipped += 1
        if outcome is Outcome.RESCALED:
            self.run.log(f"step {self.step} skipped: {outcome.value}, now {self.scaler.get_scale():g}")
            return
        self.skipped_in_a_row += 1
        ids = self.data.table.pages["page_id"].iloc[pages].tolist()
        self.run.log(f"step {self.step} skipped: {outcome.value}; pages {', '.join(ids)}")
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NumericError(
                f"{self.skipped_in_a_row} steps in a row were not finite, the last is step {self.step} "
                f"(pages {', '.join(ids[:3])} …). Lower lr, raise a temperature, or look at these pages; "
                "the last good checkpoint is kept."
            )

    def _after_step(self, step: int, epoch: int) -> None:
        ends_epoch = step % self.sampler.n_batches == 0
        if step % self.config.log_every == 0 or ends_epoch:
            self._log_train(step, epoch)
        save = self.config.checkpoint_steps > 0 and step % self.config.checkpoint_steps == 0
        if ends_epoch:
            last = step == self.total_steps
            better = (epoch % self.config.validate_every == 0 or last) and self._validate(step, epoch)
            save = save or better or last or epoch % self.config.checkpoint_every == 0
            if self.config.embed_every and (epoch % self.config.embed_every == 0 or last):
                self._save_embeddings(epoch)
        if save:
            self.checkpoint()

    def _log_train(self, step: int, epoch: int) -> None:
        row = {"step": step, "epoch": epoch, "split": "train"} | self.totals.row(self.model.weights)
        row["lr"] = lr = learning_rate(step, self.total_steps, self.config, self.peak)
        if self.tuned:
            row["finetune_lr"] = lr / self.peak * self.config.finetune_lr
        self._write(row | self._temperatures())
        self.totals = Totals()
        if time.monotonic() - self.shown > STATUS_SECONDS:
            self.run.set_status(step=step, epoch=epoch)
            self.shown = time.monotonic()

    def _write(self, row: dict[str, Any]) -> None:
        self.run.append_metrics(row)
        self.on_row(row)

    def _temperatures(self) -> dict[str, float]:
        return {f"temperature/{o.name}": self.model.temperature_of(o.name).value for o in WITH_TEMPERATURE}

    def _validate(self, step: int, epoch: int, **about: float) -> bool:
        """Write a validation row, with what is to be said `about` it; whether it is the best so far."""
        started = time.perf_counter()
        row: dict[str, Any] = {"step": step, "epoch": epoch, "split": "val"} | about
        if len(self.val_pages):
            noise = derived_seed(self.config.seed, "validation noise", step)
            panel_set = self.panel_set(self.val_pages, self.peers)
            about_data = (self.model, panel_set)
            row |= validation.validate(*about_data, self.val_batches, self.device, noise_seed=noise, peers=self.peers)
            row |= validation.all_metrics(*about_data, self.ranked_pages, self.device, self.peers)[0]
            if self.peers.leads:
                row |= validation.gradient_budget(self.model, panel_set.batch(self.val_batches[0]).to(self.device))
            row = self.peers.share(row)  # all judge by the same numbers
        row |= self._temperatures() | {"skipped_steps": self.skipped}
        self.skipped = 0
        row["seconds"] = time.perf_counter() - started
        self._write(row)
        self.say(validation_line(row, self.config, self.total_steps))
        return self._judge(step, row, 0.0 if about else self.config.select_margin)

    def _judge(self, step: int, row: dict[str, Any], margin: float) -> bool:
        """Make this step the best if it is about as good as any before and not below the start.

        A later step wins within the margin, as its learning rate is lower: that much of a difference on a few
        validation books is noise. Unless `not_below_start` is off, none wins whose same-page R-precision is below that
        of the start.
        """
        metric, value = self._choosing(row)
        if metric in LOWER_IS_BETTER:
            reached, margin = -value, 0.0
        else:
            reached = value
        same_page = float(row.get(baselines.MAIN, math.nan))
        if step == 0 and self.config.not_below_start:
            self.floor = same_page
        self.validations_since_best += 1
        if not math.isfinite(value) or same_page < self.floor:  # False where either is not measured
            return False
        if math.isnan(self.top) or reached > self.top:
            self.top = reached
            self.validations_since_best = 0
        elif reached < self.top - margin or (reached == self.top and margin == 0):
            return False
        self.best = Best(step, value, metric)
        return True

    def _choosing(self, row: dict[str, Any]) -> tuple[str, float]:
        """Name and value of the metric that chooses: `select_by`, or same-page R-precision where that is undefined."""
        for metric in (self.config.select_by, baselines.MAIN):
            value = float(row.get(metric, math.nan))
            if math.isfinite(value):
                return metric, value
        return self.config.select_by, math.nan

    def _save_embeddings(self, epoch: int) -> None:
        """Panel embeddings of up to about 2,000 panels, the same ones each time, for drift maps."""
        if not self.peers.leads:
            return
        pages = self.data.pages("all")
        pages = pages[:: max(1, math.ceil(len(self.data.table) / 2000))]
        embedded = embedding.embed(self.model, self.panel_set(pages), pages, self.device)
        embedding.save_embeddings(self.run.path / "embeddings" / f"epoch-{epoch:04d}.safetensors", embedded)

    # --- checkpoints

    def checkpoint(self) -> None:
        """Save weights, optimizer and position; then point at the best and prune, in this order.

        Raises:
            NumericError: the weights are not finite; nothing is saved, so no good checkpoint makes room for them.
        """
        if self.saved_step == self.step:
            return
        self._check_weights()
        self.saved_step = self.step
        if not self.peers.leads:
            return
        state = {
            "step": self.step,
            "encoder": self.model.encoder.spec.to_dict(),
            "best": vars(self.best) if self.best else None,
            "floor": self.floor if math.isfinite(self.floor) else None,
            "top": self.top if math.isfinite(self.top) else None,
            "validations_since_best": self.validations_since_best,
            "skipped_in_a_row": self.skipped_in_a_row,
            "scaler": self.scaler.state_dict(),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "processes": self.peers.size,
            "pending": {"losses": self.totals.losses, "counts": self.totals.counts, "norms": self.totals.norms}
            | {"silent": self.totals.silent, "skipped": self.totals.skipped},
            "settings": recorded_settings(self.config, self.run.path),
        }
        weights = {name: t.cpu().contiguous() for name, t in self.model.state_dict().items()}
        tensors = {"model": weights, "optimizer": optimizer_tensors(self.model, self.optimizer)}
        if self.tuned:
            tensors["optimizer"] |= optimizer_tensors(self.tuned, self.optimizer)
        state["moments"] = len(tensors["optimizer"])
        self.run.save_checkpoint(self.step, tensors, state, self.tuned.files() if self.tuned else {})
        best: dict[str, Any] = {}
        if self.best:
            self.run.set_best(self.best.step, self.best.value, self.best.metric)
            best = {"best_step": self.best.step, "best_value": self.best.value}
        self.run.set_status(step=self.step, saved_step=self.step, **best)
        self.run.prune(self.config.keep_checkpoints)

    def _check_weights(self) -> None:
        tuned = self.tuned.backbones.state_dict() if self.tuned else {}
        weights = {**self.model.state_dict(), **tuned}
        bad = [name for name, t in weights.items() if not bool(torch.isfinite(t).all())]
        if bad:
            raise NumericError(
                f"{len(bad)} tensors of the model are not finite after step {self.step}, the first is {bad[0]}. "
                "Lower lr or weight_decay; the last good checkpoint is kept."
            )

    def check(self, loaded: Loaded) -> None:
        """Refuse a checkpoint that this run cannot go on from, whatever its manifest vouches for.

        Raises:
            ConfigError: the run's settings were edited since.
            StorageError: another encoder, other tensors, or a state that lacks an entry; they are named.
        """
        check_settings(self.run, loaded.state)
        state, where = ADDED | loaded.state, loaded.path / "state.json"
        for name, kinds in STATE.items():
            if name not in state or not isinstance(state[name], kinds):
                found = type(state[name]).__name__ if name in state else "nothing"
                raise StorageError(f"{where}: {name}: {found}, expected {' or '.join(k.__name__ for k in kinds)}")
        if state["step"] != loaded.step:
            raise StorageError(f"{where}: step: {state['step']} in the folder of step {loaded.step}")
        for name, made, own in (("best", Best, set()), ("pending", Totals, {"started"})):
            wrong = set(state[name]) ^ ({f.name for f in fields(made)} - own) if state[name] is not None else set()
            if wrong:
                raise StorageError(f"{where}: {name}: entry {min(wrong)!r} is missing or unknown")
        check_state(state, loaded, self.scaler.state_dict())
        ours = self.model.encoder.spec.to_dict()
        differ = [name for name in {**ours, **state["encoder"]} if ours.get(name) != state["encoder"].get(name)]
        if differ:
            shown = ", ".join(f"{n} {state['encoder'].get(n)}, this run has {ours.get(n)}" for n in differ[:10])
            raise StorageError(f"{where}: encoder: another model's checkpoint ({shown})")
        checkpoint.check_tensors(self.model.state_dict(), loaded.tensors.get("model", {}), loaded.path)
        for module, tensors in self._optimizer_state(loaded):
            check_optimizer(module, tensors)
        check_moments(state["moments"], loaded)
        if self.tuned:
            self.tuned.check(loaded.path)

    def _optimizer_state(self, loaded: Loaded) -> list[tuple[nn.Module, dict[str, torch.Tensor]]]:
        """A checkpoint's optimizer state, of the model and of trained backbones."""
        tensors = loaded.tensors.get("optimizer", {})
        if self.tuned is None:
            return [(self.model, tensors)]
        apart = {name: t for name, t in tensors.items() if name.partition("/")[2].startswith("backbones.")}
        rest = {name: t for name, t in tensors.items() if name not in apart}
        return [(self.model, rest), (self.tuned, apart)]

    def resume(self, loaded: Loaded, *, inexact: bool = False) -> None:
        """Continue from a checkpoint, and cut the metrics back to it.

        Raises:
            StorageError: it is not this run's, or was made with other threads or on another device, where bits differ,
                unless `inexact`.
        """
        self.check(loaded)
        state = ADDED | loaded.state
        here = {"threads": torch.get_num_threads(), "device": self.device.type, "processes": self.peers.size}
        changed = [f"{k} {state[k]} then, {v} now" for k, v in here.items() if state[k] != v]
        if changed and not inexact:
            raise StorageError(
                f"{loaded.path}: cannot resume bit for bit ({'; '.join(changed)}). "
                "Give --allow_inexact_resume to resume anyway."
            )
        self.model.load_state_dict(loaded.tensors["model"])
        if self.tuned:
            self.tuned.load(loaded.path)
        for module, tensors in self._optimizer_state(loaded):
            restore_optimizer(module, self.optimizer, tensors)
        self.scaler.load_state_dict(state["scaler"])
        self.step = self.saved_step = loaded.step
        self.best = Best(**state["best"]) if state["best"] else None
        self.floor = math.nan if state["floor"] is None else state["floor"]
        self.top = math.nan if state["top"] is None else state["top"]
        if self.best and math.isnan(self.top):  # saved before the margin existed, when the best was the top
            self.top = self.best.value * (-1 if self.best.metric in LOWER_IS_BETTER else 1)
        self.validations_since_best = state["validations_since_best"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.totals = Totals(**state["pending"])
        last = min(self.step, self.total_steps)
        for line in lost_metrics(self.run.metrics(), last, self.config.log_every, self.sampler.n_batches):
            self.say(line)
        self.run.cut_metrics(self.step)
        self.skipped = self.totals.skipped + curves.skipped_since_validation(self.run.metrics())
        if self.best:
            self.run.set_best(self.best.step, self.best.value, self.best.metric)
        else:
            self.run.clear_best()

    def _finish_best(self) -> None:
        """Say where the checkpoint to use is not what `select_by` promises, instead of inventing a value."""
        if self.best is None:
            why = "no validation panel has page mates or both image and text" if len(self.val_pages) else ""
            why = why or "no validation books"
            self.say(f"{self.config.select_by} was not measured ({why}): the last checkpoint is used")
        elif self.best.metric != self.config.select_by:
            self.say(f"{self.config.select_by} was not measured: {baselines.MAIN} chose the checkpoint")
        if self.best is not None and self.best.step == 0:
            self.say("no checkpoint is better than the start and keeps its same-page R-precision: the start is used")


def validation_line(row: dict[str, Any], config: Config, total_steps: int) -> str:
    """One line per epoch for a person watching."""

    def share(name: str) -> str:
        return percent(row.get(name))

    def loss(name: str) -> str:
        return number(row.get(f"loss/{name}"))

    terms = ", ".join(f"{term} {loss(term)}" for term in TERMS)
    return (
        f"epoch {row['epoch']:>3}/{config.epochs}  step {row['step']:>5}/{total_steps}  "
        f"val loss {loss('total')} ({terms})  R@5 image→text {share('retrieval/i2t_r5')}, "
        f"text→image {share('retrieval/t2i_r5')}"
    )
