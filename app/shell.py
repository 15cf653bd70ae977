"""The frame of the explorer: navigation, the chosen run, deep links, errors and empty states.

How to write a view, `app/views/NAME.py`:

    import streamlit as st
    from app import shell
    from app.store import loaders

    def render() -> None:
        chosen = shell.chosen()                     # stops the page with what to do when there is no run
        frame = shell.working("Reading the panels", loaders.panel_frame, chosen.run, chosen.step)
        shell.heading("Map", "Every dot is a panel.")
        row = shell.int_param("panel")              # from ?panel=…; shell.set_params(panel=7) writes it
        shell.show_image(shell.thumb(chosen, row), "A panel")  # pixels through the guarded reader, never a path
        if st.button("Open its page"):
            shell.go("page", page=int(frame["page"][row]), panel=row)

Addresses look like `/map?run=samples/first&panel=12`; `/?view=map&run=…` means the same. The chosen run and checkpoint
stay across views; other parameters belong to the view and are dropped when another view is opened by hand.

Text from data (ids, texts, file names, error messages) goes through `st.text`, `st.code`, `st.dataframe` or a chart
(`charts.theme.safe`), never through Markdown, labels or captions: `shell.line` and `shell.facts` do that. Errors that a
view does not catch end in one plain box: see `app.guard`.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

import streamlit as st

from app import addresses, components
from app.addresses import START, VIEWS
from app.charts import worth
from app.guard import boundary, boxed, show_pending
from app.guard import callback as callback
from app.guard import dialog as dialog
from app.guard import error_box as error_box
from app.guard import fragment as fragment
from app.store import loaders, readonly, thumbs
from stage3.config import Config
from stage3.data.images import ImageProblem
from stage3.errors import StorageError
from stage3.runs import RunFolder

T = TypeVar("T")

WITHOUT_RUN_BAR = ("evidence", "add")
OF_DATA = ("", "map", "search", "page", "data")  # they say once where the data of a run has moved; "" is the start


# --- the chosen run


@dataclass(frozen=True)
class Chosen:
    """The run and checkpoint a view shows. `step` is None where the run has no checkpoint yet."""

    id: str
    run: RunFolder
    step: int | None
    is_sample: bool


def chosen(*, needs_checkpoint: bool = True) -> Chosen:
    """The run of this session; shows what to do and stops the page when there is none (or no checkpoint)."""
    found: Chosen | None = st.session_state.get("_chosen")
    if found is None:
        empty(
            "No run yet",
            "A run is a folder that training writes. Train one on the sample comics, then come back:",
            "python -m stage3.train --run runs/first --data data/samples",
        )
        if not readonly.on() and st.button("Add comics", icon=VIEWS["add"][1], type="primary", key="empty-add"):
            go("add")
        st.stop()
    if needs_checkpoint and found.step is None:
        empty(*loaders.without_checkpoint(found.run))
        st.stop()
    return found


def choose(entry_id: str, step: int | None = None) -> None:
    """Make a run the chosen one, from the next rerun on."""
    st.session_state["_run"], st.session_state["_step"] = entry_id, step
    for name, value in (("run", entry_id), ("step", step)):
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def _find_chosen(found: list[loaders.Entry]) -> Chosen | None:
    """The run of the address, else of this session, else the default; an unknown one is reported and replaced."""
    asked = st.query_params.get("run")
    if asked is not None and asked != st.session_state.get("_run"):
        st.session_state["_run"], st.session_state["_step"] = asked, None
    if "step" in st.query_params:
        st.session_state["_step"] = int_param("step")
    by_id = {e.id: e for e in found}
    wanted = st.session_state.get("_run")
    entry = by_id.get(wanted) if wanted else None
    if entry is None:
        entry = loaders.default_entry(found)
        if wanted is not None:
            st.session_state["_notice"] = f"There is no run {str(wanted)[:100]!r} here; showing another one."
            st.query_params.pop("step", None)  # it was of that run
            st.session_state["_step"] = None
    if entry is None:
        return None
    step: int | None
    try:
        step = loaders.resolve_step(entry.run, st.session_state.get("_step"))
    except StorageError:
        there = loaders.steps(entry.run)
        step, st.session_state["_step"] = (there[-1] if there else None), None
    if "step" in st.query_params and step != int_param("step"):
        shown = "it has no checkpoint" if step is None else f"step {step} is shown"
        asked_step = st.query_params.pop("step")[:20]
        st.session_state["_notice"] = f"step={asked_step} in the address is no checkpoint of {entry.run.name}; {shown}."
    st.session_state["_run"] = entry.id
    if st.query_params.get("run", entry.id) != entry.id:
        st.query_params["run"] = entry.id  # an address without a run is completed in the browser: see keys.js
    return Chosen(entry.id, entry.run, step, entry.is_sample)


def _run_bar(found: list[loaders.Entry], now: Chosen) -> None:
    """One line under the navigation: which run, which checkpoint, and its state."""
    ids = [e.id for e in found]
    names = {e.id: _run_label(e) for e in found}
    st.session_state["_run_choice"] = now.id
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="run-bar"):
        st.selectbox(
            "Run",
            ids,
            format_func=lambda i: names.get(i, i),
            key="_run_choice",
            on_change=callback(lambda: choose(st.session_state["_run_choice"])),
            label_visibility="collapsed",
            width=330,
        )
        there = loaders.steps(now.run)
        if now.step is not None and there:
            best = now.run.best()
            labels = {s: f"step {s}" + (" · best" if best and s == best.step else "") for s in there}
            st.session_state["_step_choice"] = now.step
            st.selectbox(
                "Checkpoint",
                there,
                format_func=lambda s: labels.get(s, str(s)),
                key="_step_choice",
                on_change=callback(lambda: choose(now.id, st.session_state["_step_choice"])),
                label_visibility="collapsed",
                width=170,
            )
        state_badge(now.run)
        st.text(_run_facts(now.run), width="stretch")


def _run_label(entry: loaders.Entry) -> str:
    return f"{entry.run.name}  (sample)" if entry.is_sample else entry.id


def weights_of(config: Config) -> str:
    """The weights of the objectives in the order of their declaration: "1 / 0.5 / 1"."""
    return " / ".join(f"{weight:g}" for weight in config.weights.values())


def temperatures_of(config: Config) -> str:
    """The temperatures of the objectives, each value once."""
    return " / ".join(f"{t:g}" for t in dict.fromkeys(config.temperatures.values()))


def _run_facts(run: RunFolder) -> str:
    c = run.config
    parts = [f"weights {weights_of(c)}", f"τ {temperatures_of(c)}", worth.headline(run)]
    return "  ·  ".join(filter(None, parts))


STATE_LOOK = {
    "running": ("running", "blue", ":material/play_circle:"),
    "finished": ("finished", "green", ":material/check_circle:"),
    "stopped": ("stopped", "orange", ":material/pause_circle:"),
    "failed": ("failed", "red", ":material/error:"),
    "created": ("not started", "gray", ":material/radio_button_unchecked:"),
    "lost": ("process died", "red", ":material/help:"),
}


JOB_LOOK = STATE_LOOK | {
    "starting": ("starting", "blue", ":material/hourglass:"),
    "queued": ("queued", "gray", ":material/schedule:"),
}


def run_state(run: RunFolder) -> str:
    """`running` only where a process really trains it; a run that says so and is not live is `lost`."""
    state = run.status.state
    return "lost" if state == "running" and not run.is_live else state


def state_badge(run: RunFolder) -> None:
    """The state as a colored word."""
    word, color, icon = STATE_LOOK[run_state(run)]
    st.badge(word, icon=icon, color=color)  # type: ignore[arg-type]


# --- addresses


def int_param(name: str, low: int = 0) -> int | None:
    """An integer of the address, None when it is missing or not a number."""
    text = st.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 12 and int(text) >= low else None


def param(name: str) -> str | None:
    """A string of the address (untrusted: compare it with known names)."""
    return st.query_params.get(name)


def unused(name: str, why: str, value: str | None = None) -> None:
    """Say of a parameter of the address that it is not used: "panel=x in the address", and why."""
    with st.container(border=True):
        st.text(f"{name}={str(value or param(name))[:60]} in the address {why}")


def set_params(**values: Any) -> None:
    """Write parameters into the address without a rerun; None removes one."""
    for name, value in {"view": None, **values}.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != str(value):
            st.query_params[name] = str(value)


def go(view: str, **params: Any) -> NoReturn:
    """Open another view with these parameters, now. In a callback use `request`."""
    request(view, **params)
    st.rerun()


def request(view: str, **params: Any) -> None:
    """Open another view on the next rerun of the page; for callbacks outside fragments (a fragment reruns alone)."""
    st.session_state["_go"] = (view, {k: str(v) for k, v in params.items() if v is not None})


def link(view: str, **params: Any) -> str:
    """The address of a view, for link columns and copying."""
    run = params.pop("run", st.session_state.get("_run"))
    return addresses.link(view, run=run, **params)


# --- images


def thumb_url(chosen_run: Chosen, row: int, side: int = 240, kind: str = "panel") -> str:
    """The address of a panel's (or page's) image: for image columns, hover overlays and components."""
    return thumbs.url(kind, chosen_run.id, row, side, loaders.data_version(chosen_run.run))


def show_image(image: bytes, alt: str, width: int | Literal["stretch"] = "stretch") -> None:
    """Show a WEBP image, its bytes within the message to the browser.

    `st.image(bytes)` would encode it anew and serve it as a file that is deleted once a later run of the script no
    longer shows it: a browser that is slower than the next click gets a 404.
    """
    st.image(f"data:image/webp;base64,{base64.b64encode(image).decode()}", width=width, alt=alt)


def thumb(chosen_run: Chosen, row: int, side: int = 360, kind: str = "panel") -> bytes:
    """The image itself, for `show_image`; a gray one where there is none."""
    try:
        return thumbs.image_of(chosen_run.run, kind, int(row), thumbs.side_for(side))
    except ImageProblem:
        return thumbs.placeholder(side)


# --- words on the page


def heading(title: str, about: str = "") -> None:
    """The view's title and one sentence; both our own words, never data."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="view-heading"):
        st.header(title, anchor=False, width="content")
        if about:
            st.caption(about, width="content")


def line(text: str) -> None:
    """A line of text from data, shown as it is."""
    st.text(text)


def facts(values: dict[str, Any]) -> None:
    """Names and values as a quiet two-column table; safe for text from data."""
    rows = [{"": name, "value": str(value)} for name, value in values.items()]
    st.dataframe(rows, hide_index=True, column_config={"": st.column_config.TextColumn(width="small")})


def empty(title: str, about: str, command: str = "") -> None:
    """An empty state that says what to do."""
    with st.container(border=True, key="empty-state", gap="small"):
        st.subheader(title, anchor=False)
        st.text(about)
        if command:
            st.code(command, language="bash", wrap_lines=True)


def working(what: str, make: Callable[..., T], *args: Any) -> T:
    """Do something slow under a spinner that says what it is; instant when the result is remembered."""
    with st.spinner(f"{what} …", show_time=True):
        return make(*args)


# --- the page


def main() -> None:
    """The whole page: what every view shares, then the view. What fails takes as little of it along as it can."""
    with boundary():
        st.set_page_config(page_title="Stage 3 explorer", page_icon=components.icon(), layout="wide")
        components.style()
        _whole_page()


def _whole_page() -> None:
    pages = {name: _page(name) for name in VIEWS}
    page = st.navigation(list(pages.values()), position="top")
    _follow(pages, page.url_path or START)
    if st.get_option("server.address") not in ("127.0.0.1", "localhost", "::1") and not readonly.on():
        st.warning("Anyone on the network can open this explorer: server.address is not 127.0.0.1.")
    found = loaders.entries()
    now = _find_chosen(found)
    st.session_state["_chosen"] = now
    if now is not None and page.url_path not in WITHOUT_RUN_BAR:
        with boxed():
            _run_bar(found, now)
            if page.url_path in OF_DATA:
                importlib.import_module("app.parts.moved").notice(now.run)
    with boxed():
        importlib.import_module("app.parts.strip").show()  # parts stand on this module
    if notice := st.session_state.pop("_notice", None):
        with st.container(border=True):
            st.text(notice)
    components.shortcuts(now.id if now else None)
    page.run()
    loaders.view_drawn()


def _page(name: str) -> Any:
    title, icon = VIEWS[name]
    return st.Page(_runner(name), title=title, icon=icon, url_path=name, default=name == START)


def _runner(name: str) -> Callable[[], None]:
    def view() -> None:
        if importlib.util.find_spec(f"app.views.{name}") is None:
            empty(f"{VIEWS[name][0]} is not installed", "This installation lacks that view.")
            return
        show_pending()
        with boxed():
            importlib.import_module(f"app.views.{name}").render()

    view.__name__ = name
    return view


def _follow(pages: dict[str, Any], current: str) -> None:
    """Go where `go` or `?view=` asks."""
    if "_go" in st.session_state:
        view, params = st.session_state.pop("_go")
        if "run" not in params and st.session_state.get("_run"):
            params = {"run": st.session_state["_run"], **params}
        st.switch_page(pages[view], query_params=params)
    asked = st.query_params.get("view")
    if asked is not None and asked not in pages and not st.session_state.get("_followed"):
        st.session_state["_followed"] = True
        unused("view", f"is none of {', '.join(pages)}.")
    if asked in pages and asked != current and not st.session_state.get("_followed"):
        st.session_state["_followed"] = True  # once: the browser drops it from the address, see keys.js
        given = {name: st.query_params.get_all(name) for name in st.query_params if name != "view"}
        st.switch_page(pages[asked], query_params=given)
