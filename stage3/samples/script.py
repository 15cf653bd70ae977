"""What happens on a page, and the words for it: facts first, then descriptions and lettering that name some of them."""

from dataclasses import dataclass, field

import numpy as np

from stage3.samples import world
from stage3.samples.cast import Character
from stage3.samples.lines import CAPTIONS, DIALOGUE, SOUNDS, THOUGHTS

Rng = np.random.Generator


@dataclass
class Actor:
    """A character in a panel: what it does, feels and holds."""

    who: Character
    action: str
    emotion: str
    holds: str | None = None


@dataclass
class Utterance:
    """Words on a panel. `label` is "dialogue", "thought", "caption" or "sound"."""

    label: str
    text: str
    speaker: int | None = None  # index into the panel's actors


@dataclass
class PanelScript:
    """Everything about a panel before it is drawn."""

    setting: str
    time: str
    shot: str
    place: int  # seed of the place; panels of one scene share it
    actors: list[Actor]
    props: list[str]
    description: str = ""
    words: list[Utterance] = field(default_factory=list)
    textless: bool = False

    @property
    def emotion(self) -> str:
        """Emotion of the main character; "calm" where nobody is."""
        return self.actors[0].emotion if self.actors else "calm"

    def values(self) -> dict[str, str]:
        """Every fact of the panel that a text could name."""
        facts = {"setting": self.setting, "time": self.time, "shot": self.shot}
        facts |= {f"prop.{k}": prop for k, prop in enumerate(self.props)}
        for k, actor in enumerate(self.actors):
            who = actor.who
            facts |= {
                f"name.{k}": who.name,
                f"kind.{k}": who.kind,
                f"action.{k}": actor.action,
                f"emotion.{k}": actor.emotion,
                f"clothes.{k}": who.clothes,
                f"clothes_color.{k}": who.clothes_color,
            }
            if who.hair != "none":
                facts[f"hair.{k}"] = who.hair
        return facts

    def named(self) -> list[str]:
        """Fields of `values` that the panel's words name."""
        text = " ".join([self.description, *(u.text for u in self.words)])
        return [key for key, value in self.values().items() if world.named_in(vocabulary_of(key), value, text)]


def vocabulary_of(key: str) -> str:
    """The vocabulary behind a fact's key, such as "prop" for "prop.0"."""
    return key.split(".")[0]


def pick(rng: Rng, options: tuple[str, ...] | list[str]) -> str:
    """One of the options."""
    return str(options[int(rng.integers(len(options)))])


@dataclass(frozen=True)
class Story:
    """What a book keeps returning to."""

    cast: list[Character]
    settings: list[str]
    treasure: str  # the prop that everybody wants
    title: str


@dataclass(frozen=True)
class Scene:
    """Where and when, for the panels of a scene."""

    setting: str
    time: str
    place: int


def choose_scene(rng: Rng, story: Story) -> Scene:
    """Draw a scene, most often in one of the book's settings."""
    setting = pick(rng, story.settings) if rng.random() < 0.7 else pick(rng, world.SETTINGS)
    return Scene(setting, pick(rng, world.TIMES), int(rng.integers(1 << 30)))


def write_panel(
    rng: Rng, story: Story, scene: Scene, size: tuple[float, float], letters: int, textless: bool
) -> PanelScript:
    """Draw the facts of a panel of `size` page pixels with room for so many letters, then its words."""
    w, h = size
    shot = _shot(rng, w, h)
    panel = PanelScript(scene.setting, scene.time, shot, scene.place, [], [], textless=textless)
    empty = shot == "long" and rng.random() < 0.1
    n = 0 if empty else 1 + int(w > 100 and rng.random() < (0.2 if shot == "close-up" else 0.36))
    n += int(n == 2 and shot == "long" and w > 170 and rng.random() < 0.25)
    if shot == "close-up" and w < 150:
        n = min(n, 1)
    for k in rng.permutation(len(story.cast))[:n]:
        panel.actors.append(_actor(rng, story.cast[int(k)], shot))
    if rng.random() < (0.6 if panel.actors else 0.8):
        prop = story.treasure if rng.random() < 0.3 else pick(rng, world.PROPS)
        panel.props.append(prop)
        hands = [a for a in panel.actors if a.action not in ("sleep", "point", "punch")]
        if hands and prop in world.HAND_PROPS and shot != "close-up" and rng.random() < 0.5:
            hands[0].holds = prop
    if not textless:
        panel.description = describe(rng, panel)
        panel.words = letter(rng, panel, letters)
        if not panel.words and not panel.description:
            panel.description = full_description(rng, panel, 0.8)
    return panel


def _shot(rng: Rng, w: float, h: float) -> str:
    small = w * h < 24_000
    return str(rng.choice(world.SHOTS, p=(0.4, 0.42, 0.18) if small else (0.25, 0.42, 0.33)))


def _actor(rng: Rng, who: Character, shot: str) -> Actor:
    actions = world.CLOSE_UP_ACTIONS if shot == "close-up" else world.ACTIONS
    return Actor(who, pick(rng, actions), pick(rng, world.EMOTIONS))


# --- descriptions ---------------------------------------------------------------------------------------------------


def describe(rng: Rng, panel: PanelScript) -> str:
    """A description as a vision-language model might write it; empty for panels that only talk."""
    style = rng.random()
    if style < 0.08:
        return ""
    if style < 0.66:
        return full_description(rng, panel, 0.86)
    if style < 0.9:
        return full_description(rng, panel, 0.58)
    return full_description(rng, panel, 0.62, by_name=True)


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def person(rng: Rng, who: Character, share: float, by_name: bool) -> str:
    """A noun phrase for a character that names about `share` of what it looks like."""
    if by_name:
        return who.name
    being = pick(rng, world.BEINGS[who.kind])
    parts = []
    if who.hair != "none" and rng.random() < 0.4 * share:
        parts.append(pick(rng, world.TRESSES[who.hair]))
    words = a(" ".join([*parts, being]))
    color, garment = pick(rng, world.TINTS[who.clothes_color]), pick(rng, world.GARMENTS[who.clothes])
    draw = rng.random()
    if draw < 0.72 * share:
        words += f" in {a(f'{color} {garment}')}"
    elif draw < 0.85 * share:
        words += f" in {color}"
    elif draw < 0.9 * share:
        words += f" in {a(garment)}"
    return f"{who.name}, {words}," if rng.random() < 0.1 else words


def full_description(rng: Rng, panel: PanelScript, share: float, by_name: bool = False) -> str:
    """One to three sentences; each fact is named with a probability near `share`."""

    def tell(weight: float = 1.0) -> bool:
        return bool(rng.random() < share * weight)

    where = pick(rng, world.PLACES[panel.setting]) if tell(1.05) else ""
    when = pick(rng, world.WHEN[panel.time]) if tell(0.85) else ""
    framing = pick(rng, world.FRAMINGS[panel.shot]) if tell(0.55) else ""
    if not panel.actors:
        return _empty_place(rng, panel, where, when, framing)
    main = panel.actors[0]
    subject = person(rng, main.who, share, by_name)
    does, doing = world.DOING[main.action][int(rng.integers(len(world.DOING[main.action])))]
    if not tell():
        does, doing = ("is here", "talking") if rng.random() < 0.5 else ("appears", "in view")
    look = pick(rng, world.LOOKING[main.emotion]) if tell(0.72) else ""
    thing = _thing(rng, panel, main) if panel.props and tell(0.95) else ""
    place = " ".join(part for part in (where, when) if part)
    first = _sentence(rng, subject, does, doing, place, look, thing if main.holds else "", framing)
    rest = [_companion(rng, other, share, by_name) for other in panel.actors[1:] if tell(0.95)]
    if thing and not main.holds:
        rest.append(
            pick(
                rng, ["There is {} nearby.", "{} can be seen beside them.", "On the ground: {}.", "Next to them, {}."]
            ).format(thing)
        )
    rng.shuffle(rest)
    return " ".join([first, *(s[0].upper() + s[1:] for s in rest)])


def _empty_place(rng: Rng, panel: PanelScript, where: str, when: str, framing: str) -> str:
    where = where or pick(rng, world.PLACES[panel.setting])
    start = (
        f"{framing}: nobody" if framing else pick(rng, ["Nobody is", "An empty scene", "A quiet scene", "No one is"])
    )
    if framing:
        start += " is"
    tail = f" {when}" if when else ""
    thing = f", only {a(pick(rng, world.THINGS[panel.props[0]]))}" if panel.props else ""
    return f"{start} {where}{tail}{thing}."


def _thing(rng: Rng, panel: PanelScript, main: Actor) -> str:
    noun = a(pick(rng, world.THINGS[panel.props[0]]))
    return f"{pick(rng, ['holding', 'carrying', 'clutching', 'with'])} {noun}" if main.holds else noun


def _sentence(rng: Rng, subject: str, does: str, doing: str, place: str, look: str, held: str, framing: str) -> str:
    place = f" {place}" if place else ""
    held = f" {held}" if held else ""
    feeling = f", looking {look}" if look else ""
    form = int(rng.integers(5))
    if framing:
        return f"{framing} of {subject} {doing}{held}{place}{feeling}.".replace(",,", ",")
    if form == 0:
        text = f"{subject} {does}{place}{held}{feeling}."
    elif form == 1 and place:
        text = f"{place.strip()}, {subject} {does}{held}{feeling}."
    elif form == 2:
        text = f"the panel shows {subject} {doing}{place}{held}{feeling}."
    elif form == 3 and look:
        text = f"looking {look}, {subject} {does}{place}{held}."
    else:
        text = f"{subject} is seen {doing}{held}{place}{feeling}."
    text = text.replace(",,", ",").replace(",.", ".")
    return text[0].upper() + text[1:]


def _companion(rng: Rng, other: Actor, share: float, by_name: bool) -> str:
    does, doing = world.DOING[other.action][int(rng.integers(len(world.DOING[other.action])))]
    subject = person(rng, other.who, share, by_name)
    form = int(rng.integers(4))
    look = f", {pick(rng, world.LOOKING[other.emotion])}" if rng.random() < 0.3 * share else ""
    text = (
        f"{subject} {does} nearby{look}.",
        f"beside them, {subject} {does}{look}.",
        f"{subject} is {doing} too{look}." if doing != "in view" else f"{subject} is there too.",
        f"in the same panel {subject} {does}{look}.",
    )[form]
    return text.replace(",,", ",")


# --- lettering ------------------------------------------------------------------------------------------------------


def letter(rng: Rng, panel: PanelScript, letters: int) -> list[Utterance]:
    """Dialogue, thoughts, captions and sounds that fit into so many letters."""
    words: list[Utterance] = []
    if not panel.actors or rng.random() < 0.22:
        words.append(Utterance("caption", _fill(rng, panel, CAPTIONS, letters)))
    awake = [k for k, actor in enumerate(panel.actors) if actor.action != "sleep"]
    turns = min(len(awake), 1 + int(rng.random() < 0.5))
    if rng.random() < 0.12 and (words or panel.description):
        turns = 0
    for k in awake[:turns]:
        spent = sum(len(u.text) for u in words)
        if letters - spent < 12:
            break
        think = rng.random() < 0.12
        text = _fill(rng, panel, THOUGHTS if think else DIALOGUE, letters - spent, k)
        words.append(Utterance("thought" if think else "dialogue", text, k))
    for k, actor in enumerate(panel.actors):
        chance = {"sleep": 0.5, "punch": 0.4, "jump": 0.15, "run": 0.15, "cheer": 0.08}.get(actor.action, 0.0)
        if rng.random() < chance:
            words.append(Utterance("sound", pick(rng, SOUNDS[actor.action]), k))
            break
    return words


def _fill(rng: Rng, panel: PanelScript, lines: dict[str, tuple[str, ...]], letters: int, speaker: int = 0) -> str:
    """A line that fits; it speaks of the image about half of the time."""
    others = [actor.who.name for k, actor in enumerate(panel.actors) if k != speaker]
    topics = ["any"] * 4 + [t for t in ("setting", "time") if t in lines]
    topics += ["prop"] * 2 if panel.props and "prop" in lines else []
    if panel.actors:
        actor = panel.actors[speaker]
        topics += [t for t in (actor.emotion, actor.action) if t in lines]
    topics += ["name"] if others and "name" in lines else []
    names = {
        "prop": pick(rng, world.THINGS[panel.props[0]]) if panel.props else "",
        "where": pick(rng, world.PLACES[panel.setting]),
        "when": pick(rng, world.WHEN[panel.time]),
        "name": pick(rng, others) if others else "",
    }
    shortest = ""
    for _ in range(12):
        text = pick(rng, lines[pick(rng, topics)]).format(**names)
        text = text[0].upper() + text[1:]
        if len(text) <= letters:
            return text
        shortest = min((shortest or text, text), key=len)
    short = [line for line in lines["any"] if len(line) <= max(letters, 10) and "{" not in line]
    return pick(rng, short) if short else shortest


def summarize(rng: Rng, panels: list[PanelScript]) -> str:
    """One sentence about a page."""
    names = list(dict.fromkeys(actor.who.name for panel in panels for actor in panel.actors))
    people = "Nobody" if not names else names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    first = panels[0]
    verb = (
        pick(rng, ["turn up", "meet", "find themselves", "spend the page"])
        if len(names) > 1
        else pick(rng, ["turns up", "is found", "spends the page"])
    )
    things = [prop for panel in panels for prop in panel.props]
    about = f", and {a(things[0])} matters" if things and rng.random() < 0.6 else ""
    return f"{people} {verb} {pick(rng, world.PLACES[first.setting])} {pick(rng, world.WHEN[first.time])}{about}."
