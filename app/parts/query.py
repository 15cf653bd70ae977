"""What a person searches with: a panel of the set, words, their own image, or an image and words.

The query lives in the session: `search_kind`, `search_panel` (a row), `search_words`, `search_image` (a small decoded
copy of an upload; the file itself and its name are dropped at once) and `search_blend`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from app import shell
from app.parts import cards
from app.store import loaders, readonly
from app.store.cache import Memory
from stage3.config import SPLITS
from stage3.data import images
from stage3.data.images import ImageProblem
from stage3.errors import DataError
from stage3.model.distant import Distant
from stage3.model.mapped import embed_mapped
from stage3.runs.data import check_features
from stage3.runs.inspection import MEASURED
from stage3.runs.tuned import backbones_of
from stage3.search.approximate import INDICES
from stage3.search.fusion import Words, WordTarget, search_words
from stage3.search.searcher import MAX_WORDS, Filters, Query, Results, Searcher, Space, checked_words
from stage3.storage import sha256

KINDS = {"panel": "Panel", "words": "Words", "image": "Image", "both": "Both"}
MAX_UPLOAD = 20 * 2**20  # bytes; the server refuses more before they arrive, this is checked again
MAX_MEGAPIXELS = 50.0  # of an upload: decoding it takes three bytes per pixel
KEPT_SIDE = 640  # pixels of the copy that is kept
MANY = 100_000  # panels from which an approximate index is offered
SHOWN_WORDS = 200  # characters of a query that an address may carry

_searchers: Memory[Searcher] = Memory(2)  # an index is as large as the embeddings
_decoding = threading.Semaphore(2)  # images decoded at a time over all sessions


@dataclass(frozen=True)
class Way:
    """One list of results: a query, and the space it searches."""

    label: str
    query: Query | Words
    target: Space | WordTarget


def searcher_of(chosen: shell.Chosen) -> Searcher:
    """The searcher of the chosen checkpoint, shared by all sessions.

    Raises:
        DataError: the data's features come from other backbones than the run was trained on.
    """

    def make() -> Searcher:
        run = chosen.run
        model, data = loaders.load_model(run, chosen.step), loaders.open_dataset(run)
        check_features(run, model.encoder.spec, data)
        names = backbones_of(run, loaders.resolve_step(run, chosen.step))
        cache = Path(loaders.config_here(run.config).cache_dir)
        made, mark = loaders.embedded(run, chosen.step), loaders.fingerprint(run, chosen.step)
        seen = loaders.seen(run, chosen.step)
        held = embed_mapped(model, mark, seen, cache, ("image", "text")) if isinstance(made, Distant) else made
        frame = loaders.panel_frame(run, chosen.step)
        said = frame[[name for name in frame if name not in MEASURED]]
        return Searcher(seen, model, held, names, run.config.crop_fit, cache, mark, said)

    return _searchers.get(loaders.checkpoint_key(chosen.run, chosen.step), make)


# --- the session's query


def use_panel(row: int) -> None:
    """Search with a panel of the set from now on."""
    st.session_state["search_kind"], st.session_state["search_panel"] = "panel", int(row)
    shell.set_params(panel=int(row), q=None)


def use_panel_within(row: int, split: str) -> None:
    """Search with a panel among the pairs of image and text of a split, as the ranks of missed panels are made."""
    use_panel(row)
    for column, value in (("book", []), ("page_type", []), ("split", [split])):
        st.session_state[f"search_filter_{column}"] = value
    st.session_state["search_filter_text"] = "pair"


def follow_address() -> None:
    """Take the query that a new address names; `?panel=` wins over `?q=`."""
    asked = (shell.int_param("panel"), shell.param("q"))
    if asked == st.session_state.get("search_asked"):
        return
    st.session_state["search_asked"] = asked
    panel, words = asked
    if panel is None and shell.param("panel") is not None:
        shell.unused("panel", "is not the number of a panel.")
    if panel is not None:
        st.session_state["search_kind"], st.session_state["search_panel"] = "panel", panel
    elif words:
        st.session_state["search_kind"], st.session_state["search_words"] = "words", words[:SHOWN_WORDS]


def write_address(kind: str) -> None:
    """Make the address name the query, as far as an address can."""
    panel = st.session_state.get("search_panel") if kind == "panel" else None
    words = st.session_state.get("search_words", "").strip() if kind == "words" else ""
    shell.set_params(panel=panel, q=words if 0 < len(words) <= SHOWN_WORDS else None)
    st.session_state["search_asked"] = (shell.int_param("panel"), shell.param("q"))


def first_panel(searcher: Searcher) -> int:
    """The default query: the first held-out panel with an image and one of the longer half of the texts.

    Longer texts tend to say more of what the image shows.
    """
    frame = searcher.frame
    both = (frame["has_image"] & frame["has_text"]).to_numpy()
    length = frame["text"].str.len().to_numpy()
    telling = both & (length >= np.median(length[both])) if both.any() else both
    for split in reversed(SPLITS):
        found = np.flatnonzero(telling & (frame["split"] == split).to_numpy())
        if len(found):
            return int(found[0])
    return int(searcher.embedded.rows[0])


# --- asking


def ask(chosen: shell.Chosen, searcher: Searcher) -> list[Way]:
    """Draw the query's controls; returns the lists that can be shown for it, the two most useful ones first."""
    st.session_state.setdefault("search_kind", "panel")
    kind = st.segmented_control(
        "Search with",
        list(KINDS),
        format_func=KINDS.__getitem__,
        key="search_kind",
        required=True,
        width="stretch",
    )
    if kind == "panel":
        return _ask_panel(chosen, searcher)
    if kind == "words":
        return _word_ways(searcher)
    if kind == "image":
        image = _ask_image(searcher)
        return _ways(image, "image", ("text", "image", "panel")) if image else []
    return _ask_both(searcher)


def _ask_panel(chosen: shell.Chosen, searcher: Searcher) -> list[Way]:
    row = st.session_state.get("search_panel")
    if row is None:
        row = st.session_state["search_panel"] = first_panel(searcher)
    spaces = searcher.spaces_of(row)
    if not spaces:
        shell.error_box(f"There is no panel {row} in this data set; it has {len(searcher.frame):,} panels.")
        row = st.session_state["search_panel"] = first_panel(searcher)
        spaces = searcher.spaces_of(row)
    panel: dict[Any, Any] = searcher.frame.loc[row].to_dict()
    alt = f"The query: panel {int(panel['order']) + 1} of its page"
    shell.show_image(shell.thumb(chosen, row, 640), alt)
    with st.container(key="quiet-search-panel", gap="xsmall"):
        shell.line(str(panel["text"])[:600] or "(no text)")
        shell.line(f"{panel['page_id']} · panel {int(panel['order']) + 1} · {panel['split']}")
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Random", icon=":material/casino:", key="search_random", on_click=shell.callback(_random), args=(searcher,)
        )
        if st.button("Open page", icon=":material/auto_stories:", key="search_open"):
            shell.go("page", page=int(panel["page"]), panel=row)
    choice = st.popover(
        "Choose a panel", icon=":material/grid_view:", width="stretch", key="search_choose", on_change="rerun"
    )
    if choice.open:
        with choice:
            _choose(chosen, searcher, row)
    queries = {space: searcher.from_panel(row, space) for space in spaces}
    order: list[tuple[Space, Space]] = [("image", "text"), ("text", "image"), ("panel", "panel")]
    order += [("image", "image"), ("text", "text"), ("image", "panel"), ("text", "panel")]
    return [Way(_label(a, b), queries[a], b) for a, b in order if a in queries]


def _random(searcher: Searcher) -> None:
    rows = searcher.embedded.rows
    use_panel(int(rows[int(np.random.default_rng().integers(len(rows)))]))


def _choose(chosen: shell.Chosen, searcher: Searcher, row: int) -> None:
    """A book, one of its pages, and the panels on it."""
    frame = searcher.frame
    books = searcher.choices("book")
    now = frame.loc[row]
    book = st.selectbox("Book", books, index=books.index(str(now["book"])), key=f"search_book_{row}")
    pages = frame["page_id"][(frame["book"] == book).to_numpy()].drop_duplicates().tolist()
    at = pages.index(now["page_id"]) if now["page_id"] in pages else 0
    page = st.selectbox("Page", pages, index=at, key=f"search_page_{row}_{books.index(book)}")
    rows = frame.index[(frame["page_id"] == page).to_numpy()]
    items = [cards.item(frame, int(r)) for r in rows]
    cards.cards(chosen, items, "strip", key="search-strip", on_query=use_panel)


def _word_ways(searcher: Searcher) -> list[Way]:
    """All ways together, which needs no text backbone, then each alone."""
    text = _ask_words()
    if text is None:
        return []
    said = Words(text)
    with suppress(DataError):  # no full-text search here: the lists say so
        shell.working("Indexing the words", lambda: searcher.words)
    try:
        meant = _ways(searcher.from_words(text), "words", ("image", "text", "panel"))
    except DataError:  # no text backbone on this machine: the list of all ways says so
        meant = []
    return [Way("Words → all", said, "all"), *meant, Way("Words → words", said, "words")]


def indices(searcher: Searcher) -> tuple[str, ...]:
    """The indices that a person may choose from: an approximate one where it saves time and its package is there."""
    many = len(searcher.data.table) >= MANY and find_spec("faiss") is not None
    return INDICES if many else INDICES[:1]


def found(searcher: Searcher, way: Way, top: int, filters: Filters, index: str = "exact") -> Results:
    """What a way finds, by an exact or an approximate index.

    Raises:
        DataError: there is nothing to search.
    """
    if isinstance(way.query, Words):
        return search_words(searcher, way.query.text, "words" if way.target == "words" else "all", top, filters, index)
    assert way.target != "all"
    assert way.target != "words"
    return searcher.search(way.query, way.target, top, filters, index)


def _ask_words() -> str | None:
    text: str = st.text_input(
        "Words",
        key="search_words",
        max_chars=MAX_WORDS + 1,  # Streamlit cuts without saying so; one more tells us that it did
        placeholder="a rabbit runs at night",
    )
    if len(text) > MAX_WORDS:
        raise DataError(f"This text is longer than {MAX_WORDS:,} characters. Shorten it.")
    if not text.strip():
        with st.container(key="quiet-search-words"):
            shell.line("Type what is said or seen in the panel, and press Enter.")
        return None
    checked_words(text)
    return text


def _ask_image(searcher: Searcher) -> Query | None:
    """The uploaded image as a query; None while there is none."""
    if readonly.on():
        shell.line("Images cannot be uploaded here: this explorer is for looking only.")
        return None
    turn = st.session_state.setdefault("search_turn", 0)
    given = st.file_uploader(
        "Your image",
        type=["png", "jpg", "jpeg", "webp", "avif", "gif", "bmp", "tif", "tiff"],
        key=f"search_upload_{turn}",
        help="Kept in this session's memory only, never written to disk, and gone when the session ends.",
        max_upload_size=MAX_UPLOAD >> 20,
    )
    if given is not None:
        problem = ""
        try:
            st.session_state["search_image"] = take_image(given.getvalue())
        except ImageProblem as refused:
            st.session_state.pop("search_image", None)
            problem = refusal(refused)
        st.session_state["search_refused"] = problem
        st.session_state["search_turn"] = turn + 1  # a fresh uploader: the file and its name are forgotten
        st.rerun()
    if refused_why := st.session_state.get("search_refused"):
        shell.error_box(str(refused_why), "This image cannot be used")
        return None
    kept: tuple[str, Image.Image] | None = st.session_state.get("search_image")
    if kept is None:
        with st.container(key="quiet-search-upload"):
            shell.line("A drawing, a photo or a cut-out panel: up to 20 MB and 50 megapixels.")
        return None
    digest, image = kept
    shell.show_image(images.encode(image, "WEBP"), "The query image")
    vectors: dict[tuple[Any, ...], Query] = st.session_state.setdefault("search_vectors", {})
    key = (digest, searcher.checkpoint, searcher.names, searcher.crop_fit)
    if key not in vectors:
        vectors.clear()
        vectors[key] = searcher.from_image(image)
    return vectors[key]


def take_image(data: bytes) -> tuple[str, Image.Image]:
    """A digest and a small copy of an uploaded image; decoding is guarded and waits its turn.

    Raises:
        ImageProblem: too large, or no image that can be decoded.
    """
    if len(data) > MAX_UPLOAD:
        raise ImageProblem("too_large", f"the image has {len(data) / 2**20:.1f} MB")
    with _decoding:
        image = images.open_bytes(data, max_megapixels=MAX_MEGAPIXELS, longest=KEPT_SIDE)
    return sha256(data), image


REFUSALS = {
    "too_large": "It is larger than 20 MB. Save it smaller and try again.",
    "empty": "The file is empty.",
    "format": "It is not a JPEG, PNG, WEBP, AVIF, TIFF, GIF or BMP image, whatever its name says.",
    "too_many_pixels": f"It has more than {MAX_MEGAPIXELS:.0f} megapixels. Save it smaller and try again.",
    "too_small": "It is smaller than 4 pixels on a side.",
    "aspect": "It is more than a hundred times as long as wide.",
    "truncated": "The file ends in the middle of the image.",
    "blank": "It is fully transparent.",
    "mode": "Its color mode is not supported. Save it as PNG and try again.",
}


def refusal(problem: ImageProblem) -> str:
    """Why an image is refused and what to do; the words contain nothing from the file."""
    return REFUSALS.get(problem.code, "It is damaged and cannot be decoded. Save it again and retry.")


def _ask_both(searcher: Searcher) -> list[Way]:
    text = _ask_words()
    words = searcher.from_words(text) if text is not None else None
    image = _ask_image(searcher)
    weight = st.slider(
        "Weight of words",
        0.0,
        1.0,
        0.5,
        0.05,
        key="search_blend",
        disabled=not (words and image),
        help="0: the image alone. 1: the words alone",
    )
    if not (words and image):
        return []
    query = searcher.blend(image, words, min(max(float(weight), 0.0), 1.0))
    return _ways(query, "blend", ("image", "text", "panel"))


NAMES = {"image": "image", "text": "text", "panel": "fused"}
PLURALS = {"image": "images", "text": "texts", "panel": "fused panels"}


def _label(space: str, target: str) -> str:
    return f"{NAMES.get(space, space)} → {PLURALS[target]}".capitalize()


def _ways(query: Query, name: str, targets: tuple[Space, ...]) -> list[Way]:
    return [Way(_label(name, target), query, target) for target in targets]
