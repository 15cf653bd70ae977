"""What is learned from: each term of the loss, declared once. Imports no torch, so that `--help` may read it.

The settings NAME_weight and NAME_temperature, the sum that training minimizes, the columns `loss/NAME`,
`weighted/NAME`, `gradient/NAME` and `active/COUNTED` of metrics.jsonl, the per-panel table, the explorer's form,
charts and color menus, and the evidence all follow from `OBJECTIVES`. To add a term, add an `Objective` here and the
function that it names; see docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Half:
    """A part of a term that is logged by itself.

    Attributes:
        name: in metrics.jsonl, such as "alignment_i2t".
        label: on charts and in tables; at most three words.
        short: the same where there is little room, and nothing else says of which term it is a half.
        color: place in the palette of charts.
    """

    name: str
    label: str
    short: str
    color: int


@dataclass(frozen=True)
class Objective:
    """One term of the loss.

    Attributes:
        name: in settings, metrics.jsonl and checkpoints.
        label: on charts and in tables; at most three words.
        of: what it is, for the help of its settings: "weight of …".
        loss: "module:function"; the function takes (model, batch, embeddings, generator) and gives a `PanelLoss` over
            the batch's panels for the term and for each of its halves, by name.
        weight: default of the setting NAME_weight; a term of weight 0 is not computed.
        counted: its mean is over the panels that `active/COUNTED` counts.
        counted_label: what these are, for a chart.
        color: place in the palette of charts.
        temperature: default of the setting NAME_temperature; None for a term without one.
        temperature_of: what has this temperature, for the help.
        halves: parts that are logged by themselves.
        defined_by: settings besides the temperature under which its values mean something else.
    """

    name: str
    label: str
    of: str
    loss: str
    weight: float
    counted: str
    counted_label: str
    color: int
    temperature: float | None = None
    temperature_of: str = ""
    halves: tuple[Half, ...] = ()
    defined_by: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The label where there is little room."""
        return self.label

    @property
    def parts(self) -> tuple[Objective | Half, ...]:
        """What is logged of it: itself, then its halves."""
        return (self, *self.halves)

    @property
    def weight_setting(self) -> str:
        """Name of the setting that weighs it."""
        return f"{self.name}_weight"

    @property
    def temperature_setting(self) -> str:
        """Name of the setting that is its temperature."""
        return f"{self.name}_temperature"


OBJECTIVES = (
    Objective(
        name="contrastive",
        label="Contrastive",
        of="supcon over page mates",
        loss="stage3.model.objectives:contrastive",
        weight=1.0,
        counted="anchors",
        counted_label="anchors with a page mate",
        color=0,
        temperature=0.07,
        temperature_of="supcon",
        defined_by=("log_epsilon", "singleton_anchors"),
    ),
    Objective(
        name="reconstruction",
        label="Reconstruction",
        of="masked reconstruction",
        loss="stage3.model.objectives:reconstruction",
        weight=0.5,
        counted="reconstructed",
        counted_label="reconstructed panels",
        color=1,
        defined_by=("normalize_target", "panel_norm", "dim"),
    ),
    Objective(
        name="alignment",
        label="Alignment",
        of="image-text alignment",
        loss="stage3.model.objectives:alignment",
        weight=1.0,
        counted="aligned",
        counted_label="panels with image and text",
        color=2,
        temperature=0.07,
        temperature_of="alignment",
        halves=(
            Half("alignment_i2t", "Image → text", "Align i → t", color=4),
            Half("alignment_t2i", "Text → image", "Align t → i", color=3),
        ),
        defined_by=("symmetric_alignment", "asymmetric_form", "identical_text_negatives"),
    ),
)

TERMS = tuple(objective.name for objective in OBJECTIVES)
HALVES = tuple(half.name for objective in OBJECTIVES for half in objective.halves)
LOSSES = (*TERMS, *HALVES)
WITH_TEMPERATURE = tuple(objective for objective in OBJECTIVES if objective.temperature is not None)
PAIRS = tuple((a, b) for i, a in enumerate(OBJECTIVES) for b in OBJECTIVES[i + 1 :])


PARTS: dict[str, Objective | Half] = {part.name: part for objective in OBJECTIVES for part in objective.parts}
"""Every loss that is logged, by name, each term before its halves."""
