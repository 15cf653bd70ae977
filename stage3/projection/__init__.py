"""The map of a run's panels, computed once and kept with the run as Parquet; `python -m stage3.projection` makes it.

`maps` computes maps and drift, `files` keeps and reads them, and `layouts` has the arithmetic of positions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
