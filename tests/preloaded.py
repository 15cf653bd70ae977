"""What the fork server of `forked` loads ahead: torch, the commands, UMAP.

Nothing is computed, since a fork of a process with threads may wait for them forever.
"""

import stage3.batches.dataset
import stage3.data.import_command
import stage3.embed.exporter
import stage3.evaluate.report
import stage3.projection.maps
import stage3.train.trainer  # noqa: F401
from stage3.projection import layouts
from tests import unsynced

layouts._import_umap()
unsynced.begin()
