"""What people in sample comics say, think and hear; `{prop}`, `{where}`, `{when}` and `{name}` are filled in."""

DIALOGUE: dict[str, tuple[str, ...]] = {
    "any": (
        "Trust me.", "I had a plan. It was a bad plan.", "Are you sure about this?", "This is not on the map.",
        "We should have taken the bus.", "Nobody told me!", "Again?", "Not again.", "Shh!", "Did you hear that?",
        "You owe me a sandwich.", "That went better than expected.", "I can explain everything.", "No.", "Why me?",
        "One of us has to go first.", "Remember what we agreed.", "It was like this when I got here.", "Hm.",
        "I never forget a face.", "Ask me tomorrow.", "We are being followed.", "Keep your voice down.",
        "My aunt warned me about this.", "There is always a catch.", "So this is how it ends.", "Well, well.",
        "Count to ten.", "Whose idea was this?", "Give it back!", "I say we vote.", "Leave it to me.", "Finally!",
        "Is it Tuesday already?", "Who invited the band?", "You call that a plan?", "I smell trouble.", "Oh no.",
        "Tell me everything.", "That is what they want us to think.", "Follow me!", "After you.", "Wait!",
    ),
    "prop": (
        "Look at the {prop}!", "Where did this {prop} come from?", "Hands off my {prop}!", "Whose {prop} is that?",
        "That is no ordinary {prop}.", "I traded my lunch for a {prop}.", "Mind the {prop}.", "A {prop}! At last!",
        "Nobody touches the {prop}.", "Not the {prop} again...", "The {prop} is mine.", "What a lovely {prop}.",
    ),
    "setting": (
        "Why are we {where}?", "Here we are, {where}.", "I have never been {where}.", "We are lost {where}!",
        "Meet me {where}.", "Nothing ever happens {where}.",
    ),
    "time": (
        "Who comes here {when}?", "Never work {when}.", "I do my best thinking {when}.", "It looks different {when}.",
    ),
    "name": (
        "Over here, {name}!", "{name}, is that you?", "Listen, {name}.", "Thank you, {name}.", "Careful, {name}!",
        "You first, {name}.", "I knew it, {name}.",
    ),
    "happy": ("Ha ha!", "Best day ever!", "I love it!", "Hooray for us!", "I am so happy!"),
    "sad": ("I miss home.", "It is gone...", "Nobody listens.", "I feel gloomy.", "Sniff."),
    "angry": ("Enough!", "Out of my way!", "You will pay for this!", "I am furious!", "Grrr!"),
    "scared": ("W-who is there?", "I want to go home!", "I am not afraid. Much.", "Help!", "Don't look back!"),
    "surprised": ("What?!", "It cannot be!", "I am amazed!", "Wow!", "Since when?"),
    "calm": ("No hurry.", "All is quiet.", "Let us think.", "Breathe."),
    "run": ("Run!", "No time to lose!", "Faster!", "Keep running!"),
    "jump": ("Wheee!", "Catch me!", "One giant leap!", "Up we go!"),
    "sit": ("My feet hurt.", "I will just sit here.", "Take a seat."),
    "point": ("There!", "That way!", "Over there!", "It was you!"),
    "punch": ("Take that!", "And stay down!", "I warned you!"),
    "cheer": ("We won!", "Yes!", "Three cheers!", "We did it!"),
    "stand": ("I shall wait here.", "Halt!", "Well?"),
}  # fmt: skip

THOUGHTS: dict[str, tuple[str, ...]] = {
    "any": (
        "Act natural.", "Did I lock the door?", "Something is wrong.", "They must never know.", "I could eat.",
        "Not a word.", "This again.", "Think!", "I have a bad feeling.", "What would mother say?",
    ),
    "prop": ("I want that {prop}.", "If only the {prop} worked.", "The {prop}... of course!"),
    "setting": ("Alone {where}.", "I could live {where}."),
    "name": ("What is {name} up to?", "{name} must not know."),
    "happy": ("Perfect.",), "sad": ("I am so sad.",), "angry": ("I am so cross!",), "scared": ("I am terrified.",),
}  # fmt: skip

CAPTIONS: dict[str, tuple[str, ...]] = {
    "any": (
        "Meanwhile...", "Later.", "One hour later.", "But not everyone agreed.", "At that very moment...",
        "It had to happen.", "And then...", "Three days earlier.", "Little did they know.", "To be continued...",
        "Too late!", "Nobody noticed.",
    ),
    "setting": ("Meanwhile, {where}...", "Somewhere {where}.", "Later, {where}.", "Back {where}..."),
    "time": ("It happened {when}.", "Once, {when}...", "Later, {when}."),
    "prop": ("It began with a {prop}.", "One {prop} too many."),
}  # fmt: skip

SOUNDS: dict[str, tuple[str, ...]] = {
    "sleep": ("ZZZ", "SNORE"),
    "punch": ("POW!", "WHAM!", "BIFF!"),
    "jump": ("BOING!", "HOP!", "WHEE!"),
    "run": ("ZOOM!", "TAP TAP", "DASH!"),
    "cheer": ("HURRAH!", "YAY!"),
}

TITLES = (
    "The {prop} of {place}", "{name} and the {prop}", "Curse of the {prop}", "The Last {prop}", "{name}!",
    "The {prop} Affair", "{place} Tales", "Who Stole the {prop}?", "{name} in {place}", "Night of the {prop}",
    "The Amazing {name}", "{name} & {other}", "Secrets of {place}",
)  # fmt: skip
PLACE_TITLES = {
    "city": "Big City", "forest": "Deepwood", "castle": "Grimhold", "beach": "Palm Bay", "desert": "the Dunes",
    "space": "Planet X", "underwater": "the Deep", "bedroom": "Dreamland", "kitchen": "the Kitchen",
    "mountains": "High Peaks",
}  # fmt: skip
SLOGANS = (
    "Everybody wants one!", "Amaze your friends!", "Only 99 cents!", "New! Improved!", "You need this.",
    "As seen in this comic!", "Order today!", "Now with more!",
)  # fmt: skip
SMALL_PRINT = (
    "Send no money. Allow six weeks for delivery.", "Batteries, bolts and bravery not included.",
    "Not suitable for wizards under three.", "Offer ends when the ink runs out.",
)  # fmt: skip
