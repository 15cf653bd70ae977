"""What metrics, directions and losses are called on screen: every view, part and chart reads them here."""

from __future__ import annotations

from stage3.objectives import OBJECTIVES, PAIRS

WAYS = {"i2t": "image → text", "t2i": "text → image"}
RANKS = {"rank_i2t": "Rank i → t", "rank_t2i": "Rank t → i"}  # in narrow tables
RANK_HELP = "Rank of the true match, 1 is best; i: image, t: text"
PANEL_LOSSES = {f"loss_{objective.name}": objective.label for objective in OBJECTIVES} | {"loss_total": "Weighted sum"}
PAIR_NAMES = {f"{a.name}_{b.name}": f"{a.label.lower()} · {b.label.lower()}" for a, b in PAIRS}
BOTH = "both ways"
_SHORT = {"mrr": "MRR", "median_rank": "Median rank"}
_NAMES = {
    "loss/total": "Total loss",
    **{f"loss/{o.name}": o.label for o in OBJECTIVES},
    **{f"loss/{half.name}": f"{o.label}, {half.label.lower()}" for o in OBJECTIVES for half in o.halves},
    "reconstruction/skill": "R² of reconstruction",
    "retrieval/same_page_r_precision": "Same-page precision",
    **{f"retrieval/within_page_{way}": f"Within page, {name}" for way, name in WAYS.items()},
}


def metric_name(name: str) -> str:
    """A metric of a run's validation, for people.

    >>> metric_name("retrieval/i2t_r5"), metric_name("retrieval/mean_mrr"), metric_name("collapse/effective_rank")
    ('R@5 image → text', 'MRR, both ways', 'Effective rank')
    >>> metric_name("loss/alignment_t2i")
    'Alignment, text → image'
    """
    if name in _NAMES:
        return _NAMES[name]
    kind, _, rest = name.partition("/")
    way, _, what = rest.partition("_")
    if kind == "retrieval" and way in (*WAYS, "mean"):
        short = _SHORT.get(what, what.replace("r", "R@", 1))
        return f"{short} {WAYS[way]}" if way in WAYS else f"{short}, {BOTH}"
    return (rest or name).replace("_", " ").capitalize()
