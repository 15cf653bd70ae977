"""Find panels by words, by an image, by both, or by a panel, in one direction or both.

`searcher` asks and answers, `words` is the index of what panels say, `fusion` joins both for typed words, `answers` is
what the command and `Run.search` share, and `failures` says what is found in one direction only;
`python -m stage3.search` is the command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
