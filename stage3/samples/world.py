"""What sample comics are made of: every categorical fact, and the words that name it.

Each vocabulary is a tuple, so its order is fixed and a position in it can serve as a class number. `WORDS` maps a
field and a value to the words that name the value in a text; `named_in` tells whether a text does so.
"""

import re

SETTINGS = (
    "city", "forest", "castle", "beach", "desert", "space", "underwater", "bedroom", "kitchen", "mountains",
)  # fmt: skip
TIMES = ("day", "dusk", "night")
SHOTS = ("close-up", "medium", "long")
EMOTIONS = ("happy", "sad", "angry", "scared", "surprised", "calm")
ACTIONS = ("stand", "run", "jump", "sit", "point", "sleep", "punch", "cheer")
CLOSE_UP_ACTIONS = ("stand", "point", "punch", "cheer")  # the ones that show when only the upper body does
PROPS = (
    "sword", "lamp", "ball", "book", "fish", "rocket", "umbrella", "car", "chest", "guitar", "clock", "cake",
)  # fmt: skip
HAND_PROPS = ("sword", "lamp", "ball", "book", "fish", "umbrella", "guitar", "cake")
KINDS = (
    "man", "woman", "child", "cat", "bear", "rabbit", "robot", "alien", "wizard", "knight", "pirate",
)  # fmt: skip
CLOTHES = ("shirt", "stripes", "dress", "coat", "overalls", "robe", "armour")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
HAIR = ("black", "brown", "blonde", "red", "gray", "none")
HATS = ("none", "cap", "top hat", "bow", "pointed hat", "helmet", "tricorne", "antenna")
BODY_COLORS = ("light", "tan", "brown", "dark", "orange", "gray", "cream", "green", "lilac", "steel")
LAYOUTS = (
    "splash", "inset", "two-tiers", "two-columns", "three-tiers", "tall-left", "tall-right", "one-two",
    "two-one", "grid-2x2", "one-two-two", "two-one-two", "two-three", "three-two", "grid-2x3", "grid-3x3",
)  # fmt: skip
PAGE_TYPES = ("cover", "advertisement", "story")

PLACES: dict[str, tuple[str, ...]] = {
    "city": ("in the city", "on a downtown street", "among the skyscrapers", "in the middle of the city"),
    "forest": ("in the forest", "deep in the woods", "among tall trees", "on a forest path"),
    "castle": ("by the castle", "in front of an old fortress", "below the castle towers", "at the fortress gate"),
    "beach": ("on the beach", "at the seaside", "on a sandy shore", "under the palms of the beach"),
    "desert": ("in the desert", "among the dunes", "in a cactus desert", "between endless dunes"),
    "space": ("in outer space", "on a lonely asteroid", "out among the stars in space", "on an asteroid"),
    "underwater": ("underwater", "on the sea floor", "at the bottom of the sea", "underwater among the coral"),
    "bedroom": ("in the bedroom", "in a bedroom", "beside the bed", "at home in the bedroom"),
    "kitchen": ("in the kitchen", "by the stove", "in a tidy kitchen", "beside the kitchen stove"),
    "mountains": ("in the mountains", "below snowy peaks", "high in the mountains", "under the mountain peaks"),
}
WHEN: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in bright daylight", "on a sunny day", "at noon"),
    "dusk": ("at dusk", "at sunset", "in the glow of the sunset", "as dusk falls"),
    "night": ("at night", "after dark", "by moonlight", "in the dark of the night"),
}
DOING = {  # (he or she ..., -ing)
    "stand": (("stands", "standing"), ("waits", "waiting"), ("stands still", "standing still")),
    "run": (("runs", "running"), ("sprints", "sprinting"), ("races", "racing"), ("dashes", "dashing")),
    "jump": (("jumps", "jumping"), ("leaps", "leaping"), ("hops high", "hopping high")),
    "sit": (("sits", "sitting"), ("sits down", "sitting down"), ("is seated", "resting on a seat")),
    "point": (("points", "pointing"), ("points ahead", "pointing ahead"), ("points a finger", "pointing a finger")),
    "sleep": (("sleeps", "sleeping"), ("snores", "snoring"), ("lies asleep", "lying asleep")),
    "punch": (("punches", "punching"), ("throws a punch", "throwing a punch"), ("swings a fist", "swinging a fist")),
    "cheer": (("cheers", "cheering"), ("celebrates", "celebrating"), ("throws both arms up", "throwing both arms up")),
}
LOOKING: dict[str, tuple[str, ...]] = {
    "happy": ("happy", "cheerful", "delighted", "smiling"),
    "sad": ("sad", "unhappy", "tearful", "gloomy"),
    "angry": ("angry", "furious", "cross", "enraged"),
    "scared": ("scared", "frightened", "terrified", "afraid"),
    "surprised": ("surprised", "astonished", "amazed", "startled"),
    "calm": ("calm", "relaxed", "composed", "quiet"),
}
BEINGS: dict[str, tuple[str, ...]] = {
    "man": ("man", "fellow", "gentleman"),
    "woman": ("woman", "lady"),
    "child": ("child", "kid", "youngster"),
    "cat": ("cat", "tomcat", "feline"),
    "bear": ("bear", "big bear"),
    "rabbit": ("rabbit", "bunny", "hare"),
    "robot": ("robot", "android", "machine"),
    "alien": ("alien", "extraterrestrial", "space creature"),
    "wizard": ("wizard", "sorcerer", "magician"),
    "knight": ("knight", "armoured warrior"),
    "pirate": ("pirate", "buccaneer", "sea captain"),
}
THINGS: dict[str, tuple[str, ...]] = {
    "sword": ("sword", "blade"),
    "lamp": ("lamp", "lantern"),
    "ball": ("ball", "beach ball"),
    "book": ("book", "old volume"),
    "fish": ("fish", "goldfish"),
    "rocket": ("rocket", "rocket ship"),
    "umbrella": ("umbrella", "parasol"),
    "car": ("car", "automobile"),
    "chest": ("treasure chest", "chest of gold"),
    "guitar": ("guitar", "six-string guitar"),
    "clock": ("clock", "alarm clock"),
    "cake": ("cake", "birthday cake"),
}
GARMENTS: dict[str, tuple[str, ...]] = {
    "shirt": ("shirt", "T-shirt"),
    "stripes": ("striped jersey", "striped top"),
    "dress": ("dress", "frock"),
    "coat": ("coat", "long coat"),
    "overalls": ("overalls", "dungarees"),
    "robe": ("robe", "flowing robe"),
    "armour": ("tabard", "tabard over armour"),
}
TINTS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose-pink"),
    "white": ("white", "ivory"),
}
TRESSES: dict[str, tuple[str, ...]] = {
    "black": ("black-haired", "dark-haired"),
    "brown": ("brown-haired", "chestnut-haired"),
    "blonde": ("blonde", "fair-haired"),
    "red": ("red-haired", "ginger"),
    "gray": ("gray-haired", "silver-haired"),
}
FRAMINGS: dict[str, tuple[str, ...]] = {
    "close-up": ("Close-up", "A tight close-up"),
    "medium": ("Medium shot", "A medium view"),
    "long": ("Long shot", "A wide view"),
}

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "setting": {
        "city": ("city", "downtown", "skyscrapers"),
        "forest": ("forest", "woods", "trees"),
        "castle": ("castle", "fortress"),
        "beach": ("beach", "seaside", "shore"),
        "desert": ("desert", "dunes"),
        "space": ("space", "asteroid"),
        "underwater": ("underwater", "sea floor", "bottom of the sea"),
        "bedroom": ("bedroom", "the bed"),
        "kitchen": ("kitchen", "stove"),
        "mountains": ("mountains", "mountain", "peaks"),
    },
    "time": {
        "day": ("day", "daylight", "noon", "sunny", "sunlit"),
        "dusk": ("dusk", "sunset", "twilight"),
        "night": ("night", "dark", "moonlight", "moonlit"),
    },
    "shot": {"close-up": ("close-up",), "medium": ("medium",), "long": ("long shot", "wide view")},
    "emotion": LOOKING,
    "action": {key: tuple(word for pair in pairs for word in pair) for key, pairs in DOING.items()},
    "prop": THINGS,
    "kind": BEINGS,
    "clothes": GARMENTS,
    "clothes_color": TINTS,
    "hair": TRESSES,
}
"""The words that name a value: `WORDS[field][value]`."""


def named_in(field: str, value: str, text: str) -> bool:
    """Whether `text` names the fact `field` = `value` by one of its words.

    >>> named_in("prop", "lamp", "Mind the lantern!")
    True
    """
    options = (value,) if field == "name" else WORDS[field][value]
    words = "|".join(re.escape(word) for word in options)
    return re.search(rf"(?<![\w-])(?:{words})(?![\w-])", text, re.IGNORECASE) is not None
