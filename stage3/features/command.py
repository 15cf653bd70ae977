"""Features of a whole data set ahead of training: in one process, several, the tasks of an array, or on a Ray cluster.

All of them split the work in the same shards, and leave the same files. What a process has computed is found by every
later one, so training on the same data with the same backbones then computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stage3.cli import Stop, counted
from stage3.config import Config
from stage3.data import readers
from stage3.errors import ConfigError, Interrupted, PeerGone
from stage3.features.build import ALL, EXAMPLES, Share
from stage3.features.loading import load_or_build, opened, usable_device
from stage3.features.page_digests import PageDigests
from stage3.features.sets import FeatureReport
from stage3.peers import joined


@dataclass(frozen=True)
class Lacking:
    """What the stores lack of a table.

    Attributes:
        root: folder of the stores.
        panels: how many panels with a readable image there are.
        images: ids of panels without an image vector.
        texts: ids of panels whose text has no vector.
        damaged: "path: what is wrong" of each damaged segment.
        problems: images that cannot be used, by code; nothing is computed for them.
    """

    root: Path
    panels: int
    images: list[str]
    texts: list[str]
    damaged: list[str]
    problems: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether every panel has its vectors, and every segment is intact."""
        return not (self.images or self.texts or self.damaged)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: how many lack, and the first of each."""
        lists = {"images": self.images, "texts": self.texts, "damaged": self.damaged}
        counts: dict[str, Any] = {name: len(values) for name, values in lists.items()}
        first = {name: values[:EXAMPLES] for name, values in lists.items()}
        about = {"root": str(self.root), "complete": self.complete, "panels": self.panels, "problems": self.problems}
        return {**about, **counts, "first": first}

    def sentence(self) -> str:
        """What lacks, with the first of each."""
        parts = [
            (self.images, "panel lacks its image's vector", "panels lack their image's vector"),
            (self.texts, "panel lacks its text's vector", "panels lack their text's vector"),
            (self.damaged, "segment is damaged", "segments are damaged"),
        ]
        found = [f"{len(x):,} {one if len(x) == 1 else many} (first: {x[0]})" for x, one, many in parts if x]
        return "; ".join(found) or f"complete: {counted(self.panels, 'panel')} with an image, all intact"


def share_of(text: str) -> Share:
    """The share that `--shard i/n` names; i counts from 0.

    Raises:
        ConfigError: it is no such share.
    """
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise ConfigError(f"shard: expected i/n with i from 0 to n - 1, such as 0/8, got {text!r}")
    return Share(int(number), int(of))


def build(
    config: Config,
    *,
    share: Share | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = lambda _: None,
    stop: Stop | None = None,
) -> FeatureReport | None:
    """Compute this process's shards; under `torchrun` each process takes its own.

    Args:
        config: names the data, the backbones and the store.
        share: the shards to compute; None takes all, or under `torchrun` those of the process.
        progress: show how far the work is on standard error.
        tell: called with a line to print.
        stop: ends the work at once when it is asked to; what is computed is kept.

    Returns:
        What was done, by all processes; None in all of them but the first.

    Raises:
        ConfigError, DataError: the settings, the data or a backbone cannot be used.
        StorageError: the store cannot be written.
        Interrupted: stopped on request.
    """
    with joined(lambda: usable_device(config.device)) as peers:
        _check(config, share, peers.size)
        mine = share or Share(peers.rank, peers.size)
        try:
            with (stop or Stop()).at_once():
                if peers.leads:  # the others find the panel table that it leaves
                    readers.load(config)
                peers.wait()
                device = str(peers.device(usable_device(config.device)))
                begun = time.monotonic()
                report = build_shards(config, mine, device=device, progress=progress and peers.leads)
        except PeerGone:
            raise
        except Interrupted:
            raise Interrupted("stopped; what is computed is kept, and the same command goes on") from None
        if peers.leads and peers.size > 1:
            tell(f"this process is done after {time.monotonic() - begun:.0f} s; it waits for the others")
        reports = peers.collect(report.to_dict())
        if not peers.leads:
            return None
        if mine.of > 1 and share is None:
            join_digests(config)
        return merged(reports)


def _check(config: Config, share: Share | None, size: int) -> None:
    if share is not None and size > 1:
        raise ConfigError(f"shard: torchrun has started {size} processes, which share the work. Drop one of them.")
    if config.recompute_features and (size > 1 or (share or ALL).of > 1):
        raise ConfigError(
            "recompute_features: only one process can replace a store. Run it without --shard and torchrun, or name a "
            "new folder with --cache_dir."
        )


def build_shards(config: Config, share: Share, *, device: str, progress: bool) -> FeatureReport:
    """Compute the shards of one share of the work.

    Raises:
        As `build`.
    """
    table, shipped = readers.load(config), readers.source_of(config).features
    if share.of == 1:
        return load_or_build(table, config.replace(device=device), shipped=shipped, progress=progress).report
    begun, report = time.monotonic(), FeatureReport()
    part = f"{share.number}-of-{share.of}"
    work = opened(table, config, device=device, shipped=shipped, part=part)
    work.images(report, progress, share.shards(work.image_shards))
    work.words(report, progress, share.shards(work.texts.shards))
    work.note_damages(report)
    report.seconds = time.monotonic() - begun
    return report


def merged(reports: Iterable[Mapping[str, Any]]) -> FeatureReport:
    """One report of what several processes did."""
    whole = FeatureReport()
    for report in reports:
        for name in ("computed_images", "reused_images", "computed_texts", "reused_texts", "truncated_texts"):
            setattr(whole, name, getattr(whole, name) + report[name])
        whole.distinct_texts += report["distinct_texts"]
        whole.seconds = max(whole.seconds, report["seconds"])
        whole.problems.update(report["problems"])
        for code, examples in report["examples"].items():
            seen = whole.examples.setdefault(code, [])
            seen += examples[: EXAMPLES - len(seen)]
    return whole


def join_digests(config: Config) -> None:
    """Make one file of what several processes learned about page files."""
    PageDigests(Path(config.cache_dir) / "features", config).join()


def verify(config: Config, *, progress: bool = True) -> Lacking:
    """Look whether all panels of a data set have their vectors, and check the digest of every segment.

    Nothing is computed, and nothing is set aside. Page files that are not known yet are read.

    Raises:
        ConfigError, DataError: the settings, the data or a backbone cannot be used.
    """
    table, shipped = readers.load(config), readers.source_of(config).features
    work = opened(table, config, shipped=shipped, repair=False)
    report = FeatureReport()
    crops = work.image_keys(report, progress)
    work.settle(report)
    ids = table.panels["panel_id"].to_numpy()
    has = np.logical_and.reduce([store.find(crops.keys) >= 0 for store in work.stores])
    texts = work.texts.rows
    return Lacking(
        work.root,
        int(crops.wanted.sum()),
        [str(i) for i in ids[crops.wanted & ~has]],
        [str(i) for i in ids[texts.wanted & (work.text_store.find(texts.keys) < 0)]],
        list(dict.fromkeys(d for store in work.all_stores for d in store.damaged)),
        {code: n for code, n in report.problems.items() if code.startswith("image:")},
    )
