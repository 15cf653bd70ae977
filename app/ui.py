"""What a session of the explorer runs: set the page up, find the run, draw the view. `AppTest` runs this file alone."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from app import shell  # noqa: E402

shell.main()
