"""`python -m stage3.ablate`."""

from stage3.ablate import main
from stage3.console import run

if __name__ == "__main__":
    run(main)
