"""What the `tiny` backbones know: the comics that `stage3.samples` draws, and no others."""

from __future__ import annotations

from stage3.config import Config
from stage3.data.readers.source import source_of

NOTE = (
    "{which} learned from synthetic comics alone, and these are others: expect little of images and meanings (words "
    "are found all the same). Try --vision_backbone siglip --text_backbone siglip, see README"
)


def tiny_note(config: Config) -> str:
    """What to say once of `tiny` backbones on comics that they were not made for; "" where nothing is to be said."""
    kinds = {"image": config.vision_backbone.split("+"), "text": [config.text_backbone]}
    tiny = [kind for kind, names in kinds.items() if "tiny" in names]
    named = config.data or (config.manifest and config.panels)  # else the panels were made in memory
    if not tiny or not named or is_synthetic(config):
        return ""
    return NOTE.format(which=f"the tiny {' and '.join(tiny)} backbone{'s' if len(tiny) > 1 else ''}")


def is_synthetic(config: Config) -> bool:
    """Whether `stage3.samples` drew these comics: only its `dataset.yaml` names a file of facts."""
    return source_of(config).facts is not None
