"""A run is a folder: its settings, what it is doing, its metrics and its checkpoints. Everything else only reads it.

Beside this file: `folder` is the run, `checkpoints` its folders of tensors, `data` the panels it was trained on,
`curves` what its metrics say, and `inspection` what its model makes of each single panel.
"""

from stage3.runs.checkpoints import Checkpoint, Loaded
from stage3.runs.folder import Best, RunFolder, State, Status, list_broken, list_runs

__all__ = ["Best", "Checkpoint", "Loaded", "RunFolder", "State", "Status", "list_broken", "list_runs"]
