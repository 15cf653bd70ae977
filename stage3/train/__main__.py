"""`python -m stage3.train`."""

from stage3.console import run
from stage3.train import main

if __name__ == "__main__":
    run(main)
