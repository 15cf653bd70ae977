"""What panel embeddings can do, as pure functions on tensors and ids.

Shape letters: V panels, M panels with both modalities, N queries, G gallery rows, D dimension.

Similarities are float32 cosines computed in blocks, so memory grows with the number of rows and not with its square.
Differences below `TIE` are float32 rounding and count as ties. A mean over nothing is NaN, never an error or a zero.
Per-item results come as tensors, so that `bootstrap_interval` can resample them by page or book.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
