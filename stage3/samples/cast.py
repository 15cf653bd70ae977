"""The people of a book: who they are and what they wear, the same on every page."""

from dataclasses import dataclass

import numpy as np

from stage3.samples import world
from stage3.samples.looks import Color

COLOR_RGB: dict[str, Color] = {
    "red": (214, 52, 48), "orange": (238, 134, 36), "yellow": (246, 206, 56), "green": (66, 160, 76),
    "blue": (52, 108, 204), "purple": (132, 70, 170), "pink": (242, 130, 172), "white": (244, 242, 236),
}  # fmt: skip
HAIR_RGB: dict[str, Color] = {
    "black": (44, 40, 50), "brown": (112, 68, 38), "blonde": (244, 208, 96), "red": (196, 82, 34),
    "gray": (188, 188, 196), "none": (120, 90, 70),
}  # fmt: skip
BODY_RGB: dict[str, Color] = {
    "light": (252, 214, 184), "tan": (232, 176, 128), "brown": (168, 112, 74), "dark": (112, 72, 52),
    "orange": (236, 148, 58), "gray": (150, 152, 164), "cream": (242, 226, 196), "green": (128, 196, 92),
    "lilac": (180, 152, 220), "steel": (158, 174, 190),
}  # fmt: skip
NAMES = (
    "Ada", "Bruno", "Cleo", "Dimitri", "Elsie", "Fitz", "Greta", "Hugo", "Ines", "Jasper", "Kiko", "Lottie", "Milo",
    "Nadia", "Otto", "Pippa", "Quill", "Rosa", "Sven", "Tilda", "Umberto", "Vera", "Wanda", "Ximena", "Yorick", "Zelda",
    "Barnaby", "Dot", "Fergus", "Ivy", "Juno", "Marlow", "Olga", "Percy", "Ruben", "Saskia",
)  # fmt: skip
_SKIN = ("light", "tan", "brown", "dark")
_BODIES = {
    "cat": ("orange", "gray", "cream"), "bear": ("brown", "tan", "gray"), "rabbit": ("cream", "gray", "light"),
    "robot": ("steel", "gray"), "alien": ("green", "lilac"), "knight": ("light", "tan", "dark"),
}  # fmt: skip
_CLOTHES = {
    "man": ("shirt", "stripes", "coat", "overalls"), "woman": ("dress", "shirt", "coat", "stripes"),
    "child": ("overalls", "shirt", "stripes", "dress"), "cat": ("shirt", "dress", "stripes", "coat"),
    "bear": ("overalls", "shirt", "coat", "stripes"), "rabbit": ("dress", "coat", "overalls", "shirt"),
    "robot": ("overalls", "shirt", "coat"), "alien": ("robe", "dress", "shirt"), "wizard": ("robe",),
    "knight": ("armour",), "pirate": ("coat", "stripes"),
}  # fmt: skip
_HATS = {
    "man": ("none", "none", "cap", "top hat"), "woman": ("none", "none", "bow"), "child": ("cap", "none", "bow"),
    "cat": ("none", "none", "bow", "top hat"), "bear": ("none", "cap"), "rabbit": ("none", "bow"),
    "robot": ("antenna",), "alien": ("antenna",), "wizard": ("pointed hat",), "knight": ("helmet",),
    "pirate": ("tricorne",),
}  # fmt: skip


@dataclass(frozen=True)
class Character:
    """One of a book's cast. Color fields hold names of `stage3.samples.world`."""

    name: str
    kind: str
    hair: str
    hat: str
    body_color: str
    clothes: str
    clothes_color: str
    style: int  # which of a kind's haircuts, beards and so on
    height: float  # 1 for a grown-up

    @property
    def fabric(self) -> Color:
        """Color of the clothes."""
        return COLOR_RGB[self.clothes_color]

    @property
    def skin(self) -> Color:
        """Color of skin, fur or metal."""
        return BODY_RGB[self.body_color]

    @property
    def locks(self) -> Color:
        """Color of the hair."""
        return HAIR_RGB[self.hair]


def choose_cast(rng: np.random.Generator, size: int = 3) -> list[Character]:
    """Draw a cast whose members differ in kind, in the color of their clothes and in name."""
    weights = np.array([1.3, 1.3, 1.1] + [1.0] * (len(world.KINDS) - 3))
    kinds = rng.choice(world.KINDS, size=size, replace=False, p=weights / weights.sum())
    colors = rng.choice(world.COLORS, size=size, replace=False)
    names = rng.choice(NAMES, size=size, replace=False)
    return [_character(rng, str(n), str(k), str(c)) for n, k, c in zip(names, kinds, colors, strict=True)]


def _character(rng: np.random.Generator, name: str, kind: str, color: str) -> Character:
    has_hair = kind in ("man", "woman", "child", "wizard", "pirate")
    hairs = ("gray", "black", "red") if kind == "wizard" else world.HAIR[:5] if kind == "man" else world.HAIR[:4]
    height = {"child": 0.78, "rabbit": 0.88, "alien": 0.92, "bear": 1.06, "knight": 1.04}.get(kind, 1.0)
    return Character(
        name=name,
        kind=kind,
        hair=str(rng.choice(hairs)) if has_hair else "none",
        hat=str(rng.choice(_HATS[kind])),
        body_color=str(rng.choice(_BODIES.get(kind, _SKIN))),
        clothes=str(rng.choice(_CLOTHES[kind])),
        clothes_color=color,
        style=int(rng.integers(4)),
        height=height * float(rng.uniform(0.96, 1.04)),
    )
