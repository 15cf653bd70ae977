"""What the explorer costs: first paint, server CPU and bytes of each action, many sessions at once, a retraining.

    python -m benchmarks.app_load [--panels 5000 100000] [--sessions 20] [--seconds 30] [--work FOLDER] [--json]

Starts `streamlit run app/main.py` on a free port of this machine, in a copy of the sample run and in synthetic data
sets of the given sizes, and speaks to it as the browser does: a websocket (subprotocol `streamlit`), protobuf messages,
read until the script has finished; images are not fetched. Sessions wait five seconds on average between actions.
CPU time is of the server process; it survives a busy machine, seconds do not: `/proc/loadavg` is printed beside each
part. Every answer is checked for what it must hold. Exit code 1 says that a bar was missed or an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import websockets

from app import addresses
from benchmarks.app_session import Session, drawn_folder, sample_folder, server

VIEWS = (*(view for view in addresses.VIEWS if view != "map"), "map")
THINK = 5.0  # seconds between two actions of a session, on average
BARS = {"first paint s": 3.0, "retrain s": 10.0, "switch ms": 500.0, "color ms": 300.0, "filter ms": 300.0}
LARGE, LARGE_BAR = 20_000, 1000.0  # above so many panels every action may take a second of CPU


def load() -> str:
    """The load of the machine now."""
    path = Path("/proc/loadavg")
    return " ".join(path.read_text(encoding="utf-8").split()[:3]) if path.exists() else "unknown"


async def cost(process: psutil.Process, work: Any) -> dict[str, float]:
    """An action with the CPU time that the server spent on it, clean-up after it included."""
    before = process.cpu_times()
    answer = await work
    await asyncio.sleep(0.3)
    after = process.cpu_times()
    spent = 1e3 * (after.user + after.system - before.user - before.system)
    return {"cpu_ms": spent, **{k: float(answer[k]) for k in ("seconds", "bytes", "errors")}}


def mean(found: list[dict[str, float]]) -> dict[str, float]:
    """Means by name; errors are added up."""
    told = {k: sum(f[k] for f in found) / len(found) for k in found[0]}
    return told | {"errors": sum(f["errors"] for f in found), "most_cpu_ms": max(f["cpu_ms"] for f in found)}


async def actions(process: psutil.Process, port: int, rounds: int) -> dict[str, dict[str, float]]:
    """Each action of one session: views the first time, then again; colors; filters."""
    tab, found = Session(port), {}
    found["open"] = mean([await cost(process, tab.open())])
    visits = {view: [await cost(process, tab.run(view))] for view in VIEWS}
    for _ in range(rounds):
        for view in VIEWS:
            visits[view].append(await cost(process, tab.run(view)))
    found["first visit of a view"] = mean([v[0] for v in visits.values()])
    found |= {f"switch to {view}": mean(v[1:]) for view, v in visits.items()}
    for name, change in (("color", tab.color), ("filter", tab.filter)):
        for turn in range(20):  # once each, so that what is computed once a checkpoint is there
            await change(turn)
        found[name] = mean([await cost(process, change(turn)) for turn in range(10)])
    await tab.socket.close()
    return found


async def crowd(process: psutil.Process, port: int, sessions: int, seconds: float) -> dict[str, Any]:
    """Sessions that arrive at once and go on for a while: seconds of arrivals and actions, errors, memory."""
    times: list[float] = []
    faults: list[str] = []
    tabs = [Session(port) for _ in range(sessions)]
    start = time.monotonic()
    errors = sum(a["errors"] for a in await asyncio.gather(*(t.open() for t in tabs)))
    arrived, cpu = time.monotonic() - start, sum(process.cpu_times()[:2])
    end = time.monotonic() + seconds

    async def person(tab: Session, dice: random.Random) -> int:
        wrong, turn, on_map = 0, 0, True
        while True:
            await asyncio.sleep(THINK * dice.uniform(0.2, 1.8))
            if time.monotonic() > end:
                return wrong
            turn += 1
            kind = dice.choice(("color", "filter", "switch")) if on_map else "switch"
            try:
                if kind == "switch":
                    answer = await tab.run(dice.choice(VIEWS[:-1]) if on_map else "map")
                    on_map = not on_map
                else:
                    answer = await (tab.color(turn) if kind == "color" else tab.filter(turn))
            except (OSError, TimeoutError, websockets.WebSocketException) as error:
                faults.append(f"{kind}: {type(error).__name__}")
                return wrong + 1
            times.append(answer["seconds"])
            wrong += answer["errors"]

    errors += sum(await asyncio.gather(*(person(t, random.Random(i)) for i, t in enumerate(tabs))))
    cpu = sum(process.cpu_times()[:2]) - cpu
    memory = process.memory_info().rss / 1e6
    await asyncio.gather(*(t.socket.close() for t in tabs))
    times.sort()
    at = {f"p{p}_ms": round(1e3 * times[int(p / 100 * len(times))]) if times else 0 for p in (50, 95, 99)}
    told = {"sessions": sessions, "seconds": seconds, "actions": len(times), "all_drawn_s": arrived, "errors": errors}
    return told | at | {"cpu_ms_per_action": 1e3 * cpu / max(1, len(times)), "rss_mb": memory, "faults": faults}


def first_paint(folder: Path, *, browser: bool) -> float | None:
    """Seconds from the start of the server to the first finished view, or to its map in a browser that is open."""
    if not browser:
        start = time.monotonic()
        with server(folder) as (_, port):
            answer = asyncio.run(Session(port).open())
            assert "plotly_chart" in answer["kinds"], "the first view holds no map"
            return time.monotonic() - start
    from tools import screenshots

    if screenshots.browser_path() is None:
        return None
    with screenshots.browser() as started, screenshots.page(started, "http://127.0.0.1") as tab:
        tab.goto("about:blank")
        start = time.monotonic()
        with server(folder) as (_, port):
            _listens(port)
            tab.goto(f"http://127.0.0.1:{port}/")
            tab.wait_for_selector(".stPlotlyChart .main-svg .points, .stPlotlyChart .gl-container", timeout=60_000)
            return time.monotonic() - start


def _listens(port: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("the explorer does not listen")


def retrain(folder: Path) -> tuple[float, float]:
    """Seconds from the click to a finished run, and of CPU: the sample run's settings with another seed, heads only."""
    from app.store import jobs, loaders

    before, cpu = Path.cwd(), 0.0
    os.chdir(folder)
    try:
        loaders.view_drawn()
        loaders.warm_up()  # the server has imported what starting a run needs
        start = time.monotonic()
        parent = loaders.entry("samples/sample")
        run = jobs.start(parent.run.config.replace(seed=1), jobs.free_name(), parent.id)
        trainer = psutil.Process(jobs.read(run).pid)
        while (job := jobs.read(run)).is_live and time.monotonic() - start < 120:
            with suppress(psutil.Error):
                cpu = max(cpu, sum(trainer.cpu_times()[:2]))
            time.sleep(0.05)
        spent = time.monotonic() - start
        if job.is_live:
            jobs.cancel(run)
        assert job.state == "finished", f"the retraining is {job.state}: {job.message}"
        return spent, cpu
    finally:
        os.chdir(before)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One server on one data set: actions of one session, then many sessions at once."""

    async def both(process: psutil.Process, port: int) -> dict[str, Any]:
        found: dict[str, Any] = {"load": load(), "actions": await actions(process, port, args.rounds)}
        found["rss_mb_one_session"] = process.memory_info().rss / 1e6
        if args.sessions:
            found["crowd"] = await crowd(process, port, args.sessions, args.seconds) | {"load": load()}
        return found

    with server(folder) as (process, port):
        return asyncio.run(both(process, port))


def missed(found: dict[str, Any]) -> list[str]:
    """Bars that were not reached, and wrong answers, in words."""
    sample = found["sample"]
    worst = [f"{k} {sample[k]:.1f}" for k in ("first paint s", "retrain s") if sample[k] > BARS[k]]
    for name, part in found.items():
        panels = int(name.split()[0].replace(",", "")) if name != "sample" else 0
        for action, cost_of in part["actions"].items():
            kind = f"{action.split()[0]} ms"
            bar = LARGE_BAR if panels > LARGE else BARS.get(kind)
            if kind in BARS and bar is not None and cost_of["cpu_ms"] > bar:
                worst.append(f"{name}: {action} {cost_of['cpu_ms']:.0f} ms of CPU (bar {bar:.0f})")
            if cost_of["errors"]:
                worst.append(f"{name}: {action}: wrong answers")
        if part.get("crowd", {}).get("errors"):
            worst.append(f"{name}: errors with many sessions")
    return worst


def show(found: dict[str, Any]) -> None:
    """A table for people."""
    sample = found["sample"]
    for key in ("first paint s", "browser paint s", "retrain s", "retrain CPU s"):
        value = sample[key]
        print(f"{key[:-2]:<28}{'no browser' if value is None else f'{value:.2f} s'}   load {sample['load of times']}")
    for name, part in found.items():
        print(f"\n{name}   load {part['load']}   {part['rss_mb_one_session']:.0f} MB after one session")
        print(f"  {'action':<24}{'CPU ms':>8}{'most':>8}{'wall ms':>9}{'kB':>8}")
        for action, c in part["actions"].items():
            numbers = (c["cpu_ms"], c["most_cpu_ms"], 1e3 * c["seconds"], c["bytes"] / 1e3)
            print(f"  {action:<24}" + "".join(f"{v:>{w}.0f}" for v, w in zip(numbers, (8, 8, 9, 8), strict=True)))
        if c := part.get("crowd"):
            print("  " + "  ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in c.items()))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, nargs="*", default=[5000], help="sizes of further synthetic sets")
    parser.add_argument("--sessions", type=int, default=20, choices=range(101), metavar="N", help="at most 100")
    parser.add_argument("--seconds", type=float, default=30.0, help="of many sessions on each set, at most 600")
    parser.add_argument("--rounds", type=int, default=2, help="visits of each view after the first")
    parser.add_argument("--work", type=Path, help="folder that keeps the data sets for the next time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    args.seconds = min(args.seconds, 600.0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as spare:
        work = args.work or Path(spare)
        folders = {"sample": sample_folder(work)}
        folders |= {f"{n:,} panels": drawn_folder(work, n) for n in args.panels}
        times = {"load of times": load(), "first paint s": first_paint(folders["sample"], browser=False)}
        times["browser paint s"] = first_paint(folders["sample"], browser=True)
        times["retrain s"], times["retrain CPU s"] = retrain(folders["sample"])
        found = {name: measure(folder, args) for name, folder in folders.items()}
        found["sample"] |= times
    wrong = missed(found)
    if args.json:
        print(json.dumps({"found": found, "missed": wrong}))
    else:
        show(found)
        print("\n" + ("missed: " + "; ".join(wrong) if wrong else "every bar is reached, every answer right"))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
