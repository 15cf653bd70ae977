"""`python -m tools.screenshots OUT`: an image of every view, light and dark, from the run that opens first.

Needs Playwright and a Chromium; it starts the explorer itself, on a free port of this machine, and stops it at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.addresses import VIEWS, link
from stage3 import cli
from stage3.errors import DataError, Stage3Error

PAGE = 3  # of the first book, shown in the page view
ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The last: else each error object makes V8 parse again what it has compiled, a fifth of all that loading a view takes.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--js-flags=--no-enable-lazy-source-positions")


def browser_path() -> str | None:
    """The system's Chromium, None where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextmanager
def server(folder: Path, **environment: str) -> Iterator[str]:
    """The explorer started in `folder`; gives its address and ends it at the end.

    Raises:
        DataError: it does not answer within a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.port", str(port)]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{address}/_stcore/health", process)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    raise DataError("the explorer did not start; try `streamlit run app/main.py` to see why")


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window.

    Raises:
        DataError: no Playwright or no browser.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise DataError("playwright is not installed: pip install playwright") from None
    path = browser_path()
    if path is None:
        raise DataError(f"no browser was found; looked for {', '.join(BROWSERS)}")
    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page(within: Any, address: str, width: int = 1440, height: int = 900, theme: Any = "light") -> Iterator[Any]:
    """A page of a browser, which knows nothing of its other pages; `address` is opened by `settled`."""
    context = within.new_context(viewport={"width": width, "height": height}, color_scheme=theme, base_url=address)
    try:
        yield context.new_page()
    finally:
        context.close()


def settled(tab: Any, seconds: float = 180.0) -> None:
    """Wait until the view is drawn: no spinner, no placeholder, nothing running; a busy machine draws slowly."""
    tab.wait_for_selector(".st-key-view-heading, .st-key-empty-state", timeout=seconds * 1000)
    tab.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=seconds * 1000)
    busy = '[data-testid="stSkeleton"], [data-testid="stSpinner"], [data-testid="stStatusWidget"]'
    tab.wait_for_function(f"document.querySelectorAll('{busy}').length === 0", timeout=seconds * 1000)
    drawn = "[...document.querySelectorAll('.stPlotlyChart')].every(c => c.querySelector('.main-svg'))"
    tab.wait_for_function(drawn, timeout=seconds * 1000)
    tab.wait_for_timeout(700)


def main(argv: Sequence[str] | None = None) -> int:
    """Take the images."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for VIEW-THEME.png")
    parser.add_argument("--root", type=Path, default=Path(), help="folder to start the explorer in")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=list(VIEWS))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with server(args.root) as address, browser() as started:
        for theme in ("light", "dark"):
            with page(started, address, args.width, theme=theme) as tab:
                for view in args.views:
                    tab.goto(link(view, page=PAGE if view == "page" else None))
                    settled(tab)
                    target = args.out / f"{view}-{theme}.png"
                    tab.screenshot(path=str(target))
                    cli.say(str(target))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except Stage3Error as error:
        sys.stderr.write(f"error: {cli.clean(str(error))}\n")
        raise SystemExit(error.exit_code) from None
