"""Names of clusters, from their own words and facts: no model, no network. N panels, C clusters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from stage3.metrics.distinctive import Words, class_tfidf
from stage3.selection import CATEGORIES

if TYPE_CHECKING:
    import pandas as pd

MOST = 3  # parts of a name
MOST_FACTS = 2
NEARLY_ALL = 0.75  # share of a cluster's panels for which a fact must hold
SELDOM = 0.5  # a fact must be less frequent elsewhere than this part of its share in the cluster
LIFT = 1.5  # how many times as often the cluster must say a word as the rest
SAID_BY = 0.15  # share of a cluster's panels that must say a word


def cluster_names(frame: pd.DataFrame, cluster: np.ndarray) -> list[str]:
    """A name for each cluster: what holds for nearly all its panels and seldom elsewhere, then its distinctive words.

    Args:
        frame: one row per panel, with `text` and any of `stage3.selection.CATEGORIES`; `has_text` says which have one.
        cluster: (N,) number of each panel's cluster; negative ones belong to none.

    Returns:
        C names, all different; a cluster without facts and words is called "cluster" and its number.

    Example:
        >>> import pandas as pd
        >>> pages = pd.DataFrame({"text": ["red house", "red house", "", ""], "n_panels": [2, 2, 9, 9]})
        >>> cluster_names(pages, np.array([0, 0, 1, 1]))
        ['2-panel pages · house · red', '9-panel pages · textless']
    """
    label = np.asarray(cluster, dtype=np.int64)
    count = int(label.max(initial=-1)) + 1
    words = class_tfidf([str(text) for text in frame["text"]], label)
    facts = [_facts(frame, label == c) for c in range(count)]
    return _different([_name(c, facts[c], words) for c in range(count)])


def named(frame: pd.DataFrame, cluster: np.ndarray) -> list[str]:
    """(N,) the name of each panel's cluster, "" for panels in none; arguments as of `cluster_names`."""
    names = cluster_names(frame, cluster)
    return [names[c] if c >= 0 else "" for c in cluster.tolist()]


def _name(number: int, facts: list[str], words: Words) -> str:
    said = words.best(number, MOST - min(len(facts), MOST_FACTS), share=SAID_BY, lift=LIFT)
    return " · ".join([*facts[:MOST_FACTS], *said]) or f"cluster {number}"


def _facts(frame: pd.DataFrame, inside: np.ndarray) -> list[str]:
    """What holds for nearly all panels of a cluster and seldom elsewhere, the most telling first."""
    found: list[tuple[float, str]] = []
    for column in CATEGORIES:
        if column in frame and column not in ("modality", "split"):
            values = frame[column].to_numpy()
            value, times = Counter(values[inside].tolist()).most_common(1)[0]
            found += _telling(times / inside.sum(), values[~inside] == value, _phrase(column, value))
    textless = ~frame["has_text"].to_numpy() if "has_text" in frame else (frame["text"] == "").to_numpy()
    found += _telling(textless[inside].mean(), textless[~inside], "textless")
    return [phrase for _, phrase in sorted(found, key=lambda pair: -pair[0])]


def _telling(share: float, elsewhere: np.ndarray, phrase: str) -> list[tuple[float, str]]:
    outside = float(elsewhere.mean()) if len(elsewhere) else 1.0
    return [(share - outside, phrase)] if phrase and share >= NEARLY_ALL and outside < SELDOM * share else []


def _phrase(column: str, value: object) -> str:
    if column == "n_panels":
        return f"{value}-panel pages"
    if column == "page_type":
        return f"{value} pages" if value else ""
    return str(value)


def _different(names: list[str]) -> list[str]:
    """The same names, with a number behind those that repeat an earlier one."""
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told
