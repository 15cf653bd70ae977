"""What the explorer costs: first paint, server CPU and bytes of each action, many sessions at once, a retraining.

    python -m benchmarks.app_load [--panels 5000 100000] [--sessions 20] [--seconds 30] [--work FOLDER] [--json]

Starts `streamlit run app/main.py` on a free port of this machine, in a copy of the sample run and in drawn data sets of
the asked sizes, and speaks to it as the browser's page does: a websocket (subprotocol `streamlit`), protobuf messages,
read until the script has finished; pictures are not fetched. Sessions wait five seconds on average between actions.
CPU time is of the server process; it survives a busy machine, seconds do not: `/proc/loadavg` is printed beside each
part. Every answer is checked for what it must hold. Exit code 1 says that a bar was missed or an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg  # noqa: TID251
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg  # noqa: TID251

ROOT = Path(__file__).resolve().parent.parent
VIEWS = ("search", "page", "losses", "retrain", "evidence", "data", "runs", "map")
SPLITS = (["train"], ["val"], ["test"], ["train", "val"], [])
THINK = 5.0  # seconds between two actions of a session, on average
BARS = {"first paint s": 3.0, "retrain s": 10.0, "switch ms": 500.0, "colour ms": 300.0, "filter ms": 300.0}
LARGE, LARGE_BAR = 20_000, 1000.0  # above so many panels every action may take a second of CPU


def load() -> str:
    """The load of the machine now."""
    path = Path("/proc/loadavg")
    return " ".join(path.read_text(encoding="utf-8").split()[:3]) if path.exists() else "unknown"


@contextmanager
def server(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """The explorer started in `folder`, at once: whoever connects waits until it listens. Ended with its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.port", str(port)]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)
    process = psutil.Process(started.pid)
    try:
        yield process, port
    finally:
        family = [*process.children(recursive=True), process] if process.is_running() else []
        for member in family:
            member.terminate()
        for member in psutil.wait_procs(family, 5)[1]:
            member.kill()
        started.wait()


class Session:
    """One tab: sends what a click sends, and reads until the script has finished."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/_stcore/stream"
        self.pages: dict[str, str] = {}
        self.page = self.query = ""
        self.cached: dict[
            str, tuple[ForwardMsg, int]
        ] = {}  # and the run that used it last; kept for two, as a page does
        self.runs = 0
        self.widgets: dict[str, tuple[Any, str]] = {}  # user key: (element, fragment)

    async def open(self, seconds: float = 60.0) -> dict[str, Any]:
        """Connect, as soon as the server listens, and draw the first view."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.socket = await websockets.connect(self.url, subprotocols=["streamlit"], max_size=None)  # type: ignore[list-item]
                return await self.run()
            except OSError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.02)

    async def run(self, page: str = "", widget: str = "", value: Any = None, seconds: float = 180.0) -> dict[str, Any]:
        """One action: another view, or a changed widget (its fragment alone, where it stands in one)."""
        message = BackMsg()
        ask = message.rerun_script
        if page:
            self.page, self.query = self.pages[page], ""
            self.widgets.clear()
        ask.page_script_hash, ask.query_string = self.page, self.query
        self.runs += 1
        self.cached = {h: (m, used) for h, (m, used) in self.cached.items() if used >= self.runs - 2}
        ask.cached_message_hashes.extend(self.cached)
        if widget:
            element, ask.fragment_id = self.widgets[widget]
            state = ask.widget_states.widgets.add(id=element.id)
            if isinstance(value, list):
                state.string_array_value.data.extend(value)
            else:
                state.string_value = value
        start = time.monotonic()
        await self.socket.send(message.SerializeToString())
        answer = await asyncio.wait_for(self._read(), seconds)
        return answer | {"seconds": time.monotonic() - start}

    async def _read(self) -> dict[str, Any]:
        size, errors, words, kinds = 0, 0, [], set()
        while True:
            data = await self.socket.recv()
            size += len(data)
            message = ForwardMsg.FromString(data)  # type: ignore[arg-type]
            if message.WhichOneof("type") == "ref_hash":
                message = self.cached[message.ref_hash][0]
            if message.metadata.cacheable:
                self.cached[message.hash] = (message, self.runs)
            what = message.WhichOneof("type")
            if what == "navigation":
                self.pages = {p.url_pathname or "map": p.page_script_hash for p in message.navigation.app_pages}
                self.page = message.navigation.page_script_hash
            elif what == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif what == "delta":
                element = message.delta.new_element
                kind = element.WhichOneof("type")
                kinds.add(kind)
                errors += kind == "exception" or "-error-" in message.delta.add_block.id
                if kind == "text":
                    words.append(element.text.body)
                elif kind in ("selectbox", "multiselect"):
                    own = getattr(element, kind)
                    self.widgets[own.id.rsplit("-", 1)[-1]] = (own, message.delta.fragment_id)
            elif what == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                errors += message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR
                return {"bytes": size, "errors": errors, "words": words, "kinds": kinds}

    async def colour(self, turn: int) -> dict[str, Any]:
        """The next colour of the map; its answer must hold the chart."""
        key = next(k for k in self.widgets if k.startswith("map_colour"))
        options = list(self.widgets[key][0].options)
        answer = await self.run(widget=key, value=options[(turn + 1) % len(options)])
        return answer | {"errors": answer["errors"] + ("plotly_chart" not in answer["kinds"])}

    async def filter(self, turn: int) -> dict[str, Any]:
        """The next choice of splits; its answer must say how many panels are shown."""
        answer = await self.run(widget="map_filter_split", value=SPLITS[turn % len(SPLITS)])
        return answer | {"errors": answer["errors"] + (not any(w.startswith("showing ") for w in answer["words"]))}


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
    """Each action of one session: views the first time, then again; colours; filters."""
    tab, found = Session(port), {}
    found["open"] = mean([await cost(process, tab.open())])
    visits = {view: [await cost(process, tab.run(view))] for view in VIEWS}
    for _ in range(rounds):
        for view in VIEWS:
            visits[view].append(await cost(process, tab.run(view)))
    found["first visit of a view"] = mean([v[0] for v in visits.values()])
    found |= {f"switch to {view}": mean(v[1:]) for view, v in visits.items()}
    for name, change in (("colour", tab.colour), ("filter", tab.filter)):
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
            kind = dice.choice(("colour", "filter", "switch")) if on_map else "switch"
            try:
                if kind == "switch":
                    answer = await tab.run(dice.choice(VIEWS[:-1]) if on_map else "map")
                    on_map = not on_map
                else:
                    answer = await (tab.colour(turn) if kind == "colour" else tab.filter(turn))
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
    at = {f"p{p}_ms": round(1e3 * times[min(len(times) - 1, int(p / 100 * len(times)))]) for p in (50, 95, 99)}
    told = {"sessions": sessions, "seconds": seconds, "actions": len(times), "all_drawn_s": arrived, "errors": errors}
    return told | at | {"cpu_ms_per_action": 1e3 * cpu / len(times), "rss_mb": memory, "faults": faults}


def first_paint(folder: Path, *, browser: bool) -> float | None:
    """Seconds from the start of the server to the first finished view, or to its map in a browser that is open."""
    if not browser:
        start = time.monotonic()
        with server(folder) as (_, port):
            answer = asyncio.run(Session(port).open())
            assert "plotly_chart" in answer["kinds"], "the first view holds no map"
            return time.monotonic() - start
    from app import screenshots

    if screenshots.browser_path() is None:
        return None
    with screenshots.page("http://127.0.0.1") as tab:
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


def retrain(folder: Path) -> float:
    """Seconds from the click to a finished run: the sample run's settings with another seed, heads only."""
    from app import jobs, loaders

    before = Path.cwd()
    os.chdir(folder)
    try:
        start = time.monotonic()
        parent = loaders.entry("samples/sample")
        run = jobs.start(parent.run.config.replace(seed=1), jobs.free_name(), parent.id)
        while (job := jobs.read(run)).is_live and time.monotonic() - start < 120:
            time.sleep(0.05)
        spent = time.monotonic() - start
        if job.is_live:
            jobs.cancel(run)
        assert job.state == "finished", f"the retraining is {job.state}: {job.message}"
        return spent
    finally:
        os.chdir(before)


def sample_folder(work: Path) -> Path:
    """A folder with a copy of the shipped samples and their run."""
    folder = work / "sample"
    if not folder.exists():
        shutil.copytree(ROOT / "data" / "samples", folder / "data" / "samples")
        (folder / "runs").mkdir()
    return folder


def drawn_folder(work: Path, panels: int) -> Path:
    """A folder with a run on so many drawn panels, and a map for it that was not fitted: positions are components."""
    folder = work / f"panels-{panels}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        sys.path.insert(0, str(ROOT / "tests"))
        import app_support

        app_support.workspace(folder, books=max(1, panels // 100), pages=25, epochs=1, dim=64, batch_pages=64)
        _map_of(folder)
        (folder / "complete").touch()
    return folder


def _map_of(folder: Path) -> None:
    import numpy as np
    import pandas as pd

    from stage3 import evaluation, layouts, projection
    from stage3.dataset import Dataset
    from stage3.runs import Run

    run = Run.open(folder / "data" / "samples" / "runs" / "first")
    data, step = Dataset.load(run.config, progress=False), projection.chosen_step(run, None)
    held = evaluation.embed(evaluation.load_model(run, step), data.panel_set, data.pages("all"))
    rows, xy = held.rows.numpy(), layouts.pca(held.panel.numpy())
    page = data.table.page_of_panel[rows]
    about = data.table.pages.iloc[page].reset_index(drop=True)
    columns = {"page_index": page, "panel_index": data.table.panels["order"].to_numpy()[rows]}
    columns |= {"canonical_id": about["page_id"], "comic_name": about["book_id"], "page_name": about["page_id"]}
    columns |= {"panel_count": about["n_panels"], "cluster_id": (page % 12).astype(np.int32), "row": rows}
    columns |= {"umap_dim1": xy[:, 0], "umap_dim2": xy[:, 1], "pca_1": xy[:, 0], "pca_2": xy[:, 1]}
    frame = pd.DataFrame(columns).assign(trust=np.float32(1), fitted=True)
    projection.save(projection.projection_path(run, step), frame, {"table": data.table.fingerprint()})


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
    for key in ("first paint s", "browser paint s", "retrain s"):
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
    parser.add_argument("--panels", type=int, nargs="*", default=[5000], help="sizes of drawn sets beside the sample")
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
        times["retrain s"] = retrain(folders["sample"])
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
