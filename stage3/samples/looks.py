"""How a book looks: palette, ink, gutters, borders, shading; and how light changes a color through the day."""

from colorsys import hsv_to_rgb, rgb_to_hsv
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

PALETTES: dict[str, tuple[float, float, Color, float]] = {  # saturation, value, wash color, share of the wash
    "pop": (1.12, 1.03, (255, 240, 210), 0.00),
    "newsprint": (0.85, 0.97, (240, 214, 170), 0.16),
    "pastel": (0.66, 1.08, (255, 246, 250), 0.14),
    "teal": (0.92, 0.97, (120, 190, 190), 0.13),
    "storm": (0.62, 0.92, (120, 130, 160), 0.12),
    "candy": (1.05, 1.06, (255, 190, 220), 0.10),
    "autumn": (0.95, 0.96, (230, 170, 90), 0.16),
    "classic": (1.0, 1.0, (250, 235, 200), 0.06),
}
INKS: tuple[Color, ...] = ((22, 20, 26), (24, 20, 26), (20, 26, 54), (52, 30, 22), (38, 18, 44))
PAPERS: tuple[Color, ...] = (
    (255, 255, 255), (252, 247, 232), (245, 236, 214), (238, 243, 248), (22, 22, 28), (44, 40, 62), (250, 232, 224),
)  # fmt: skip
LIGHT: dict[str, tuple[float, float, float]] = {  # what a surface keeps of red, green and blue
    "day": (1.0, 1.0, 1.0),
    "dusk": (0.98, 0.72, 0.66),
    "night": (0.42, 0.50, 0.76),
}
FIGURE_LIGHT = 0.32  # how much of that light figures take: less than the scenery, so that they stand out


@dataclass(frozen=True)
class Look:
    """What all pages of one book share. Lengths are in page pixels (a page is 400 by 600)."""

    palette: str
    ink: Color
    paper: Color
    line: float  # width of an outline
    border: float  # width of a panel's frame, 0 for none
    gutter: float
    margin: float
    corner: float  # radius of a panel's corners
    slant: float  # how far a gutter may lean
    contour: str  # "full": every part of a figure is outlined; "outer": only its silhouette, and small figures always
    shading: str  # "cel", "dots", "hatch" or "flat"
    balloon: str  # "oval", "round" or "box"
    eyes: str  # "dot", "oval" or "white"
    caption: Color
    masthead: str

    def color(self, rgb: Color) -> Color:
        """A color as this book prints it."""
        saturation, value, wash, share = PALETTES[self.palette]
        hue, s, v = rgb_to_hsv(*(channel / 255 for channel in rgb))
        r, g, b = hsv_to_rgb(hue, min(s * saturation, 1.0), min(v * value, 1.0))
        return mix((round(r * 255), round(g * 255), round(b * 255)), wash, share)


def mix(a: Color, b: Color, share: float) -> Color:
    """`a` with `share` of `b` in it."""
    r, g, b_ = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return (r, g, b_)


def darker(color: Color, by: float = 0.28) -> Color:
    """The shadow side of a color: darker and a little colder."""
    return mix(color, (26, 18, 60), by)


def lighter(color: Color, by: float = 0.3) -> Color:
    """The lit side of a color."""
    return mix(color, (255, 250, 235), by)


def lit(color: Color, time: str, amount: float = 1.0) -> Color:
    """A color under the light of a time of day; `amount` below 1 keeps figures readable at night."""
    r, g, b = (round(channel * keep) for channel, keep in zip(color, LIGHT[time], strict=True))
    return mix(color, (r, g, b), amount)


def choose_look(rng: np.random.Generator) -> Look:
    """Draw the look of a book."""
    dark_paper = rng.random() < 0.2
    paper = PAPERS[int(rng.integers(4, 6))] if dark_paper else PAPERS[int(rng.choice([0, 0, 1, 2, 3, 6]))]
    gutter = float(rng.uniform(6, 13))
    return Look(
        palette=str(rng.choice(list(PALETTES))),
        ink=INKS[int(rng.integers(len(INKS)))],
        paper=paper,
        line=float(rng.uniform(1.0, 1.9)),
        border=float(rng.choice([0.0, 1.2, 1.8, 2.6])) if not dark_paper else float(rng.choice([0.0, 1.2])),
        gutter=gutter,
        margin=float(rng.uniform(12, 22)),
        corner=float(rng.choice([0, 0, 0, 6, 10])),
        slant=float(rng.choice([0, 0, 0, 7])),
        contour=str(rng.choice(["full", "outer", "outer"])),
        shading=str(rng.choice(["cel", "dots", "hatch", "flat"])),
        balloon=str(rng.choice(["oval", "oval", "round", "box"])),
        eyes=str(rng.choice(["dot", "oval", "white", "white"])),
        caption=((255, 236, 150), (255, 255, 255), (206, 230, 250), (250, 214, 190))[int(rng.integers(4))],
        masthead=str(rng.choice(["banner", "arc", "shadow", "badge"])),
    )
