"""Stage 3: one embedding per comic panel, from its image, its text and its place on the page.

>>> import stage3
>>> stage3.Config(epochs=3).epochs
3

`Dataset.load` reads comics, `Run.train` trains on them, and a `Run` evaluates, searches, maps and exports; `Stage3` is
the model and `supcon`, `info_nce` and `leave_one_out_mean` are its losses. Names are imported when they are first used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
