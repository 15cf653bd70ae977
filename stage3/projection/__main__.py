"""`python -m stage3.projection`."""

from stage3.console import run
from stage3.projection import main

if __name__ == "__main__":
    run(main)
