"""`streamlit run app/main.py`: the explorer, with one route of its own for pictures."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # `streamlit run` puts this folder on the path, not the one above it
    sys.path.insert(0, str(HERE.parent))

import streamlit as st  # noqa: E402

from app import thumbs  # noqa: E402

app = st.App(str(HERE / "ui.py"), routes=thumbs.ROUTES)
