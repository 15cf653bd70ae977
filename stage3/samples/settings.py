"""Ten settings drawn in layers from far to near: sky, distance, middle ground, floor.

A place is drawn from its own seed, so that panels of one scene show the same place from other points of view.
"""

from collections.abc import Callable

import numpy as np

from stage3.samples.indoors import bedroom, kitchen
from stage3.samples.ink import Canvas, Point
from stage3.samples.outdoors import beach, castle, city, desert, forest, mountains, space, underwater
from stage3.samples.views import View


def draw_setting(
    c: Canvas, setting: str, size: Point, seed: int, pan: float = 0.0, zoom: float = 1.0, horizon: float = 0.6
) -> None:
    """Fill a panel with a setting, under the canvas's time of day."""
    v = View(c, size[0], size[1], size[1] * horizon, pan, zoom, np.random.default_rng([seed, 77]))
    _SETTINGS[setting](v)


_SETTINGS: dict[str, Callable[[View], None]] = {
    "city": city, "forest": forest, "castle": castle, "beach": beach, "desert": desert, "space": space,
    "underwater": underwater, "bedroom": bedroom, "kitchen": kitchen, "mountains": mountains,
}  # fmt: skip
