"""The explorer: a thin view on run folders. `streamlit run app/main.py`."""
