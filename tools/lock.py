"""`python -m tools.lock`: write `requirements.lock`, the explorer's dependencies with the hashes of their files.

    pip install --require-hashes -r requirements.lock && pip install --no-deps .

then installs just these files, whatever a mirror offers. Versions are those of `constraints.txt`. It runs `uv`
(`pip install uv`), which reads hashes from the index and downloads no package.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stage3.cli import Parser, run, say
from stage3.errors import ConfigError

LOCK = Path("requirements.lock")
EXAMPLES = ("python -m tools.lock",)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lock; run from the root of the repository."""
    Parser("tools.lock", "Write requirements.lock: all dependencies with hashes.", EXAMPLES).parse(argv)
    uv = shutil.which("uv")
    if uv is None:
        raise ConfigError("uv is not installed. pip install uv, then run the same command again.")
    if not Path("constraints.txt").is_file():
        raise ConfigError("run this from the root of the repository, where constraints.txt is")
    wanted = ["pip", "compile", "pyproject.toml", "--extra", "app", "-c", "constraints.txt"]
    how = ["--generate-hashes", "--universal", "--python-version", "3.11", "--no-build", "--no-annotate", "--quiet"]
    named = ["--custom-compile-command", "python -m tools.lock", "-o", str(LOCK)]
    done = subprocess.run([uv, *wanted, *how, *named], check=False)
    if done.returncode:
        raise ConfigError(f"uv ended with {done.returncode}; {LOCK} is as it was")
    say(f"{LOCK}: {sum('==' in line for line in LOCK.read_text(encoding='utf-8').splitlines())} packages")
    return 0


if __name__ == "__main__":
    run(main)
