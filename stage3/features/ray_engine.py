"""Features on a Ray cluster: rows that name shards, through a pool of actors that each hold a backbone, into the store.

Only this module imports Ray (extra `ray`). The data, the backbones and the store lie on a disk that all nodes see.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from stage3.config import Config
from stage3.data import readers
from stage3.errors import ConfigError, StorageError
from stage3.features.command import join_digests, merged
from stage3.features.crops import shards_of
from stage3.features.loading import opened
from stage3.features.sets import FeatureReport
from stage3.features.texts import Texts

MOST_SHARDS = 8  # of one call: within it decoding goes on while the backbone works
CALLS = 4  # per actor, where there are shards enough: a slow one leaves work to the others


class Encoder:
    """An actor of the pool: the table and the backbones, opened once."""

    def __init__(self, settings: dict[str, Any], device: str) -> None:
        import torch

        config = Config.from_mapping(settings)
        torch.set_num_threads(config.threads)
        table, shipped = readers.load(config), readers.source_of(config).features
        part = f"ray-{socket.gethostname()}-{os.getpid()}"
        self.work = opened(table, config, device=device, shipped=shipped, part=part)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Compute the shards that the rows name; returns the report as JSON."""
        report = FeatureReport()
        kinds, shards = np.asarray(rows["kind"]), np.asarray(rows["shard"])
        images, texts = (shards[kinds == kind].tolist() for kind in ("image", "text"))
        if images:
            self.work.images(report, False, images)
        if texts:
            self.work.words(report, False, texts)
        return {"report": np.array([json.dumps(report.to_dict())])}


def build(config: Config, actors: int = 0) -> FeatureReport:
    """Compute all features of a data set; `ray.init` finds the cluster, or starts one of this machine.

    Args:
        config: names the data, the backbones and the store.
        actors: size of the pool; 0 takes one per GPU, or as many as the cores allow with their decoding threads.

    Raises:
        ConfigError: Ray is not installed, or the settings do not go with it.
        DataError: as `stage3.features.command.build`.
        StorageError: an actor failed, or the store cannot be written.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("engine: Ray is not installed. Run: pip install 'ray[data]'") from None
    if config.recompute_features:
        raise ConfigError("recompute_features: only one process can replace a store. Drop --engine ray.")
    named = {name: getattr(config, name) for name in ("data", "manifest", "panels", "labels", "cache_dir")}
    config = config.replace(**{name: str(Path(path).absolute()) for name, path in named.items() if path})
    table = readers.load(config)
    rows = [{"kind": "image", "shard": i} for i in range(shards_of(table))]
    rows += [{"kind": "text", "shard": i} for i in range(Texts(table, config.text_parts).shards)]
    begun_here = not ray.is_initialized()
    if begun_here:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    begun = time.monotonic()
    try:
        report = _reports(ray, config, rows, actors)
        report.seconds = time.monotonic() - begun
        return report
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StorageError(f"engine: an actor failed, the same command goes on ({reason})") from error
    finally:
        join_digests(config)
        if begun_here:
            ray.shutdown()


def _reports(ray: Any, config: Config, rows: list[dict[str, Any]], actors: int) -> FeatureReport:
    from ray.data import ActorPoolStrategy, from_items

    there, cores = ray.cluster_resources(), 1 + config.workers
    on_gpu = config.device.startswith("cuda") or (config.device == "auto" and there.get("GPU", 0) > 0)
    if on_gpu and not there.get("GPU", 0):
        raise ConfigError(f"device: {config.device}, but the Ray cluster has no GPU. Give --device cpu or auto.")
    device, gpus = ("cuda", 1) if on_gpu else ("cpu", 0)
    possible = int(there.get("GPU", 0)) if gpus else int(there.get("CPU", 1)) // cores
    actors = min(actors or max(possible, 1), max(len(rows), 1))
    size = max(1, min(MOST_SHARDS, len(rows) // (CALLS * actors)))
    if not rows:
        return FeatureReport()
    found = (
        from_items(rows, override_num_blocks=-(-len(rows) // size))
        .map_batches(
            Encoder,
            fn_constructor_args=(config.to_dict(), device),
            batch_size=size,
            compute=ActorPoolStrategy(size=actors),
            num_gpus=gpus,
            num_cpus=min(cores, max(int(there.get("CPU", 1)) // actors, 1)),
        )
        .take_all()
    )
    return merged(json.loads(row["report"]) for row in found)
