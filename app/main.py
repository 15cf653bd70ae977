"""`streamlit run app/main.py`: the explorer, with routes of its own for images and for addresses of views."""

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # `streamlit run` puts this folder on the path, not the one above it
    sys.path.insert(0, str(HERE.parent))

import streamlit as st  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: E402

from app import addresses  # noqa: E402
from app.posture import Posture  # noqa: E402
from app.store import loaders, thumbs  # noqa: E402

# Streamlit checks the Host header of its websocket only; images of a person's comics need the same care, or a
# web page could read them through a name that it points at this machine.
hosts = list(st.get_option("server.allowedHosts") or []) or ["*"]
origins = list(st.get_option("server.corsAllowedOrigins") or [])


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[None]:
    """Read the run that opens first while the browser still loads the page."""
    threading.Thread(target=loaders.warm_up, name="warm-up", daemon=True).start()
    yield


app = st.App(
    str(HERE / "ui.py"),
    lifespan=lifespan,
    routes=[*thumbs.ROUTES, *addresses.ROUTES],
    middleware=[Middleware(Posture, origins=origins), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
)
