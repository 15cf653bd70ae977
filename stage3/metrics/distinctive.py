"""Words that set groups of texts apart: class-based TF-IDF (Grootendorst 2022, arXiv:2203.05794, eq. 3).

N texts, G groups, T different words. A word counts once per text, so that a panel that repeats itself does not weigh
more than one that does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Too frequent in any English text to say what it is about.
STOP_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "had", "has", "have", "he", "her"),
        *("him", "his", "i", "in", "into", "is", "it", "its", "me", "my", "of", "on", "or", "our", "she", "so", "that"),
        *("the", "their", "them", "then", "there", "these", "they", "this", "to", "us", "was", "we", "were", "with"),
        *("you", "your"),
    }
)
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]{{2}}|(?:(?![{_CJK}])[^\W\d_]){{3,}}")  # two characters where no spaces part words


@dataclass(frozen=True)
class Words:
    """How often each group says each word.

    Attributes:
        vocabulary: T words, sorted.
        says: (G, T) texts of the group that say the word.
        sizes: (G,) texts of the group, those without words too.
        score: (G, T) class-based TF-IDF; higher is more distinctive.
        of_text: N sets of word numbers: what each text says.
    """

    vocabulary: list[str]
    says: NDArray[np.int64]
    sizes: NDArray[np.int64]
    score: NDArray[np.float64]
    of_text: list[set[int]]

    def best(self, group: int, most: int, least: int = 2, share: float = 0.0, lift: float = 1.0) -> list[str]:
        """The most distinctive words of a group, best first.

        Args:
            group: its number.
            most: words at most.
            least: texts of the group that must say a word.
            share: share of the group's texts, 0 to 1, that must say a word.
            lift: how many times as large that share must be as the share of all other texts.
        """
        size, others = self.sizes[group], max(int(self.sizes.sum() - self.sizes[group]), 1)
        inside = self.says[group] / max(int(size), 1)
        outside = (self.says.sum(axis=0) - self.says[group]) / others
        telling = (self.says[group] >= max(least, share * size)) & (inside > lift * outside)
        order = np.argsort(-self.score[group], kind="stable")
        return [self.vocabulary[t] for t in order[telling[order]][:most].tolist()]


def words_of(text: str) -> list[str]:
    """The words of a text that can tell something: of three letters and more, in lower case, without stop words.

    Example:
        >>> words_of("The cat's KITCHEN, at 5 o'clock")
        ['cat', 'kitchen', 'clock']
    """
    return [w for w in _WORDS.findall(text.casefold()) if w not in STOP_WORDS]


def class_tfidf(texts: Sequence[str], groups: Sequence[int] | NDArray[np.int64]) -> Words:
    """Score every word of every group: share of the group's words × log(1 + A / f).

    f is how often all groups say the word, A how many words a group says on average. A word that all groups say as
    often scores low in each; one that a single group says scores high there.

    Args:
        texts: N texts; "" says nothing.
        groups: (N,) group of each text, from 0; a negative one belongs to none and is left out.

    Example:
        >>> found = class_tfidf(["red house", "red boat", "blue boat"], [0, 1, 1])
        >>> found.best(0, 1, least=1), found.best(1, 1, least=1)
        (['house'], ['boat'])
    """
    group = np.asarray(groups, dtype=np.int64)
    if len(group) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(group)} groups: give each text its group.")
    said = [set(words_of(text)) if g >= 0 else set() for text, g in zip(texts, group.tolist(), strict=True)]
    vocabulary = sorted(set().union(*said)) if said else []
    number = {word: i for i, word in enumerate(vocabulary)}
    of_text = [{number[word] for word in words} for words in said]
    count = int(group.max(initial=-1)) + 1
    says = np.zeros((count, len(vocabulary)), np.int64)
    for g, words in zip(group.tolist(), of_text, strict=True):
        if g >= 0:
            says[g, list(words)] += 1
    of_group = says.sum(axis=1)
    average = of_group.mean() if count else 0.0
    share = says / np.maximum(of_group, 1)[:, None]
    score = share * np.log1p(average / np.maximum(says.sum(axis=0), 1))
    return Words(vocabulary, says, np.bincount(group[group >= 0], minlength=count), score, of_text)
