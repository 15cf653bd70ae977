"""What stands in for people in front of the explorer: its server on some data, and tabs without a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
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
SPLITS = (["train"], ["val"], ["test"], ["train", "val"], [])


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

    async def color(self, turn: int) -> dict[str, Any]:
        """The next color of the map; its answer must hold the chart."""
        key = next(k for k in self.widgets if k.startswith("map_color"))
        options = list(self.widgets[key][0].options)
        answer = await self.run(widget=key, value=options[(turn + 1) % len(options)])
        return answer | {"errors": answer["errors"] + ("plotly_chart" not in answer["kinds"])}

    async def filter(self, turn: int) -> dict[str, Any]:
        """The next choice of splits; its answer must say how many panels are shown."""
        answer = await self.run(widget="map_filter_split", value=SPLITS[turn % len(SPLITS)])
        return answer | {"errors": answer["errors"] + (not any(w.startswith("showing ") for w in answer["words"]))}


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

    from stage3.batches.dataset import Dataset
    from stage3.model import embedding
    from stage3.projection import files, layouts
    from stage3.runs import RunFolder

    run = RunFolder.load(folder / "data" / "samples" / "runs" / "first")
    data, step = Dataset.load(run.config, progress=False), run.checkpoint().step
    held = embedding.embed(run.model(step), data.panel_set, data.pages("all"))
    rows, xy = held.rows.numpy(), layouts.pca(held.panel.numpy())
    page = data.table.page_of_panel[rows]
    about = data.table.pages.iloc[page].reset_index(drop=True)
    columns = {"page_index": page, "panel_index": data.table.panels["order"].to_numpy()[rows]}
    columns |= {"canonical_id": about["page_id"], "comic_name": about["book_id"], "page_name": about["page_id"]}
    columns |= {"panel_count": about["n_panels"], "cluster_id": (page % 12).astype(np.int32), "row": rows}
    columns |= {"umap_dim1": xy[:, 0], "umap_dim2": xy[:, 1], "pca_1": xy[:, 0], "pca_2": xy[:, 1]}
    frame = pd.DataFrame(columns).assign(trust=np.float32(1), fitted=True)
    files.save(files.projection_path(run, step), frame, {"table": data.table.fingerprint()})
