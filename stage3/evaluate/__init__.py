"""What a run is worth on held-out pages: every metric with its interval, its chance level and its meaning.

`report` measures and `words` says it to a person; `python -m stage3.evaluate` is the command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
