"""One page at reading size: its panels in reading order, their losses, and the pages they are nearest to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
import torch

from app import components, shell
from app.charts import names, pages, theme
from app.parts import boxes, panel
from app.store import loaders
from stage3.cli import number
from stage3.metrics import neighbors
from stage3.model.distant import take

PULL = 8  # nearest panels looked at for each panel
LONG_LIST = 2_000  # pages of a book, or books, that a list may hold
COLUMNS = names.PANEL_LOSSES | names.RANKS


def render() -> None:
    """The page that the address names, or the first one."""
    chosen = shell.chosen()
    frame = shell.working("Reading the panels", loaders.panel_frame, chosen.run, chosen.step)
    table = loaders.open_dataset(chosen.run).table
    if not len(table.pages):
        shell.empty("No page", "The data set of this run has no page. See Data for what was left out.")
        return
    page = _page(len(table.pages), frame)
    focus = _focus(chosen, page)
    _head(chosen, frame, table.pages, page)
    left, right = st.columns([1, 1.35], gap="large")
    with left:
        _image(chosen, frame, page, focus)
        boxes.button(chosen, page)
    with right:
        _panels(chosen, frame, page)
        _chosen_panel(chosen, frame, panel.page_rows(chosen, page)[0] if focus is None else focus)
    _similarity(chosen, frame, page)
    _pull(chosen, frame, page)


def _page(n: int, frame: pd.DataFrame) -> int:
    """The page of the address; a panel alone names its page; an unknown page is reported and replaced."""
    asked = shell.int_param("page")
    panel = shell.int_param("panel")
    if asked is None and panel is not None and panel < len(frame):
        return int(frame["page"].iloc[panel])
    if asked is None and shell.param("page") is not None:
        shell.unused("page", "is not the number of a page. The first one is shown.")
    if asked is not None and asked >= n:
        with st.container(border=True, key="page-missing"):
            st.text(f"There is no page {asked}; this data set has {n:,} pages. The first one is shown.")
        return 0
    return asked or 0


def _focus(chosen: shell.Chosen, page: int) -> int | None:
    row = shell.int_param("panel")
    if row is not None and row in panel.page_rows(chosen, page):
        return row
    if shell.param("panel") is not None:
        shell.unused("panel", "is not on this page. The first one is shown.")
    return None


def _open(page: int) -> None:
    shell.set_params(page=page, panel=None)


# --- the top line


def _head(chosen: shell.Chosen, frame: pd.DataFrame, listed: pd.DataFrame, page: int) -> None:
    record = listed.iloc[page]
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", key="page-head"):
        shell.heading("Page")
        with st.container(
            horizontal=True, vertical_alignment="bottom", gap="small", width="content", key="page-choose"
        ):
            _lists(chosen, listed, page)
            st.button(
                "Previous",
                icon=":material/chevron_left:",
                key="page-previous",
                disabled=page == 0,
                on_click=shell.callback(_open),
                args=(page - 1,),
                shortcut="Left",
                help="Previous page in the data set",
            )
            st.button(
                "Next",
                icon=":material/chevron_right:",
                key="page-next",
                disabled=page == len(listed) - 1,
                on_click=shell.callback(_open),
                args=(page + 1,),
                shortcut="Right",
                help="Next page in the data set",
            )
    split = str(frame["split"][panel.page_rows(chosen, page)[0]])
    facts = [str(record["page_id"]), f"{int(record['n_panels'])} panels", str(record["page_type"]), f"{split} split"]
    facts.append(f"page {page + 1:,} of {len(listed):,}")
    shell.line("  ·  ".join(f for f in facts if f))
    if summary := str(record["overall_summary"]):
        with st.container(key="quiet-page-summary"):
            st.text(summary if len(summary) <= 400 else summary[:399] + "…")


def _lists(chosen: shell.Chosen, listed: pd.DataFrame, page: int) -> None:
    """Book and page lists that follow the address; too long ones are left out, and the buttons remain."""
    key = ("books", *loaders.checkpoint_key(chosen.run, chosen.step))
    books = loaders.remember(key, lambda: listed["book_id"].drop_duplicates().tolist())
    own = str(listed["book_id"].iloc[page])
    if len(books) <= LONG_LIST:
        st.session_state["page_book"] = own
        st.selectbox("Book", books, key="page_book", on_change=shell.callback(_book_chosen), args=(listed,), width=230)
    rows = np.flatnonzero((listed["book_id"] == own).to_numpy())
    if len(rows) <= LONG_LIST:
        ids = listed["page_id"].to_numpy()
        st.session_state["page_row"] = page
        st.selectbox(
            "Page",
            rows,
            key="page_row",
            format_func=lambda r: _short(str(ids[r]), own),
            width=230,
            on_change=shell.callback(lambda: _open(st.session_state["page_row"])),
        )


def _short(page_id: str, book: str) -> str:
    return page_id.removeprefix(book).lstrip("/\\") or page_id


def _book_chosen(listed: pd.DataFrame) -> None:
    _open(int(np.flatnonzero((listed["book_id"] == st.session_state["page_book"]).to_numpy())[0]))


# --- image and panels


def _image(chosen: shell.Chosen, frame: pd.DataFrame, page: int, focus: int | None) -> None:
    rows = list(panel.page_rows(chosen, page))
    at = None if focus is None else rows.index(focus)
    drawn, real = panel.page_image(chosen, page, at, 1200)
    alt = f"The page with its {len(rows)} panels framed and numbered in reading order"
    if real:
        part = frame.loc[rows]
        boxes = [[float(part[c][r]) for c in "xywh"] if part["has_box"][r] else None for r in rows]
        ratio = pages.ratio_of(loaders.open_dataset(chosen.run).table.pages.iloc[page])
        components.framed_page(
            shell.thumb_url(chosen, page, 1200, "page"),
            boxes,
            at,
            ratio=ratio,
            alt=alt,
            key=f"page-framed-{chosen.id}-{page}",
            on_pick=lambda place: panel.focus_on(rows[place]),
        )
        return
    shell.show_image(drawn, alt)
    with st.container(key="quiet-page-missing"):
        st.text("The image of this page is missing or unreadable. This is its layout, from the panels' boxes.")


def _panels(chosen: shell.Chosen, frame: pd.DataFrame, page: int) -> None:
    """The table of the page's panels; a click on a row makes it the chosen one."""
    rows = list(panel.page_rows(chosen, page))
    part = frame.loc[rows]
    shown = pd.DataFrame({"image": [shell.thumb_url(chosen, r, 160) for r in rows]}, index=rows)
    shown["n"] = part["order"] + 1
    shown["text"] = part["text"].where(part["text"] != "", "(no text)")
    columns: dict[str, object] = {
        "n": st.column_config.NumberColumn("#", width=36),
        "image": st.column_config.ImageColumn("Panel", width=70),
        "text": st.column_config.TextColumn("Text", width=300),
    }
    for name, label in COLUMNS.items():
        if name in part and part[name].notna().any():
            form = ".0f" if "rank" in name else ".3f"
            shown[name] = [number(v, form) for v in part[name]]  # text: an empty number is shown as None
            columns[name] = st.column_config.TextColumn(label, width=22 + 7 * len(label))
    st.subheader("Panels in reading order", anchor=False)
    key = f"page-panels-{chosen.id}-{page}"
    st.dataframe(
        shown[["n", "image", *[c for c in COLUMNS if c in shown], "text"]],
        key=key,
        hide_index=True,
        row_height=64,
        height=min(64 * len(rows) + 40, 440),
        column_config=columns,  # type: ignore[arg-type]
        on_select=shell.callback(lambda: _row_chosen(key, rows)),
        selection_mode="single-row",
        alt="The page's panels with their texts, losses and ranks",
    )


def _row_chosen(key: str, rows: list[int]) -> None:
    picked = st.session_state[key]["selection"]["rows"]
    panel.focus_on(rows[picked[0]] if picked else None)


def _chosen_panel(chosen: shell.Chosen, frame: pd.DataFrame, row: int) -> None:
    with st.container(border=True, key="card-page-panel"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.subheader(f"Panel {int(frame['order'][row]) + 1}", anchor=False)
            with st.container(horizontal=True, width="content", gap="small"):
                st.button(
                    "On the map",
                    icon=":material/scatter_plot:",
                    key="page-map",
                    on_click=shell.callback(shell.go),
                    args=("map",),
                    kwargs={"panel": row},
                )
                st.button(
                    "Search with it",
                    icon=":material/search:",
                    key="page-search",
                    on_click=shell.callback(shell.go),
                    args=("search",),
                    kwargs={"panel": row},
                )
        image, numbers = st.columns([1, 1.5], gap="medium")
        with image:
            shell.show_image(shell.thumb(chosen, row, 360), panel.title_of(frame, row))
            shell.line(panel.words(frame, row))
        with numbers:
            panel.show_gate(frame, row)
            panel.show_measures(frame, row, f"page-measures-{row}")
        st.markdown("**Nearest panels**", help="By cosine of panel embeddings. A check mark: same page.")
        panel.show_neighbors(chosen, frame, row, key="page", k=12, width=90)


# --- similarity


def _similarity(chosen: shell.Chosen, frame: pd.DataFrame, page: int) -> None:
    rows = np.array(list(panel.page_rows(chosen, page)))
    at = panel.positions_of(chosen, rows)
    rows, at = rows[at >= 0], at[at >= 0]
    if not len(rows):
        return
    st.divider()
    own = take(loaders.embedded(chosen.run, chosen.step), torch.from_numpy(at))
    numbers = [str(int(o) + 1) for o in frame["order"].loc[rows]]
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Panel similarity", anchor=False)
        st.caption("Cosine of panel embeddings. The contrastive loss makes page mates similar.")
        matrix = neighbors.similarity(own.panel.numpy(), own.panel.numpy())
        figure = pages.similarities(matrix, numbers, numbers, axes=("panel", "panel"))
        theme.show(figure, key="page-similar", alt=f"Similarity of the {len(rows)} panels of the page, {_span(matrix)}")
    with right:
        st.subheader("Image-text similarity", anchor=False)
        st.caption(
            "The alignment loss makes the diagonal the highest of its row and column. Empty: no image or no text."
        )
        matrix = neighbors.similarity(own.image.numpy(), own.text.numpy())
        matrix[~frame["has_image"].loc[rows].to_numpy(bool)] = np.nan
        matrix[:, ~frame["has_text"].loc[rows].to_numpy(bool)] = np.nan
        if np.isnan(matrix).all():
            shell.line("This page has no image or no text to compare.")
            return
        figure = pages.similarities(matrix, numbers, numbers, axes=("image of panel", "text of panel"))
        theme.show(figure, key="page-aligned", alt=f"Cosine of images and texts of the page, {_span(matrix)}")


def _span(matrix: np.ndarray) -> str:
    return f"from {np.nanmin(matrix):.2f} to {np.nanmax(matrix):.2f}"


def ending(page_id: str) -> str:
    """An id below a small image: its last 44 characters, since pages of a book differ in their ends."""
    return page_id if len(page_id) <= 44 else "…" + page_id[-43:]


def _pull(chosen: shell.Chosen, frame: pd.DataFrame, page: int) -> None:
    """Which pages the panels of this page are nearest to."""
    rows = np.array(list(panel.page_rows(chosen, page)))
    rows = rows[panel.positions_of(chosen, rows) >= 0]
    if not len(rows) or len(frame) < 2:
        return
    near, cosine = panel.nearest(chosen, rows, PULL)
    pulled = neighbors.pages_pulled_to(page, near, cosine, frame["page"].to_numpy())
    total = near.size
    own = next((n for p, n, _ in pulled if p == page), 0)
    possible = min(len(rows) - 1, PULL) * len(rows)
    st.subheader("Nearest pages", anchor=False)
    st.caption(f"Pages of the {PULL} nearest panels of each panel.")
    mates = f"{own} of the {possible} page mates are among them" if possible else "its only panel has no page mates"
    shell.line(f"{total} nearest panels: {mates}")
    others = [(p, n, c) for p, n, c in pulled if p != page][:6]
    with st.grid(min_column_width=170, gap="small", key="page-pull"):
        for other, count, mean in others:
            first = int(loaders.open_dataset(chosen.run).table.pages["first_panel"].iloc[other])
            with st.container(border=True, key=f"tile-pull-{other}", gap="xxsmall"):
                page_id = str(frame["page_id"][first])
                shell.show_image(shell.thumb(chosen, other, 240, kind="page"), f"Page {page_id}")
                shell.line(ending(page_id))
                shell.line(f"{count} of {total}, mean cosine {mean:.2f}")
                st.button(
                    "Open", key=f"page-pull-{other}-go", type="tertiary", on_click=shell.callback(_open), args=(other,)
                )
