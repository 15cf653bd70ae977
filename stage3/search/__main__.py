"""`python -m stage3.search`."""

from stage3.console import run
from stage3.search import main

if __name__ == "__main__":
    run(main)
