"""Which panels say a word: a full-text index (SQLite's FTS5) of the dialogue and description of every panel.

Two tables of the index hold the same texts: `exact` finds words as they are typed, `stemmed` also their other forms
(Porter stems of English words). Longer words that hold a typed one come after them: recognized text often has words
that are glued together. Case, accents, full-width letters and invisible characters do not matter. In scripts
that are written without spaces (Chinese, Japanese, Thai …), and in Korean, whose words carry endings, each character is
indexed alone, so that any run of characters is found as a phrase. SQLite's own `trigram` tokenizer cannot find words of
one or two characters, which is most of such words, and its index was twice as large.

The index is a cache, made once per panel table; where it cannot be written it is made in memory.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stage3.data.table import PanelTable
from stage3.errors import DataError, StorageError
from stage3.metrics.distinctive import STOP_WORDS
from stage3.storage import clear_scratch, make_folder, replacing, sha256

VERSION = 2  # of what is written: a change to `folded` or to the tables raises it
MAX_PIECES = 32  # words and phrases of one query that are looked up
MIN_PART = 4  # characters of a word that is also found within longer ones: "ant" would find "want"
MAX_PARTED = 4  # words of a query that are found so; each one costs a look at all different words of all texts
MAX_LONGER = 100  # longer words that one word is found in, the shortest first
MAX_PARTIAL = 1000  # panels that say only some of the words, best first
_TOKENS = "unicode61 remove_diacritics 2 categories 'L* M* N* Co'"  # with M*: Indic vowel signs are parts of words
_TABLES = {"exact": _TOKENS, "stemmed": f"porter {_TOKENS}"}

_ALONE = re.compile(  # characters that are indexed one by one
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
_ACCENTS = re.compile("[\u0300-\u036f]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # SQLite ends a text at NUL and takes no lone surrogate
_QUOTES = re.compile("[\u201c-\u201f\u00ab\u00bb\u300c-\u300f\uff02]")
_PIECES = re.compile(r'"([^"]*)"|([^\s"]+)')

_making = threading.Lock()  # two sessions of the explorer would write to one scratch file


@dataclass(frozen=True)
class Piece:
    """A word or phrase to look up.

    Attributes:
        text: folded, ready to be one string of an FTS5 query.
        quoted: it must be said exactly so, without other forms.
    """

    text: str
    quoted: bool


@dataclass(frozen=True)
class Said:
    """The panels that say a query's words.

    Attributes:
        rows: (n,) int64 rows of the panel table, best first, equal ones in the order of rows.
        ranks: (n,) int64 from 1. All that say every word share rank 1, in whatever form; those that hold them within
            longer words, or say the same part of the query, share the last of their ranks.
        exact: how many of them, from the first, say all words exactly as typed.
        forms: how many come next that say all words, some of them in other forms.
        parts: how many come next that hold all words, some of them within longer ones. Where all three are 0, no panel
            holds all words, and these say some, rare words counting more.
        notes: what a reader of the result must know.
    """

    rows: np.ndarray[Any, Any]
    ranks: np.ndarray[Any, Any]
    exact: int = 0
    forms: int = 0
    parts: int = 0
    notes: tuple[str, ...] = ()

    @property
    def every(self) -> int:
        """How many panels say all the words, in whatever form."""
        return self.exact + self.forms


class WordIndex:
    """The index of one panel table. Threads may share it.

    Attributes:
        path: its file; None where it is in memory.
        has_text: (V,) bool, the panels that have a dialogue or a description.

    Example:
        >>> from stage3 import Run
        >>> index = WordIndex(Run.load("data/samples/runs/sample").data.table)
        >>> said = index.find("wizards")
        >>> said.exact, said.forms > 10
        (0, True)
    """

    def __init__(self, table: PanelTable, cache: Path | None = None) -> None:
        """Open the index of a table, or make it.

        Args:
            table: whose `dialogue` and `description` are indexed.
            cache: the cache folder (`cache_dir`); None keeps the index in memory.

        Raises:
            DataError: this Python's SQLite has no full-text search.
        """
        self._table = table
        self._lock = threading.Lock()
        self._key = f"{VERSION} {table.fingerprint()}"
        self.path = cache / "words" / f"{sha256(self._key.encode())[:24]}.sqlite" if cache is not None else None
        self.has_text: np.ndarray[Any, Any] = table.has_text("dialogue+description")
        self._connection = self._opened()

    def find(self, words: str, allowed: np.ndarray[Any, Any] | None = None) -> Said:
        """The panels that say all the words, exact ones first; where none does, those that say some of them.

        Words in double quotes must be said exactly so and in that order. Frequent words (`STOP_WORDS`) outside of
        quotes are left out; a query of nothing else is looked up as one phrase.

        Args:
            words: as typed; nothing in them is a command.
            allowed: (V,) bool, panels that may be found; None is all.
        """
        pieces, notes = parsed(words)
        if not pieces:
            return Said(_none(), _none(), notes=("the query has no letter or digit to look up", *notes))
        with self._lock:
            try:
                return self._find(pieces, allowed, notes)
            except sqlite3.DatabaseError:  # the file is damaged: make it again, once
                self._connection.close()
                if self.path is not None:
                    with suppress(OSError):
                        self.path.unlink()
                self._connection = self._opened()
                return self._find(pieces, allowed, notes)

    def _find(self, pieces: Sequence[Piece], allowed: np.ndarray[Any, Any] | None, notes: tuple[str, ...]) -> Said:
        def passing(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return rows if allowed is None else rows[allowed[rows]]

        quoted = [piece for piece in pieces if piece.quoted]
        as_quoted = self._rows("exact", quoted) if quoted else None

        def stemmed(longer: Mapping[Piece, Sequence[str]]) -> np.ndarray[Any, Any]:
            rows = self._rows("stemmed", pieces, longer)
            return passing(rows if as_quoted is None else np.intersect1d(rows, as_quoted, assume_unique=True))

        every = stemmed({})
        exact = passing(self._rows("exact", pieces)) if len(every) else _none()
        forms = np.setdiff1d(every, exact, assume_unique=True)
        longer = self._longer(pieces)
        parts = np.setdiff1d(stemmed(longer), every, assume_unique=True) if longer else _none()
        found = np.concatenate([exact, forms, parts])
        if len(found):
            ranks = np.repeat([1, len(found)], [len(every), len(parts)])
            return Said(found, ranks, len(exact), len(forms), len(parts), notes)
        return self._some(pieces, passing, notes)

    def _longer(self, pieces: Sequence[Piece]) -> dict[Piece, list[str]]:
        """For each word that may be a part of longer ones, these; nothing for queries of many words."""
        words = [p for p in pieces if not p.quoted and p.text.isalnum() and len(p.text) >= MIN_PART]
        if len(words) > MAX_PARTED:
            return {}
        query = "SELECT term FROM vocabulary WHERE instr(term, ?) AND term != ? ORDER BY length(term), term LIMIT ?"
        found = {p: [t for (t,) in self._connection.execute(query, (p.text, p.text, MAX_LONGER))] for p in words}
        return {piece: longer for piece, longer in found.items() if longer}

    def _some(self, pieces: Sequence[Piece], passing: Any, notes: tuple[str, ...]) -> Said:
        """Panels that say some of the words, by the summed rarity (inverse document frequency) of what they say."""
        weight, texts = np.zeros(len(self._table)), self.has_text.sum()
        for piece in pieces:
            rows = self._rows("exact" if piece.quoted else "stemmed", [piece])
            weight[rows] += np.log1p((texts - len(rows) + 0.5) / (len(rows) + 0.5))
        rows = passing(np.flatnonzero(weight))
        weights = weight[rows].round(9)  # the same words in another order are the same
        order = np.argsort(-weights, kind="stable")
        best = -weights[order]
        ranks = np.searchsorted(best, best, side="right")  # the last of equals: what many say tells little
        return Said(rows[order[:MAX_PARTIAL]], ranks[:MAX_PARTIAL], notes=notes)

    def _rows(
        self, table: str, pieces: Iterable[Piece], longer: Mapping[Piece, Sequence[str]] | None = None
    ) -> np.ndarray[Any, Any]:
        """(n,) int64 rows, ascending, of the panels that say all the pieces, or in a piece's place a longer word."""
        choices = [[f'"{text}"' for text in (piece.text, *(longer or {}).get(piece, ()))] for piece in pieces]
        match = " AND ".join(f"({' OR '.join(texts)})" for texts in choices)
        # One long string: a Python object per row would take four times as long.
        query = f"SELECT group_concat(rowid) FROM {table} WHERE {table} MATCH ?"
        found: str | None = self._connection.execute(query, (match,)).fetchone()[0]
        return np.sort(np.fromstring(found, np.int64, sep=",")) if found else _none()

    # --- the file

    def _opened(self) -> sqlite3.Connection:
        if self.path is None:
            return self._in_memory()
        with _making:
            there = self._existing()
            if there is not None:
                return there
            try:
                make_folder(self.path.parent)
                clear_scratch(self.path.parent)
                with replacing(self.path, durable=False) as scratch:
                    self._write_file(scratch)
            except OSError:
                pass  # read only or full: another process may have made it, or it is kept in memory
            there = self._existing()
            if there is None:
                self.path = None
            return there or self._in_memory()

    def _existing(self) -> sqlite3.Connection | None:
        """The index as it lies in the cache; None where there is none, or a damaged or foreign one."""
        assert self.path is not None
        if not self.path.is_file():
            return None
        try:
            address = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        except sqlite3.Error:
            return None
        try:
            known = connection.execute("SELECT key FROM about").fetchone() == (self._key,)
            connection.execute("SELECT term FROM vocabulary LIMIT 1").fetchone()
            for table in _TABLES:
                connection.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH 'a' LIMIT 1").fetchone()
        except sqlite3.Error:
            known = False
        if not known:
            connection.close()
        return connection if known else None

    def _in_memory(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._write(connection)
        return connection

    def _write_file(self, scratch: Path) -> None:
        try:
            with closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")  # a file that is not finished is never read
                connection.execute("PRAGMA synchronous = OFF")
                self._write(connection)
        except sqlite3.Error as error:
            raise StorageError(f"{scratch}: {error}") from error

    def _write(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        for table, tokens in _TABLES.items():
            try:
                connection.execute(
                    f"CREATE VIRTUAL TABLE {table} USING fts5(dialogue, description, content='', tokenize=\"{tokens}\")"
                )
            except sqlite3.OperationalError as error:
                if "fts5" not in str(error):
                    raise
                raise DataError("the SQLite of this Python has no full-text search (FTS5)") from None
            rows = self._folded_rows()
            connection.executemany(f"INSERT INTO {table} (rowid, dialogue, description) VALUES (?, ?, ?)", rows)
            connection.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, exact, row)")
        connection.execute("CREATE TABLE vocabulary AS SELECT term FROM temp.terms")
        connection.execute("DROP TABLE temp.terms")
        connection.execute("CREATE TABLE about (key TEXT)")
        connection.execute("INSERT INTO about VALUES (?)", (self._key,))
        connection.execute("COMMIT")

    def _folded_rows(self) -> Iterator[tuple[int, str, str]]:
        for rows in self._table.parts():
            columns = (self._table.panels[name].iloc[rows].tolist() for name in ("dialogue", "description"))
            for row, dialogue, description in zip(rows.tolist(), *columns, strict=True):
                if dialogue or description:
                    yield row, folded(dialogue), folded(description)


def _none() -> np.ndarray[Any, Any]:
    return np.zeros(0, np.int64)


def folded(text: str) -> str:
    r"""A text as it is indexed and looked up: no accents, case or invisible characters, some scripts spaced out.

    >>> folded("Ｃafé pump\xadkin 南瓜だ")
    'cafe pumpkin  南  瓜  だ '
    """
    text = text.casefold()
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", _INVISIBLE.sub("", text)))
        text = _ALONE.sub(r" \g<0> ", unicodedata.normalize("NFC", text))
    return _REFUSED.sub(" ", text)


def parsed(words: str) -> tuple[list[Piece], tuple[str, ...]]:
    """The pieces of a query that are looked up, and notes on what is not.

    >>> [piece.text for piece in parsed('the Pumpkins of "the king" pumpkins')[0]]
    ['pumpkins', 'the king']
    """
    pieces: dict[str, Piece] = {}
    for phrase, word in _PIECES.findall(_QUOTES.sub('"', words)):
        text = " ".join(folded(phrase or word).replace('"', " ").split())
        if any(c.isalnum() for c in text):
            quoted = bool(phrase) or (text in pieces and pieces[text].quoted)
            pieces[text] = Piece(text, quoted)
    telling = [piece for piece in pieces.values() if piece.quoted or piece.text not in STOP_WORDS]
    notes = []
    if pieces and not telling:
        telling = [Piece(" ".join(folded(words.replace('"', " ")).split()), quoted=True)]
        notes.append("the query has only very frequent words, which are looked up as one phrase")
    if len(telling) > MAX_PIECES:
        notes.append(f"only the first {MAX_PIECES} words are looked up")
    return telling[:MAX_PIECES], tuple(notes)
