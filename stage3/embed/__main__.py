"""`python -m stage3.embed`."""

from stage3.console import run
from stage3.embed import main

if __name__ == "__main__":
    run(main)
