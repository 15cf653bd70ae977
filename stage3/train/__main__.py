"""`python -m stage3.train`."""

from __future__ import annotations

from collections.abc import Sequence

from stage3.cli import Parser, given, run, say
from stage3.errors import Interrupted
from stage3.storage import to_json
from stage3.train import result, summary_lines, train_run
from stage3.train.together import Follower

EXAMPLES = (
    "python -m stage3.train --run runs/first --data data/samples",
    "python -m stage3.train --run runs/first                                   (resumes a stopped run)",
    "python -m stage3.train --run runs/strong --data data/samples --alignment_weight 3 --temperature 0.05",
    "python -m stage3.train --run runs/copy --config runs/first/config.yaml --seed 1",
    "python -m stage3.train --run runs/mine --manifest pages.csv --panels json/ --panel_format ocr",
    "torchrun --nproc-per-node 4 -m -- stage3.train --run runs/four --data data/samples    (several processes)",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, print; returns the exit code."""
    about = "Train panel embeddings. The same command resumes a stopped run."
    parser = Parser("train", about, EXAMPLES, usage="--run RUN [--config F.yaml] [--data FOLDER] [--SETTING VALUE ...]")
    parser.add_run()
    parser.add_config()
    parser.add_json()
    parser.add_argument(
        "--allow_inexact_resume",
        action="store_true",
        help="resume even if threads or device changed; results differ slightly",
    )
    parser.add_settings()
    args = parser.parse(argv)
    try:
        folder = train_run(
            args.run,
            given(args),
            config=args.config,
            allow_inexact_resume=args.allow_inexact_resume,
            tell=(lambda _: None) if args.json else say,
        )
    except Interrupted as stopped:
        from stage3.peers import code_of_stop

        return code_of_stop(stopped, say)
    if isinstance(folder, Follower):  # the first process prints
        return 0
    summary = result(folder)
    for line in [to_json(summary)] if args.json else summary_lines(folder, summary):
        say(line)
    return 0


if __name__ == "__main__":
    run(main)
