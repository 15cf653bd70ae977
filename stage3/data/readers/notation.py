"""In which notation a source writes its boxes, told once from how far the boxes of many pages reach.

The format's own notation holds unless the boxes contradict it. Read rightly, the boxes of a source begin as far from
the left as they end from the right, on the whole, and likewise above and below; they have an area and stay on the page.
Where a model saw resized images, how far they reach also tells the size it saw. Whether x and y are exchanged shows in
pixels by the shape of the page, and else by the order of the panels: rows are read one after the other, so on the way
from one panel to the next x often goes back and y hardly ever.

P pages, B boxes on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stage3.data.readers.reach import Reach, Sample
from stage3.data.readers.resized import resized
from stage3.data.readers.units import AUTO, FIXED, PIXELS, RESIZED, SCALES, Notation, transposed

CLEAN, UNEVEN = 0.04, 0.06  # cost and unevenness up to which a notation needs no second look
GOOD, ADVANTAGE = 0.06, 0.05  # cost that another notation may have at most, and by how much it must be lower
FEW_PAGES, FEW_BOXES = 3, 6  # with fewer the format's own notation stays
DOUBTFUL, DOUBTFUL_PAGES = 0.15, 5  # cost from which on that is said to be doubtful, on so many pages
SQUARES = (1024, 896, 768, 672, 640, 512, 448, 384, 336, 224)  # fixed sizes at which models see any image
SEVERAL = 1.5  # boxes per page: single ones may end anywhere, and fit a resized image by chance
EDGES, EVEN = 0.1, 0.03  # share of page sides that boxes touch to the pixel in one of these, or else its score
SIZED = {"xywh": "xyxy", "yxhw": "yxyx"}  # corner and size, and the corners alike
SLICES, SOME_SLICES = 1.0, 0.3  # how much slimmer panels are where x and y are exchanged; less where the unit was too
TURNED_PAGES, TURNED_TIMES = 6, 3  # pages read along the wrong axis: so many, and for each along the right one more
OUT_OF_ORDER = 0.85  # share of boxes with corners in order under which they are no corners
IN_ORDER, OVERLAP = 0.98, 0.05  # and from which on sizes are corners, if as sizes they lie upon each other so much more


@dataclass(frozen=True)
class Decision:
    """The notation of one field of a source, and why.

    Attributes:
        notation: in which its boxes are read.
        why: "format" (its own), "setting", "reach", "order of panels" or "shape of panels".
        reach: how far the boxes reach in it; None without boxes.
        instead: the notation that the boxes contradict, and how far they would reach in it.
        doubtful: no notation explains the boxes.
        turned: pages on which the panels are listed along the other axis, and along this one, before x and y were
            exchanged for that.
    """

    notation: Notation
    why: str
    reach: Reach | None = None
    instead: tuple[Notation, Reach] | None = None
    doubtful: bool = False
    turned: tuple[int, int] | None = None


@dataclass
class Survey:
    """The boxes of some pages of a source, by the field that they stand in.

    Example:
        >>> survey = Survey()
        >>> boxes = [[0, 0, 322, 490], [322, 0, 644, 490], [0, 490, 644, 980]]
        >>> for _ in range(4):
        ...     survey.add("box_2d", Notation("yxyx", "permille"), boxes, image_size=lambda: (1200, 1800))
        >>> found = survey.decide("box_2d").notation
        >>> found.order, found.unit.partition(":")[0], found.scale((1200, 1800)).tolist()
        ('xyxy', 'smart_resize', [644.0, 980.0])
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    declared: dict[str, Notation] = field(default_factory=dict)

    def add(
        self,
        name: str,
        declared: Notation,
        boxes: Sequence[Any],
        *,
        image_size: Callable[[], tuple[int, int]],
        size: tuple[int, int] = (0, 0),
        ordered: bool = True,
    ) -> None:
        """The boxes of a page.

        Args:
            name: the field.
            declared: the format's own notation of it.
            boxes: four finite numbers each.
            image_size: width and height of the page's image in pixels, (0, 0) when unknown; asked for when needed.
            size: width and height that the file gives, (0, 0) when it does not.
            ordered: the panels come in reading order.
        """
        self.declared.setdefault(name, declared)
        self.samples.setdefault(name, Sample()).add(boxes, size, image_size, ordered)

    def decide(self, name: str, order: str = AUTO, unit: str = AUTO) -> Decision:
        """The notation of a field; `order` and `unit` are the settings, which override all evidence."""
        sample, declared = self.samples[name], self.declared[name]
        start = Notation(declared.order if order == AUTO else order, declared.unit if unit == AUTO else unit)
        why = "format" if order == unit == AUTO else "setting"
        first = Decision(start, why, sample.reach(start))
        if (order != AUTO and unit not in (AUTO, RESIZED)) or sample.pages < FEW_PAGES or sample.boxes < FEW_BOXES:
            return first
        orders = [order] if order != AUTO else _orders(sample, start.order)
        fine = first.reach is not None and first.reach.cost <= CLEAN and first.reach.uneven <= UNEVEN
        found = first if fine and unit != RESIZED and start.order in orders else _by_reach(sample, first, orders, unit)
        return _by_reading_order(sample, found) if order == AUTO else found


def _orders(sample: Sample, own: str) -> list[str]:
    """The orders that the numbers allow: the format's own first, then with x and y exchanged, then the other kind.

    Corners that are in order have an area as sizes too, but then the boxes of a page lie upon each other.
    """
    if own not in SIZED:
        sized = ["xywh", "yxhw"]
        return sized if sample.in_order(own) < OUT_OF_ORDER else [own, transposed(own)]
    cornered = SIZED[own]
    if sample.in_order(cornered) < IN_ORDER:
        return [own, transposed(own)]
    cornered_too = [cornered, transposed(cornered)]
    overlap = sample.overlap(own) - sample.overlap(cornered)
    return cornered_too if overlap >= OVERLAP else [own, transposed(own), *cornered_too]


def _by_reach(sample: Sample, first: Decision, orders: Sequence[str], unit: str) -> Decision:
    """The notation in which the boxes fill their pages best, where that is clearly another one."""
    sample.measure()
    first = replace(first, reach=sample.reach(first.notation))
    orders = [order for order in orders if not _turned(sample, order)] or orders
    found = [(n, reach) for n in _candidates(sample, orders, unit) if (reach := sample.reach(n)) is not None]
    good = [(n, reach) for n, reach in found if reach.cost <= GOOD]
    if not good:
        return _doubted(sample, first)
    least = min(reach.score for _, reach in good)
    chosen, reach = next((n, r) for n, r in good if r.score <= least + 0.005)  # the first of equals
    was = first.reach
    if unit == RESIZED or was is None:
        return Decision(chosen, "reach", reach)
    if chosen == first.notation or (first.notation.order in orders and reach.score > was.score - ADVANTAGE):
        return _doubted(sample, first)
    return Decision(chosen, "reach", reach, (first.notation, was))


def _doubted(sample: Sample, first: Decision) -> Decision:
    doubtful = first.reach is not None and first.reach.cost > DOUBTFUL and sample.pages >= DOUBTFUL_PAGES
    return replace(first, doubtful=doubtful)


def _candidates(sample: Sample, orders: Sequence[str], unit: str) -> Iterator[Notation]:
    """Notations to compare, those to prefer among equals first."""
    if unit not in (AUTO, RESIZED):
        yield from (Notation(order, unit) for order in orders)
        return
    if unit == AUTO:
        yield from (Notation(order, scale) for order in orders for scale in SCALES)
        yield from (Notation(order, PIXELS) for order in orders)
    if unit == RESIZED or sample.boxes >= SEVERAL * sample.pages:
        for order in orders:
            yield from resized(sample, order, only=unit)
    for order in orders if unit == AUTO else ():
        for side in SQUARES:
            square = Notation(order, f"{FIXED}:{side}x{side}")
            reach = sample.reach(square)
            if reach is not None and (reach.edges >= EDGES or reach.score <= EVEN):
                yield square


def _by_reading_order(sample: Sample, found: Decision) -> Decision:
    """Exchange x and y, where the panels are read along the wrong axis on many pages, or are all thin slices."""
    turned = Notation(transposed(found.notation.order), found.notation.unit)
    backwards, forwards = sample.read_along(found.notation.order)
    along = _turned(sample, found.notation.order, TURNED_PAGES)
    if along:
        sample.measure()
    reach = sample.reach(turned)
    if reach is None or found.reach is None or reach.cost > found.reach.cost + CLEAN:
        return found
    slimmer = sample.lopsided(found.notation) - sample.lopsided(turned)
    # Columns that are read one after the other go back in y as well, but their panels are no thin slices.
    known = sample.common_size() is not None
    sliced = known and backwards >= forwards and slimmer > (SLICES if found.why == "format" else SOME_SLICES)
    if not sliced and not (along and slimmer > 0):
        return found
    why = "order of panels" if along else "shape of panels"
    seen = (backwards, forwards) if along else None
    return Decision(turned, why, reach, found.instead or (found.notation, found.reach), turned=seen)


def _turned(sample: Sample, order: str, pages: int = FEW_PAGES) -> bool:
    """Whether the panels are read along the wrong axis on so many pages, and more."""
    backwards, forwards = sample.read_along(order)
    return backwards >= pages + TURNED_TIMES * forwards


def facts(decision: Decision, sample: Sample, listed: int) -> dict[str, Any]:
    """What the data report keeps of a decision; `listed` pages were there to look at."""
    known: dict[str, Any] = {"order": decision.notation.order, "unit": decision.notation.unit, "why": decision.why}
    known |= {"pages": sample.pages, "of": listed, "sizes": sample.measured, "doubtful": decision.doubtful}
    if decision.reach is not None:
        known |= decision.reach.to_dict()
    if decision.instead is not None:
        notation, reach = decision.instead
        known["instead_of"] = {"order": notation.order, "unit": notation.unit, **reach.to_dict()}
    if decision.turned is not None:
        known["turned"] = list(decision.turned)
    if decision.notation.needs_size and decision.notation.unit != PIXELS and (size := sample.common_size()):
        seen = [round(v) for v in decision.notation.scale(size).tolist()]
        known["example"] = {"page": [round(v) for v in size], "seen": seen}
    return known


def notation_of(known: dict[str, Any]) -> Notation:
    """The notation that `facts` keeps."""
    return Notation(known["order"], known["unit"])
