"""What is learned: the panel encoder, the objectives on top of it, and their way in and out of a checkpoint.

Beside this file: `encoder` makes one embedding per panel, `objectives` owns everything learned and every loss,
`embedding` embeds a whole data set, `validation` measures a model, and `checkpoint` rebuilds one from its tensors.
"""

from stage3.model.encoder import EncoderSpec, PanelEmbeddings, PanelEncoder
from stage3.model.objectives import Stage3, Step, Temperature, sums

__all__ = [
    "EncoderSpec",
    "PanelEmbeddings",
    "PanelEncoder",
    "Stage3",
    "Step",
    "Temperature",
    "sums",
]
