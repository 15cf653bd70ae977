"""Data: what the data set holds, what was left out of it and why, down to the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import streamlit as st

from app import shell
from app.addresses import VIEWS
from app.charts import data as charts
from app.parts import data_report, export
from app.store import loaders, readonly
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data import page_check
from stage3.data.images import ImageProblem
from stage3.data.readers.report import REASONS
from stage3.data.splits import split_sizes
from stage3.data.table import DataReport
from stage3.errors import Stage3Error

MAX_LISTED = 20_000  # pages of a table that is sent to the browser
RESOLVED = {
    "exact": "by the exact id",
    "extension": "with an image extension removed or added",
    "suffix": "by the longest unique end of the path",
    "normalised": "by the name in lower case with separators as underscores",
    "ambiguous": "several files fit: left out",
    "unresolved": "no file fits: left out",
}
TABS = ("Left out", "Any page", "Anomalies", "Split by book", "How files were found")


def render() -> None:
    """Numbers first, then what was left out and why."""
    chosen = shell.chosen(needs_checkpoint=False)
    if loaders.missing(chosen.run):
        _recorded(chosen)
        return
    try:
        data = shell.working("Reading the data set", loaders.open_dataset, chosen.run)
    except Stage3Error as error:
        _recorded(chosen, error)
        return
    report = data.table.report
    config = loaders.config_here(chosen.run.config)
    _heading("What this run's model reads: pages kept and left out, and why.")
    if changed := loaders.data_changed(chosen.run):
        shell.error_box(f"{changed}. Numbers of other views are of the data as it is now.", "The data has changed")
    data_report.numbers(report)
    _source(report)
    data_report.charts_of(report)
    bodies = {
        "Left out": lambda: _left_out(chosen, config, data),
        "Any page": lambda: _any_page(chosen, config, data),
        "Anomalies": lambda: data_report.anomalies(report),
        "Split by book": lambda: _splits(data),
        "How files were found": lambda: _found(report),
    }
    for name, tab in zip(TABS, st.tabs(TABS, key="data_tabs", on_change="rerun"), strict=True):
        if tab.open:
            with tab:
                bodies[name]()
    _downloads(chosen, config, data)


def _heading(about: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        shell.heading("Data", about)
        if not readonly.on() and st.button("Add comics", icon=VIEWS["add"][1], key="data_add"):
            shell.go("add")


def _recorded(chosen: shell.Chosen, error: Stage3Error | None = None) -> None:
    """The report that the run kept, where the data itself is no longer here."""
    _heading("The data set is not here; this is what the run recorded about it.")
    if error is not None:
        shell.error_box(error, "The data set cannot be opened")
    try:
        report = DataReport.from_dict(chosen.run.read_json("data_report"))
    except (Stage3Error, KeyError, TypeError, AttributeError):
        return
    data_report.numbers(report)
    data_report.charts_of(report)
    data_report.anomalies(report)


# --- where it is from


def _source(report: DataReport) -> None:
    source = report.facts.get("source") or {}
    labels = f" · labels {Path(source['labels']).name}" if source.get("labels") else " · no labels file: all pages kept"
    if source:
        with st.container(key="quiet-data-source"):
            manifest = Path(source["manifest"]).name
            shell.line(f"{source['name']} · {source['format']} panel files · manifest {manifest}{labels}")


# --- left out, down to the page


def _listed(chosen: shell.Chosen, config: Config) -> pd.DataFrame:
    key = ("listed", *loaders.data_key(chosen.run.config))
    found: pd.DataFrame = loaders.remember(key, lambda: page_check.listed_pages(config))
    return found


def _left_out(chosen: shell.Chosen, config: Config, data: Dataset) -> None:
    report = data.table.report
    if not report.skipped:
        shell.line("No page was left out.")
        return
    table = pd.DataFrame(
        [(reason, n, REASONS.get(reason, "")) for reason, n in report.skipped.most_common()],
        columns=["reason", "pages", "meaning"],
    )
    st.dataframe(table, hide_index=True, column_config={"meaning": st.column_config.TextColumn(width="large")})
    listed = shell.working("Reading the manifest", _listed, chosen, config)
    key = ("left-out", *loaders.data_key(chosen.run.config))
    pages = loaders.remember(key, lambda: page_check.left_out(listed, data.table))
    reasons = [r for r in table["reason"] if (pages["reason"] == r).any()]
    if len(reasons) > 1:
        pick = st.pills("Reason", reasons, key="data_reason", format_func=lambda r: r.replace("_", " "))
        pages = pages[pages["reason"] == pick].reset_index(drop=True) if pick else pages
    left, right = st.columns([1, 1.25], gap="medium")
    with left:
        shown = pages.head(MAX_LISTED)[["page_id", "label", "reason"]]
        event = st.dataframe(
            shown,
            hide_index=True,
            height=620,
            key=f"data_left_out_{len(shown)}",
            on_select="rerun",
            selection_mode="single-row",
            column_config={
                "page_id": st.column_config.TextColumn("Page", width="medium"),
                "label": st.column_config.TextColumn("Label", width="small"),
                "reason": st.column_config.TextColumn("Reason", width="small"),
            },
        )
        if len(pages) > len(shown):
            shell.line(f"The first {len(shown):,} of {len(pages):,} pages; the download below has all.")
        with st.container(key="quiet-data-left-out"):
            shell.line("Choose a page to see its image and what its file holds.")
    picked = event["selection"]["rows"]
    at = picked[0] if picked and picked[0] < len(pages) else 0
    with right:
        if len(pages):
            _page(chosen, config, data, str(pages["page_id"][at]), str(pages["image"][at]), str(pages["reason"][at]))


def _any_page(chosen: shell.Chosen, config: Config, data: Dataset) -> None:
    pages = data.table.pages
    listed = shell.working("Reading the manifest", _listed, chosen, config)
    left, right = st.columns([1, 1.25], gap="medium")
    with left:
        books = pages["book_id"].drop_duplicates().tolist()
        book = st.selectbox("Book", books, key="data_book")
        of_book = pages["page_id"][(pages["book_id"] == book).to_numpy()].tolist()
        page = str(st.selectbox("Page", of_book, key=f"data_page_{books.index(book)}"))
        row = pages.index[(pages["page_id"] == page).to_numpy()][0]
        shell.facts(
            {
                "type": pages["page_type"][row] or "–",
                "file found": RESOLVED.get(str(pages["resolved_by"][row]), ""),
                "image": f"{pages['width'][row]} × {pages['height'][row]} pixels",
                "panels": int(pages["n_panels"][row]),
            }
        )
        if st.button("Open page", icon=":material/auto_stories:", key="data_open"):
            shell.go("page", page=int(row))
    written = listed["image"][(listed["page_id"] == page).to_numpy()]
    with right:
        _page(chosen, config, data, page, str(written.iloc[0]) if len(written) else "", "")


def _page(chosen: shell.Chosen, config: Config, data: Dataset, page_id: str, image: str, reason: str) -> None:
    """One page with its boxes, and what became of each entry of its file."""
    of = (*loaders.data_key(chosen.run.config), page_id, image)
    check: page_check.PageCheck = loaders.remember(
        ("checked", *of), lambda: page_check.check_page(config, page_id, image, data.table.report.facts)
    )
    shell.line(page_id)
    why = check.problem or ((reason, REASONS.get(reason, "")) if reason else None)
    if why:
        with st.container(key="quiet-data-why"):
            shell.line(_why(why[0], check.problem[1] if check.problem else ""))
    kept = sum(p.order is not None for p in check.panels)
    try:
        drawn = loaders.remember(("overlay", *of), lambda: charts.overlay(check))
        alt = f"The page with {kept} usable panels framed and {len(check.panels) - kept} dropped ones crossed out"
        shell.show_image(drawn, alt, width=560)
    except ImageProblem as problem:
        shell.error_box(problem.detail, "This page's image cannot be read")
    if not check.image:
        shell.line("Its image is missing; the boxes are drawn on an empty page.")
    if len(check.panels):
        st.dataframe(
            charts.entries(check, left_out=bool(reason)),
            hide_index=True,
            column_config={
                "order": st.column_config.TextColumn(width="small", help="Place in reading order"),
                "entry": st.column_config.NumberColumn(width="small", help="Position in the panel file"),
                "outcome": st.column_config.TextColumn(width="medium"),
            },
        )
    for code, detail in check.notes:
        shell.line(f"{code}: {detail}")


def _why(reason: str, detail: str) -> str:
    meaning = "; ".join(filter(None, (REASONS.get(reason, ""), detail)))
    return f"Left out under “{reason}”: {meaning}." if meaning else f"Left out under “{reason}”."


# --- the rest of the report


def _splits(data: Dataset) -> None:
    charts.show_splits(split_sizes(data.table, data.split))
    st.dataframe(
        books(data),
        hide_index=True,
        height=420,
        column_config={
            "textless": st.column_config.ProgressColumn("Textless panels", format="percent", min_value=0, max_value=1),
            "book": st.column_config.TextColumn("Book", width="medium"),
        },
    )


def books(data: Dataset) -> pd.DataFrame:
    """One row per book: split, pages, panels, share of panels without text."""
    panels, pages = data.table.panels, data.table.pages
    page = data.table.page_of_panel
    names = pd.Series(pages["book_id"].to_numpy())
    split = pd.Series(data.split).map({0: "train", 1: "val", 2: "test"})
    textless = pd.Series(((panels["dialogue"] == "") & (panels["description"] == "")).to_numpy(), name="textless")
    frame = pd.DataFrame({"book": names, "split": split, "panels": pages["n_panels"].to_numpy()})
    out = frame.groupby("book", sort=False).agg(
        split=("split", "first"), pages=("panels", "size"), panels=("panels", "sum")
    )
    out["textless"] = textless.groupby(names.to_numpy()[page], sort=False).mean().reindex(out.index)
    return out.reset_index()


def _found(report: DataReport) -> None:
    found = {k: v for k, v in report.facts.get("resolved_by", {}).items() if v}
    rows = [(name, n, RESOLVED.get(name, "")) for name, n in found.items()]
    if rows:
        st.dataframe(pd.DataFrame(rows, columns=["found", "pages", "meaning"]), hide_index=True)
    else:
        shell.line("All pages are in one file, so none had to be found.")
    same = report.facts.get("duplicate_images", {})
    if same:
        shell.line(f"Equal images: {same.get('pictures', 0):,} in {same.get('groups', 0):,} groups.")
    labels = report.facts.get("labels") or {}
    if labels:
        unknown = report.facts.get("unknown_labels") or {}
        rows = [(name, n, "not in the vocabulary" if name in unknown else "") for name, n in labels.items()]
        st.dataframe(pd.DataFrame(rows, columns=["label", "pages", "note"]), hide_index=True)


def _downloads(chosen: shell.Chosen, config: Config, data: Dataset) -> None:
    st.divider()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", chosen.id)[:60]
    report = data.table.report

    def report_json() -> bytes:
        return json.dumps(report.to_dict(), ensure_ascii=False, indent=1).encode("utf-8")

    def pages_csv() -> bytes:
        return export.csv(page_check.left_out(_listed(chosen, config), data.table))

    made = {
        "Report (JSON)": (report_json, f"{stem}-data-report.json", "application/json"),
        "Pages left out (CSV)": (pages_csv, f"{stem}-left-out.csv", "text/csv"),
        "Panel table (Parquet)": (
            lambda: export.parquet(data.table.panels),
            f"{stem}-panels.parquet",
            "application/octet-stream",
        ),
        "Books (CSV)": (lambda: export.csv(books(data)), f"{stem}-books.csv", "text/csv"),
    }
    with st.container(horizontal=True, gap="small", key="data-downloads"):
        for label, (make, name, mime) in made.items():
            st.download_button(
                label,
                make,
                name,
                mime,
                key=f"data_{name}",
                on_click="ignore",
                icon=":material/download:",
                type="tertiary",
            )
