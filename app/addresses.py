"""The views by name, and addresses of the form `/map?run=…`, which a browser may open, reload and keep.

Streamlit's pages live below a path of their own, and a page that is loaded there first asks for its parts below that
path and finds nothing. So a loaded `/map?…` is answered with a redirect to `/?view=map&…`, which the app follows.
"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

VIEWS: dict[str, tuple[str, str]] = {  # name: (title, icon)
    "runs": ("Runs", ":material/folder_open:"),
    "map": ("Map", ":material/scatter_plot:"),
    "search": ("Search", ":material/search:"),
    "page": ("Page", ":material/auto_stories:"),
    "losses": ("Losses", ":material/show_chart:"),
    "retrain": ("Retrain", ":material/model_training:"),
    "evidence": ("Evidence", ":material/fact_check:"),
    "data": ("Data", ":material/table_chart:"),
    "add": ("Add comics", ":material/add_photo_alternate:"),
}
START = "map"


def link(view: str, **params: object) -> str:
    """The address of a view; parameters that are None are left out."""
    return f"/{view}?{urlencode({k: v for k, v in params.items() if v is not None})}"


def _to_start(request: Request) -> RedirectResponse:
    query = [("view", request.url.path.strip("/")), *request.query_params.multi_items()]
    return RedirectResponse(f"/?{urlencode(query)}", status_code=307)


ROUTES = [Route(f"/{name}", _to_start, methods=["GET"]) for name in VIEWS]
