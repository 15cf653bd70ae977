"""A table of planted bugs, and a runner that shows that the tests catch each one.

    python -m tests.planted_bugs            all of them (minutes)
    python -m tests.planted_bugs F2 F6      those whose name starts so

Each bug replaces one piece of source in a copy of the repository and runs the tests named beside it; a bug that lives
is printed and the exit code is 1. `tests/test_planted_bugs.py` keeps the table honest: every piece must still occur.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bug:
    """One replacement of `old` by `new` in `file`, and the tests (pytest arguments) that must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


BUGS = (
    Bug(
        "F1 validation leaves dropout on",
        "stage3/model/validation.py",
        "        model.reconstruction_head.train(dropout)",
        "        model.train()",
        "tests/train/test_trainer.py -k twenty_times_or_panels_fall",
    ),
    Bug(
        "F1 validation masks one random panel",
        "stage3/model/validation.py",
        'draw = generator(noise_seed, "validation mask", i) if mask else None',
        "draw = generator(int(torch.randint(99999, ()))) if True else None",
        "tests/train/test_trainer.py -k panels_fall_into_batches",
    ),
    Bug(
        "F1 modes are not restored",
        "stage3/model/embedding.py",
        "            module.training = mode\n\n\n@dataclass",
        "            pass\n\n\n@dataclass",
        "tests/train/test_trainer.py -k modes_are_restored",
    ),
    Bug(
        "F1 validation seeds the global state",
        "stage3/model/validation.py",
        "    with frozen(model), seeded(noise_seed, torch.device(device)):\n",
        "    torch.manual_seed(noise_seed)\n    with frozen(model):\n",
        "tests/train/test_trainer.py -k global_random_state",
    ),
    Bug(
        "F1 validation averages over batches",
        "stage3/model/validation.py",
        'f"sum/{name}": value, f"count/{name}": count',
        'f"sum/{name}": value / max(count, 1), f"count/{name}": 1',
        "tests/train/test_trainer.py -k panels_fall_into_batches",
    ),
    Bug(
        "F2 target is not detached",
        "stage3/losses/__init__.py",
        "target = target.detach() if detach_target else target",
        "target = target",
        "tests/model/test_objectives.py -k target_gets_exactly",
    ),
    Bug(
        "F2 context is detached too",
        "stage3/model/objectives.py",
        "        if self.config.detach_context:\n",
        "        if True:\n",
        "tests/model/test_objectives.py -k target_gets_exactly",
    ),
    Bug(
        "F3 alignment in one direction",
        "stage3/model/objectives.py",
        "both = PanelLoss((i2t.value + t2i.value) / 2, i2t.valid & t2i.valid)",
        "both = i2t",
        "tests/model/test_objectives.py -k mean_of_both_directions",
    ),
    Bug(
        "F3 alignment is the sum",
        "stage3/model/objectives.py",
        "(i2t.value + t2i.value) / 2",
        "(i2t.value + t2i.value)",
        "tests/model/test_objectives.py -k mean_of_both_directions",
    ),
    Bug(
        "F3 logits are averaged with their transpose",
        "stage3/model/objectives.py",
        "both = PanelLoss((i2t.value + t2i.value) / 2, i2t.valid & t2i.valid)",
        "both = _averaged_logits(image, text, temperature)",
        "tests/model/test_objectives.py -k mean_of_both_directions",
    ),
    Bug(
        "F4 weights are forgotten in the total",
        "stage3/model/objectives.py",
        "self.weights[t] * (self.losses[t].value.sum() / max(self.active[t], 1)) for t in found",
        "self.losses[t].value.sum() / max(self.active[t], 1) for t in found",
        "tests/model/test_objectives.py -k total_weighs",
    ),
    Bug(
        "F4 weights are forgotten in validation",
        "stage3/model/validation.py",
        "weighted = {t: weights[t] * means[t] for t in TERMS",
        "weighted = {t: means[t] for t in TERMS",
        "tests/train/test_trainer.py -k weighted_sum_in_training",
    ),
    Bug(
        "F5 a step without signal steps all the same",
        "stage3/train/trainer.py",
        "            if not found.has_signal:\n",
        "            if False:\n",
        "tests/train/test_trainer.py -k without_signal",
    ),
    Bug(
        "F5 zeros are averaged in",
        "stage3/losses/__init__.py",
        "return self.value.sum() / self.valid.sum().clamp(min=1)",
        "return self.value.mean() if len(self.value) else self.value.sum()",
        "tests/losses/test_losses.py tests/model/test_objectives.py",
    ),
    Bug(
        "F5 the sampler drops a page",
        "stage3/batches/sampler.py",
        "order[~placed[order]]])[",
        "order[: len(order) - len(pages)]])[",
        "tests/batches/test_batches.py -k every_page_comes_once",
    ),
    Bug(
        "F5 the sampler guarantees nothing",
        "stage3/batches/sampler.py",
        "        if not self.guaranteed:\n",
        "        if True:\n",
        "tests/batches/test_batches.py -k guarantee",
    ),
    Bug(
        "F5 gathered pairs leave no room for a multi-panel page",
        "stage3/batches/deal.py",
        "need, free = multi, int(sizes[b]) - multi",
        "need, free = 0, int(sizes[b])",
        "tests/batches/test_batches.py -k leave_room",
    ),
    Bug(
        "F5 batches that are left short stay short",
        "stage3/batches/deal.py",
        "    if found is None:\n        return False\n",
        "    if True:\n        return False\n",
        "tests/batches/test_batches.py -k dealt_again",
    ),
    Bug(
        "F5 the ablation leaves batches without a signal out of its mean",
        "stage3/model/objectives.py",
        "(value / max(n, 1), 1)",
        "(value / max(n, 1), int(n > 0))",
        "tests/model/test_ablations.py -k means_over_batches",
    ),
    Bug(
        "F6 the temperature does not reach supcon",
        "stage3/model/objectives.py",
        '        model.temperature_of("contrastive")(),\n',
        "        0.07,\n",
        "tests/model/test_objectives.py -k temperatures_are_separate",
    ),
    Bug(
        "F6 the anchor stays in its own denominator",
        "stage3/losses/__init__.py",
        "log_prob = logits.masked_fill(itself, torch.finfo(z.dtype).min).log_softmax(dim=1)",
        "log_prob = logits.log_softmax(dim=1)",
        "tests/losses/test_losses.py",
    ),
    Bug(
        "F6 an epsilon stays in the logarithm",
        "stage3/losses/__init__.py",
        "    log_epsilon: float = 0.0,\n",
        "    log_epsilon: float = 1e-6,\n",
        "tests/losses/test_losses.py -k every_temperature",
    ),
    Bug(
        "S1 blocks below the diagonal are dropped",
        "stage3/losses/blockwise.py",
        "            if i != j:\n                softmax.accumulate(lse[j], block, dim=0)\n",
        "",
        "tests/losses/test_losses.py -k chunked_supcon",
    ),
    Bug(
        "S2 the clip misses the head",
        "stage3/train/optimizer.py",
        "clip_grads_with_norm_(model.parameters(),",
        'clip_grads_with_norm_([p for n, p in model.named_parameters() if n.startswith("encoder.")],',
        "tests/train/test_trainer.py -k clip_covers",
    ),
    Bug(
        "S2 the clip comes after the step",
        "stage3/train/trainer.py",
        "        norm = clip(self.model, self.config)\n",
        '        norm = clip(self.model, self.config.replace(clip_scope="none"))\n',
        "tests/train/test_trainer.py -k clip_reaches_the_step",
    ),
    Bug(
        "S2 a non-finite step is taken",
        "stage3/train/trainer.py",
        "        if not (finite and math.isfinite(norm)):\n",
        "        if False:\n",
        "tests/train/test_trainer.py -k non_finite",
    ),
    Bug(
        "mask absent modalities leak into the fusion",
        "stage3/model/encoder.py",
        "seen = torch.ones_like(present) if self.spec.residual_leak else present",
        "seen = torch.ones_like(present)",
        "tests/model/test_model.py",
    ),
    Bug(
        "mask absent features reach the encoder",
        "stage3/model/encoder.py",
        "    rows = present.nonzero()[:, 0]\n",
        "    rows = torch.arange(len(present))\n",
        "tests/model/test_model.py",
    ),
    Bug(
        "resume dropout is drawn from the global state",
        "stage3/train/trainer.py",
        'with seeded(derived_seed(self.config.seed, "dropout", step, *apart), self.device):',
        "with torch.enable_grad():",
        "tests/train/test_trainer.py -k global_random_state",
    ),
    Bug(
        "resume the optimizer starts afresh",
        "stage3/train/trainer.py",
        "restore_optimizer(module, self.optimizer, tensors)",
        "pass",
        "tests/train/test_trainer.py -k bit_for_bit",
    ),
    Bug(
        "resume the sampler starts its epoch again",
        "stage3/batches/sampler.py",
        "for pages in sampler.epoch(epoch)[done:]:",
        "for pages in sampler.epoch(epoch)[0:]:",
        "tests/batches/test_batches.py -k resuming_at_any_step",
    ),
    Bug(
        "training on pages that define no loss finishes",
        "stage3/train/signal.py",
        'if not found and trainer.config.sampler == "guaranteed":',
        "if False:",
        "tests/train/test_signal.py -k pair_alone",
    ),
    Bug(
        "the smallest difference forgets that there are two models",
        "stage3/model/amount.py",
        "return student_quantile(n - 1) * math.sqrt(2) * error",
        "return student_quantile(n - 1) * error",
        "tests/model/test_amount.py -k once_in_twenty",
    ),
    Bug(
        "resume metrics are not cut",
        "stage3/train/trainer.py",
        "        self.run.cut_metrics(self.step)\n",
        "",
        "tests/train/test_trainer.py -k written_again_not_twice",
    ),
    Bug(
        "resume the schedule starts again",
        "stage3/train/trainer.py",
        "        lr = learning_rate(step, self.total_steps, self.config, self.peak)\n",
        "        since = self.run.status.step + 1 - self.saved_step\n"
        "        lr = learning_rate(since, self.total_steps, self.config, self.peak)\n",
        "tests/train/test_trainer.py -k bit_for_bit",
    ),
    Bug(
        "data a page number behind an underscore stays in the book",
        "stage3/data/readers/books.py",
        "(?: (?P<bare>\\d+) [abclr]?",
        "\\b (?: (?P<bare>\\d+) [abclr]?",
        "tests/data/test_readers.py -k flat_album_never",
    ),
    Bug(
        "data only the first bad row is told",
        "stage3/data/readers/manifest_rows.py",
        'rows = [f"{self.path}:{line}: {what}" for line, what in self.found]',
        'rows = [f"{self.path}:{line}: {what}" for line, what in self.found][:1]',
        "tests/data/test_bad_input.py -k all_bad_rows",
    ),
    Bug(
        "data a word is no text on every panel that says it",
        "stage3/data/readers/no_text.py",
        "n >= KNOWN_COUNT and share >= KNOWN_SHARE",
        "n >= 1",
        "tests/data/test_bad_input.py -k somebody_says",
    ),
    Bug(
        "data a panel that stands twice stays twice",
        "stage3/data/readers/rules.py",
        "    copies = repeated(kept)\n",
        "    copies: dict[int, int] = {}\n",
        "tests/data/test_bad_input.py -k same_panel_twice",
    ),
    Bug(
        "data a suffix leads to another book",
        "stage3/data/readers/resolution.py",
        "[(_suffix(parts), _whole(parts), SUFFIX), (_whole(parts), _suffix(parts), SUFFIX)]",
        "[(_suffix(parts), _suffix(parts), SUFFIX)]",
        "tests/data/test_readers.py -k never_takes_that_of_another_book",
    ),
    Bug(
        "data boxes are in the format's own unit whatever they say",
        "stage3/data/readers/notation.py",
        "found = first if fine and unit != RESIZED",
        "found = first if unit != RESIZED",
        "tests/data/test_notation.py -k size_at_which_a_model_saw",
    ),
    Bug(
        "data smart_resize rounds up instead of down",
        "stage3/data/readers/units.py",
        "smaller = np.maximum(np.floor(",
        "smaller = np.maximum(np.ceil(",
        "tests/data/test_notation.py -k smart_resize_is_the_models_own",
    ),
    Bug(
        "data a png with much metadata is refused",
        "stage3/data/image_formats.py",
        "if largest <= PngImagePlugin.MAX_TEXT_CHUNK:",
        "if True:",
        "tests/data/test_images.py -k megabytes_of_metadata",
    ),
    Bug(
        "data a split by page",
        "stage3/data/splits.py",
        "of_page: np.ndarray = split_of_book[books]",
        "of_page: np.ndarray = np.arange(len(books)) % 3",
        "tests/batches/test_batches.py -k split_by_book",
    ),
    Bug(
        "data images that are overwritten in place are not seen",
        "stage3/data/readers/cache.py",
        "return table if unchanged else None",
        "return table",
        "tests/data/test_readers.py -k repaired_image",
    ),
    Bug(
        "explorer addresses of images stay when the data changes",
        "app/shell.py",
        "side, loaders.data_version(chosen_run.run))",
        "side)",
        "tests/app/test_app_cache.py -k overwritten_in_place",
    ),
    Bug(
        "data a run that sees no image starts",
        "stage3/data/readers/sight.py",
        "    if without > config.max_without_image:",
        "    if without > 1:",
        "tests/data/test_sight.py -k third_of_the_images",
    ),
    Bug(
        "data a failed start leaves its settings to the next",
        "stage3/train/__init__.py",
        "    wanted = asked.over()\n    changed = ",
        "    wanted = asked.over(the_run)\n    changed = ",
        "tests/train/test_train_command.py -k failed_start",
    ),
    Bug(
        "data COCO ids start at 0",
        "app/parts/export.py",
        '"id": int(row) + 1,',
        '"id": int(row),',
        "tests/app/test_app_security.py -k coco_ids",
    ),
    Bug(
        "data the split is drawn anew when the data has changed",
        "stage3/runs/data.py",
        "        split = recorded_split(table, books)",
        "        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)",
        "tests/runs/test_run_data.py -k keep_the_split",
    ),
    Bug(
        "train a checkpoint below the start may be the best",
        "stage3/train/trainer.py",
        "if not math.isfinite(value) or same_page < self.floor:",
        "if not math.isfinite(value):",
        "tests/train/test_selection.py -k only_loses",
    ),
    Bug(
        "train the margin is measured from the checkpoint before",
        "stage3/train/trainer.py",
        "reached < self.top - margin",
        "reached < (self.best.value if self.best else self.top) - margin",
        "tests/train/test_selection.py -k latest_within",
    ),
    Bug(
        "anchor image and text share their dimensions",
        "stage3/model/anchor.py",
        "    return list(pairwise(edges)), (images, dim)",
        "    return list(pairwise(edges)), (0, dim - images)",
        "tests/model/test_anchor.py -k cosines_of_its_frozen",
    ),
    Bug(
        "anchor statistics of the test panels",
        "stage3/train/trainer.py",
        "baselines.statistics(data, train_pages)",
        'baselines.statistics(data, data.pages("test"))',
        "tests/model/test_baselines.py -k bit_for_bit",
    ),
    Bug(
        "data the best is chosen by the weighted total",
        "stage3/train/trainer.py",
        "            value = float(row.get(metric, math.nan))",
        '            value = -float(row.get("loss/total", math.nan))',
        "tests/train/test_trainer.py -k best_checkpoint_is_kept_or_choice_of_the_best",
    ),
    Bug(
        "data the manifest's sha256 is not compared",
        "stage3/features/page_digests.py",
        "        if sha256 and known.sha256 != sha256:\n",
        "        if False:\n",
        "tests/features/test_features.py -k i08",
    ),
    Bug(
        "data frozen features are centered on the panels measured",
        "stage3/model/baselines.py",
        'pages, notes = data.pages("train"), []',
        "pages, notes = np.unique(embedded.page_ids.numpy()), []",
        "tests/model/test_baselines.py -k move_the_center",
    ),
    Bug(
        "data a model below its frozen features is healthy",
        "stage3/diagnose/__init__.py",
        "    if features == NO:\n",
        "    if False:\n",
        "tests/diagnose/test_diagnose.py -k below_its_frozen_features",
    ),
    Bug(
        "data a page gap above 0 is enough on few pages",
        "stage3/diagnose/__init__.py",
        "    if low > chance:\n",
        "    if low + high > 2 * chance:\n",
        "tests/diagnose/test_diagnose.py -k seven_pages",
    ),
    Bug(
        "features a shard looks for what other shards of its build have sealed",
        "stage3/features/store.py",
        "            if path.parent != folder or not path.name.startswith(self._prefix):\n",
        "            if True:\n",
        "tests/features/test_build_command.py -k shares_in_any_order",
    ),
    Bug(
        "features what a killed build has left is computed again",
        "stage3/features/crops.py",
        "(store.find(keys) < 0) & ~w.holds(keys)",
        "(store.find(keys) < 0)",
        "tests/features/test_build_command.py -k goes_on_to_the_same_files",
    ),
    Bug(
        "data URLs are read without leave",
        "stage3/data/readers/image_files.py",
        "        if not self.remote:\n",
        "        if False:\n",
        "tests/data/test_remote.py -k without_leave",
    ),
    Bug(
        "data a signature in a URL is shown",
        "stage3/data/remote.py",
        '"?***" if found["query"] else ""',
        'found["query"] or ""',
        "tests/data/test_remote.py -k no_secret",
    ),
    Bug(
        "features a center crop hides what sticks out",
        "stage3/features/backbones/pretrained_vision.py",
        "return self._processed(self._fitted(image), **WHOLE)",
        "return self._processed(image)",
        "tests/features/test_model_folders.py -k whole_of_a_tall_panel",
    ),
    Bug(
        "features every text model is pooled by the mean",
        "stage3/features/backbones/pretrained_text.py",
        'tokens["attention_mask"], self.modules.pooling)',
        'tokens["attention_mask"], ("mean",))',
        "tests/features/test_model_folders.py -k pooled_as_its_folder_says",
    ),
    Bug(
        "features a model that masks at random is let in",
        "stage3/features/backbones/pretrained.py",
        "> SAME[self.device.type] * largest",
        "> 1e9 * largest",
        "tests/features/test_model_folders.py -k refused_at_opening",
    ),
    Bug(
        "state a checkpoint of another model is loaded",
        "stage3/train/__init__.py",
        "the_run.load_checkpoint(check=trainer.check)",
        "the_run.load_checkpoint()",
        "tests/train/test_train_command.py -k another_model",
    ),
    Bug(
        "state weights that are not finite are saved",
        "stage3/train/trainer.py",
        "        self._check_weights()\n",
        "",
        "tests/train/test_trainer.py -k not_finite_are_never_saved",
    ),
    Bug(
        "import a text goes to the panel that holds least of it",
        "stage3/data/importers/assemble.py",
        "    most = max(areas, default=0.0)",
        "    most = min(areas, default=0.0)",
        "tests/data/test_import_formats.py -k of_every_format",
    ),
    Bug(
        "import a double page is read across",
        "stage3/data/importers/assemble.py",
        "    if page.double and (halves",
        "    if False and (halves",
        "tests/data/test_import_formats.py -k page_by_page",
    ),
    Bug(
        "import the left page of a manga comes first",
        "stage3/data/importers/assemble.py",
        "first = ~on_the_left if right_to_left else on_the_left",
        "first = on_the_left",
        "tests/data/test_import_formats.py -k page_by_page",
    ),
    Bug(
        "import boxes are not scaled to the image",
        "stage3/data/importers/assemble.py",
        "    return size[0] / page.size[0], size[1] / page.size[1]",
        "    return 1.0, 1.0",
        "tests/data/test_import_formats.py -k of_every_format",
    ),
    Bug(
        "import a page of a sure detector stays one panel",
        "stage3/data/importers/assemble.py",
        "confidence < min_confidence",
        "confidence > min_confidence",
        "tests/data/test_import.py -k detectors_where",
    ),
    Bug(
        "import ComicInfo counts in natural order",
        "stage3/data/importers/comicinfo.py",
        "for n in tree.in_archive_order() if",
        "for n in tree.names if",
        "tests/data/test_import_formats.py -k as_they_are_stored",
    ),
    Bug(
        "import deleted pages stay",
        "stage3/data/importers/comicinfo.py",
        "        if label == DELETED:\n            return False",
        "        if label == DELETED:\n            label = ''",
        "tests/data/test_import_formats.py -k as_they_are_stored",
    ),
    Bug(
        "import COCO categories by number",
        "stage3/data/importers/formats/coco.py",
        'names = {c["id"]: str(c["name"])',
        'names = {k: str(c["name"]) for k, c in enumerate(objects(value["categories"]))} or {c["id"]: str(c["name"])',
        "tests/data/test_import_formats.py -k of_every_format",
    ),
    Bug(
        "import an empty YOLO file counts as not labeled",
        "stage3/data/importers/formats/yolo.py",
        "                page.panels = _panels(reading, label, names, kinds, pose=pose)",
        "                page.panels = _panels(reading, label, names, kinds, pose=pose) or None",
        "tests/data/test_import_formats.py -k empty_file_has_no_panels",
    ),
    Bug(
        "import Label Studio takes cancelled annotations",
        "stage3/data/importers/formats/label_studio.py",
        ' if not a.get("was_cancelled")]',
        "]",
        "tests/data/test_import_formats.py -k of_every_format",
    ),
    Bug(
        "import CVAT turns boxes around their corner",
        "stage3/data/importers/formats/cvat.py",
        "(box[0] + box[2] / 2, box[1] + box[3] / 2))",
        "(box[0], box[1]))",
        "tests/data/test_import_formats.py -k of_every_format",
    ),
    Bug(
        "import unsafe names of archives are used",
        "stage3/data/importers/trees.py",
        ' or ".." in name.split("/"):',
        ":",
        "tests/data/test_import_archives.py -k never_become_paths",
    ),
    Bug(
        "import links in archives are read",
        "stage3/data/importers/trees.py",
        "        if stat.S_ISLNK(entry.external_attr >> 16):",
        "        if False:",
        "tests/data/test_import_archives.py -k never_become_paths",
    ),
    Bug(
        "import overlapping entries are read",
        "stage3/data/importers/trees.py",
        "            if entry.header_offset < end:",
        "            if False:",
        "tests/data/test_import_archives.py -k z03",
    ),
    Bug(
        "import any compression is unpacked",
        "stage3/data/importers/trees.py",
        "entry.file_size > MAX_RATIO * max(",
        "entry.file_size > 10**9 * max(",
        "tests/data/test_import_archives.py -k hundredfold",
    ),
    Bug(
        "import a DTD is expanded",
        "stage3/data/importers/documents.py",
        "forbid_dtd=True",
        "forbid_dtd=False, forbid_entities=False",
        "tests/data/test_import_archives.py -k z06",
    ),
    Bug(
        "import corrections by hand are overwritten",
        "stage3/data/importers/importing.py",
        "    if old is not None and _changed_by_hand(work.out, old):",
        "    if False:",
        "tests/data/test_import.py -k corrected_by_hand_stay",
    ),
    Bug(
        "import a changed image is not seen",
        "stage3/data/importers/importing.py",
        "settings, page.image.tree.stamp(page.image.member))",
        "settings)",
        "tests/data/test_import.py -k made_anew",
    ),
    Bug(
        "import a page is recorded before it is written",
        "stage3/data/importers/importing.py",
        "        if page.problem is not None:\n            raise PageProblem",
        "        work.journal.add(done)\n        if page.problem is not None:\n            raise PageProblem",
        "tests/data/test_import.py -k any_file_operation",
    ),
    Bug(
        "export boxes in pixels of the file instead of the image",
        "stage3/data/exporters/pages.py",
        "    return (size[0] / wide, size[1] / high) if wide and high else (1.0, 1.0)",
        "    return 1.0, 1.0",
        "tests/data/test_export.py",
    ),
    Bug(
        "export texts twice",
        "stage3/data/exporters/pages.py",
        '        return "" if self.text == placed else',
        "        return self.text if self.text == placed else",
        "tests/data/test_export.py -k coco_by_hand",
    ),
    Bug(
        "a converted model's residual is over the modalities present",
        "stage3/model/earlier.py",
        "self.residual_weight * normed.mean(dim=1), gate",
        "self.residual_weight * (normed * present[:, :, None]).sum(dim=1) / present.sum(dim=1, keepdim=True), gate",
        "tests/convert/test_structure.py -k every_family",
    ),
    Bug(
        "a converted model's image gate uses ReLU",
        "stage3/model/earlier.py",
        "nn.Linear(n * d, d), nn.GELU(), nn.Linear(d, n)",
        "nn.Linear(n * d, d), nn.ReLU(), nn.Linear(d, n)",
        "tests/convert/test_structure.py -k every_family",
    ),
    Bug(
        "conversion forgets the batch norm's mean",
        "stage3/convert/structure.py",
        "(bias.double() - mean) * scale + shift",
        "bias.double() * scale + shift",
        "tests/convert/test_structure.py -k every_family",
    ),
    Bug(
        "a gate without flags is not widened",
        "stage3/convert/structure.py",
        "    if not indicators:",
        "    if False:",
        "tests/convert/test_structure.py -k every_family",
    ),
    Bug(
        "a file's tensors are read with everything else in it",
        "stage3/convert/child.py",
        'map_location="cpu", weights_only=True, mmap=True',
        'map_location="cpu", weights_only=False, mmap=True',
        "tests/convert/test_convert.py -k no_checkpoint_is_refused",
    ),
    Bug(
        "layout features are read in the usual meaning, whatever the model was trained on",
        "stage3/runs/data.py",
        "return Dataset(table, features, split, layout=layout_of(run), source=config)",
        "return Dataset(table, features, split, source=config)",
        "tests/convert/test_convert.py -k ocr_meaning",
    ),
    Bug(
        "Search: panels that say the words weigh no more than the others",
        "stage3/search/fusion.py",
        "EVERY_WORD = 2.0",
        "EVERY_WORD = 1.0",
        "tests/search/test_fusion.py -k comes_first",
    ),
    Bug(
        "Search: words of scripts without spaces are found whole only",
        "stage3/search/words.py",
        r'text = _ALONE.sub(r" \g<0> ", unicodedata.normalize("NFC", text))',
        'text = unicodedata.normalize("NFC", text)',
        "tests/search/test_words.py -k exactly_the_panels",
    ),
    Bug(
        "Search: filters do not reach the words",
        "stage3/search/fusion.py",
        "said = searcher.words.find(text, allowed)",
        "said = searcher.words.find(text, seen)",
        "tests/search/test_fusion.py -k filters_hold",
    ),
    Bug(
        "Shares: a share of the contrastive loss adds its mates",
        "stage3/losses/__init__.py",
        "torch.where(n_mates > 0, lse - of_mates",
        "torch.where(n_mates > 0, lse + of_mates",
        "tests/losses/test_losses.py -k shares_of_several",
    ),
    Bug(
        "Shares: a share's halves of alignment change places",
        "stage3/losses/__init__.py",
        "    return to_text - pair, to_image - pair",
        "    return to_image - pair, to_text - pair",
        "tests/losses/test_losses.py -k shares_of_several",
    ),
    Bug(
        "Shares: the first text compared counts as like no other",
        "stage3/losses/__init__.py",
        "torch.where(text_ids >= 0, text_ids, alone)",
        "torch.where(text_ids > 0, text_ids, alone)",
        "tests/losses/test_losses.py -k info_nce_equals",
    ),
    Bug(
        "Processes: every process embeds all that come before its own pages",
        "stage3/model/embedding.py",
        "chunks[peers.rank * share : (peers.rank + 1) * share]",
        "chunks[: (peers.rank + 1) * share]",
        "tests/model/test_peers_share.py -k embeds",
    ),
    Bug(
        "Processes: with dropout a process validates every other batch only",
        "stage3/model/validation.py",
        "if not dropout and i % peers.size",
        "if i % peers.size",
        "tests/model/test_peers_share.py -k validates",
    ),
    Bug(
        "Measured: chance is the mean over sizes of galleries, not over queries",
        "stage3/evaluate/items.py",
        "np.average(levels, weights=times)",
        "np.average(levels)",
        "tests/evaluate/test_by_hand.py -k items_stand",
    ),
    Bug(
        "Measured: what no panel defines pulls with a norm of zero",
        "stage3/model/validation.py",
        "if t in step.losses and step.losses[t].count)",
        "if t in step.losses)",
        "tests/evaluate/test_by_hand.py -k budget",
    ),
    Bug(
        "Measured: drawn groups beyond the last one drawn are missing from a median",
        "stage3/metrics/bootstrap.py",
        'np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")',
        "np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2])",
        "tests/metrics/test_metrics.py -k interval_of_a_median",
    ),
    Bug(
        "Measured: an experiment whose metric no test panel has ends without a table",
        "stage3/ablate/tables.py",
        "math.nan if source[k] is None else source[k]",
        "source[k]",
        "tests/ablate/test_planned.py -k says_what_came_out",
    ),
    Bug(
        "Measured: a variant whose metric is not defined stands on the Pareto front",
        "stage3/ablate/tables.py",
        "~beaten.any(axis=1) & ~np.isnan(points).any(axis=1)",
        "~beaten.any(axis=1)",
        "tests/ablate/test_ablate.py -k nothing_beats",
    ),
    Bug(
        "Measured: on the plane a panel outside the gallery loses a neighbor, or one inside finds itself",
        "stage3/metrics/neighbors.py",
        "    spare = int((own >= 0).any())",
        "    spare = int((own >= 0).all())",
        "tests/metrics/test_neighbors.py -k plane",
    ),
    Bug(
        "explorer two maps show the groups of the pair before",
        "app/views/map_compare.py",
        '(joined.attrs.get("of"), *_keys(chosen, other))',
        'joined.attrs.get("of")',
        "tests/app/test_app_map.py -k groups_are_those",
    ),
    Bug(
        "explorer a map that was made again keeps the names of its clusters",
        "app/views/map_parts.py",
        '        both.attrs["of"] = made\n',
        "",
        "tests/app/test_app_map.py -k groups_are_those",
    ),
    Bug(
        "explorer filters offer the values of another map",
        "app/parts/filters.py",
        'column, frame.attrs.get("of"), *',
        "column, *",
        "tests/app/test_app_map.py -k groups_are_those",
    ),
    Bug(
        "explorer books of a page are kept by an object's address",
        "app/views/page.py",
        'key = ("books", *loaders.checkpoint_key(chosen.run, chosen.step))',
        'key = ("books", id(listed))',
        "tests/app/test_app_fresh.py -k lists_of_a_page",
    ),
    Bug(
        "explorer an uploaded image keeps the query of another checkpoint",
        "app/parts/query.py",
        "(digest, searcher.checkpoint, searcher.names, searcher.crop_fit)",
        "(digest, id(searcher))",
        "tests/app/test_app_search.py -k uploaded_crop",
    ),
    Bug(
        "explorer a filter from a negative number is shown without its sign",
        "app/parts/filters.py",
        "≥ {self.low:g}",
        "≥ {abs(self.low):g}",
        "tests/app/test_app_map.py -k add_up_and_a_chip",
    ),
    Bug(
        "explorer before and now are swapped",
        "app/views/retrain.py",
        '("before", "now"), key="retrain-compared"',
        '("now", "before"), key="retrain-compared"',
        "tests/app/test_app_fresh.py -k retrain_shows",
    ),
    Bug(
        "explorer curves of the evidence are kept without their metric",
        "app/views/evidence.py",
        '("arms", *names.items(), metric, split, *',
        '("arms", *names.items(), split, *',
        "tests/app/test_app_evidence.py -k nothing_that_is_kept",
    ),
)


def arguments(tests: str) -> list[str]:
    """`file.py -k a_or_b` as pytest arguments."""
    before, _, expression = tests.partition(" -k ")
    return before.split() + (["-k", expression.replace("_or_", " or ")] if expression else [])


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy does without: any `runs` that somebody trained (`stage3/runs` and `tests/runs` are source)."""
    trained = () if Path(folder) in (ROOT / "stage3", ROOT / "tests") else ("runs",)
    return shutil.ignore_patterns(".git", "__pycache__", ".venv", ".stage3", ".*_cache", *trained)(folder, names)


def caught(bug: Bug) -> bool:
    """Whether the tests fail once the bug is planted in a copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repo"
        shutil.copytree(ROOT, copy, ignore=left_out)
        path = copy / bug.file
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(bug.old, bug.new, 1), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments(bug.tests)]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):  # a collection error or no test is no catch
            raise SystemExit(f"{bug.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr}")
        return done.returncode == 1


def main(names: list[str]) -> int:
    """Plant the chosen bugs one by one."""
    chosen = [bug for bug in BUGS if not names or any(bug.name.startswith(n) for n in names)]
    alive = []
    for bug in chosen:
        found = caught(bug)
        print(f"{'caught' if found else 'ALIVE '}  {bug.name}", flush=True)
        alive += [] if found else [bug.name]
    print(f"{len(chosen) - len(alive)} of {len(chosen)} planted bugs caught")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
