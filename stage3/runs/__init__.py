"""A run is a folder: its settings, what it is doing, its metrics and its checkpoints. Everything else only reads it.

Beside this file: `folder` is the run, `state` what it is doing and which checkpoint is its best, `metrics_file` its
metrics, `checkpoints` its folders of tensors, `environment` the versions it ran with, `data` the panels it was trained
on, `listing` which runs there are, `curves` what metrics say, and `inspection` what a model makes of each single panel.
"""

from stage3.runs.checkpoints import Checkpoint, Loaded
from stage3.runs.folder import RunFolder
from stage3.runs.listing import list_broken, list_runs
from stage3.runs.state import Best, State, Status

__all__ = ["Best", "Checkpoint", "Loaded", "RunFolder", "State", "Status", "list_broken", "list_runs"]
