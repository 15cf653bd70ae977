"""What training reads of images and texts: features of frozen backbones, computed once and kept.

`load_or_build` finds every vector it can in the store and computes the rest; a second run on the same data decodes
nothing. Vectors are found by content (the page file's bytes and the box; the text itself), so moving or renaming
files, reordering pages or dropping some costs nothing. `store` keeps vectors by content key; `building` brings in what
it lacks, with `crops` and `texts`; `page_digests` remembers which page files have not changed; `command` does it ahead
of training, in one process or many, and `python -m stage3.features` is that command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
