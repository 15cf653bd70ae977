"""What sessions share: runs and data sets in memory, images, training jobs, maps, evidence. Nothing here draws.

Images behind URLs are not read, neither by the explorer nor by what it starts, unless whoever starts it says so: a run
or a data set of unknown origin could otherwise let this machine fetch what only this machine may see.
"""

import os

from stage3.data import remote

os.environ.setdefault(remote.SWITCH, "off")
