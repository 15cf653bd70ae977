"""From files to the panel table: one row per panel, whatever format the comics are in.

`readers` read the formats that users have, `table` is what they give, `images` decodes pages safely, `splits` holds
whole books out, `page_check` says what became of one page; `python -m stage3.data check` is the command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
