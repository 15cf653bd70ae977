"""Run folders as an enemy, a failing disk or a careless hand would leave them: each file of a run, damaged each way.

`CASES` maps a name to a function that spoils the copy of a good run. No case may stop a command or a view of the other
runs, take more than a few seconds or much memory, or end in anything but one line that names the file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

Spoil = Callable[[Path], None]
DEEP = 20_000
NOT_UTF8 = os.fsdecode(b"not-\xff-utf8")  # a name that no text holds; Linux alone has such names


def text(name: str, content: str | bytes) -> Spoil:
    """Replace a file's content."""
    return lambda run: _replace(run / name, content)


def added(content: str) -> Spoil:
    """The settings, with lines added."""
    return lambda run: _replace(run / "config.yaml", (run / "config.yaml").read_text(encoding="utf-8") + content)


def setting(name: str, value: str) -> Spoil:
    """The settings, with the value of one replaced by YAML."""

    def spoil(run: Path) -> None:
        lines = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith(f"{name}:")]
        _replace(run / "config.yaml", "\n".join([*kept, f"{name}: {value}"]) + "\n")

    return spoil


def changed(name: str, **values: object) -> Spoil:
    """A JSON file, with some of its values replaced."""

    def spoil(run: Path) -> None:
        path = run / name
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        _replace(path, json.dumps({**record, **values}))

    return spoil


def row(content: str) -> Spoil:
    """A line at the end of `metrics.jsonl`, and an ordinary one behind it."""

    def spoil(run: Path) -> None:
        path = run / "metrics.jsonl"
        good = path.read_text(encoding="utf-8")
        _replace(path, f"{good}{content}\n{good.splitlines()[-1]}\n")

    return spoil


def fifo(name: str) -> Spoil:
    """A pipe in a file's place: whoever opens it without care waits forever."""

    def spoil(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return spoil


def folder(name: str) -> Spoil:
    """A folder in a file's place."""

    def spoil(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return spoil


def _replace(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
_LAUGHS = "\n".join(["", *(f"- &b{i} [{', '.join([f'*b{i - 1}'] * 9) if i else 'x'}]" for i in range(9))])
HUGE = "9" * 400
WIDE = "".join(f"unknown_{i}: {i}\n" for i in range(40_000))  # 0.8 MB
NESTED = '{"a":' * 2000 + "1" + "}" * 2000

CASES: dict[str, Spoil] = {
    # settings
    "config-date": setting("data", "2001-13-45"),
    "config-real-date": setting("data", "2001-12-14"),
    "config-long-integer": setting("seed", "9" * 5000),
    "config-integer-tag": setting("seed", '!!int "abc"'),
    "config-empty-integer": setting("seed", '!!int ""'),
    "config-bool-tag": setting("learn_temperature", '!!bool "perhaps"'),
    "config-timestamp-tag": setting("data", '!!timestamp "abc"'),
    "config-object-tag": setting("data", "!!python/object/apply:os.getcwd []"),
    "config-deep": setting("data", "[" * DEEP),
    "config-deep-block": text("config.yaml", "".join(f"{' ' * i}a:\n" for i in range(1500))),
    "config-aliases": added(ALIASES),
    "config-aliases-of-a-setting": setting("keep_labels", _LAUGHS),
    "config-recursive": added("loop: &loop [*loop]\n"),
    "config-wide": added(WIDE),
    "config-unknown": added("unknown: 1\n"),
    "config-twice": added("seed: 1\nseed: 2\n"),
    "config-list": text("config.yaml", "- a\n- b\n"),
    "config-empty": text("config.yaml", ""),
    "config-binary": text("config.yaml", bytes(range(256))),
    "config-nul-path": setting("data", '"a\\0b"'),
    "config-long-path": setting("data", "a" * 60_000),
    "config-name-not-utf8": setting("data", '"a\\udcffb"'),
    "config-surrogate-escape": setting("data", "caf\udce9"),
    "config-infinite": setting("lr", ".inf"),
    "config-sexagesimal": setting("seed", "1:" + ":".join(["59"] * 300)),
    "config-unhashable": added("? [a, b]\n: 1\n"),
    "config-fifo": fifo("config.yaml"),
    "config-cache-elsewhere": setting("cache_dir", "/proc/nowhere"),
    "config-no-limit": setting("max_megapixels", "2000"),
    # status
    "status-updated": changed("status.json", updated=5),
    "status-total": changed("status.json", total_steps="x"),
    "status-step": changed("status.json", step=True),
    "status-huge": text("status.json", '{"state": "finished", "step": ' + HUGE + "}"),
    "status-best": changed("status.json", best_value="high", best_step=[1]),
    "status-message": changed("status.json", message={"a": 1}, pid="x"),
    "status-pid": changed("status.json", state="running", pid=2**62, host=3),
    "status-time": changed("status.json", started="yesterday", updated="9999-99-99"),
    "status-time-without-zone": changed("status.json", started="2026-01-01T00:00:00"),
    "status-negative": changed("status.json", step=-5, total_steps=-1),
    "status-list": text("status.json", "[]"),
    "status-deep": text("status.json", NESTED),
    "status-state": changed("status.json", state=["running"]),
    "status-fifo": fifo("status.json"),
    "status-folder": folder("status.json"),
    # the best
    "best-value": changed("best.json", value=[1]),
    "best-step": changed("best.json", step=1.5),
    "best-bool": changed("best.json", step=True, value=True),
    "best-huge": text("best.json", '{"step": 3, "value": ' + HUGE + ', "metric": "m"}'),
    "best-infinite": text("best.json", '{"step": 3, "value": 1e999, "metric": "m"}'),
    "best-metric": changed("best.json", metric={"a": [1]}),
    "best-fifo": fifo("best.json"),
    "best-elsewhere": changed("best.json", step=10**9),
    # metrics
    "metrics-text": row('{"step": 3, "epoch": 1, "split": "val", "loss/total": "low"}'),
    "metrics-list": row('{"step": 3, "epoch": 1, "split": "val", "loss/total": [1, 2]}'),
    "metrics-object": row('{"step": {"a": 1}, "split": {}}'),
    "metrics-huge": row('{"step": 3, "epoch": 1, "split": "val", "loss/total": ' + HUGE + "}"),
    "metrics-huge-step": row('{"step": ' + HUGE + ', "epoch": 1, "split": "train"}'),
    "metrics-infinite": row('{"step": 1e999, "epoch": -1e999, "split": "train", "loss/total": NaN}'),
    "metrics-split": row('{"step": 3, "epoch": 1, "split": 7, "loss/total": 1.0}'),
    "metrics-deep": row(NESTED),
    "metrics-wide": row("{" + ", ".join(f'"name{i}": {i}' for i in range(20_000)) + "}"),
    "metrics-many-names": row("\n".join(json.dumps({"step": i, f"own{i}": 1.0}) for i in range(3000))),
    "metrics-binary": text("metrics.jsonl", os.urandom(4096)),
    "metrics-fifo": fifo("metrics.jsonl"),
    "metrics-folder": folder("metrics.jsonl"),
    # what else a run says of itself
    "job-pid": text("job.json", '{"pid": "x", "parent": 3}'),
    "job-started": text("job.json", '{"pid": 1, "parent": "", "started": "x", "seen": {}}'),
    "job-huge": text("job.json", '{"pid": ' + HUGE + "}"),
    "job-big-pid": text("job.json", '{"pid": 9223372036854775807, "parent": "", "started": 1}'),
    "job-negative-pid": text("job.json", '{"pid": -1, "parent": "", "started": 1}'),
    "job-fifo": fifo("job.json"),
    "job-list": text("job.json", "[1]"),
    "console-fifo": fifo("console.log"),
    "log-fifo": fifo("train.log"),
    "environment-types": text("environment.json", '{"versions": 3, "python": [1, {"a": 2}]}'),
    "environment-fifo": fifo("environment.json"),
    "data-types": text("data.json", '{"books": 3, "table": [], "layout": {}}'),
    "data-books": text("data.json", '{"books": {"train": "abc", "val": [1]}, "table": 5}'),
    "data-report-types": text("data_report.json", '{"pages_listed": "x", "source": 4}'),
    "baselines-types": text("baselines.json", '{"sentence": 4, "retrieval": [3]}'),
    "evaluation-types": text("evaluation-test.json", '{"format": "x", "metrics": 7}'),
    "queued-fifo": fifo("queued.json"),
    "stop-folder": folder("STOP"),
    "lock-folder": folder("lock"),
    "checkpoints-file": text("checkpoints", "not a folder"),
    "nothing-inside": text("config.yaml", "data: nowhere\n"),
}
if sys.platform == "win32":
    CASES = {name: spoil for name, spoil in CASES.items() if not name.endswith("-fifo")}


def plant(good: Path, runs: Path, name: str) -> Path:
    """A copy of a good run in `runs`, spoiled as the case says; returns its folder."""
    import shutil

    target = runs / name
    leave = ("checkpoints",) if name == "checkpoints-file" else ()
    shutil.copytree(good, target, ignore=shutil.ignore_patterns(*leave, "lock", "inspection", "projections"))
    for there in ("lock",):
        if name.startswith(there) and (target / there).exists():
            (target / there).unlink()
    CASES[name](target)
    return target
