"""`python -m stage3.convert`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stage3.cli import Parser, given, run, say
from stage3.convert import PLACES, convert_checkpoint, summary
from stage3.data.table import LAYOUT_MEANINGS
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.convert best_model_vlm.pt runs/earlier --layout vlm --tokenizer models/all-MiniLM-L6-v2",
    "python -m stage3.convert best_model.pt runs/other --layout ocr --tokenizer models/all-MiniLM-L6-v2 --data comics",
)
ABOUT = """Make a run of a checkpoint of the original trainer, with the same embeddings.

evaluate, search, embed, diagnose and the explorer open it like any other run; training cannot continue it. Its own
backbones are written into the run. FILE is opened in a confined process, as weights alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, convert, print; returns the exit code."""
    usage = "FILE RUN --layout vlm|ocr --tokenizer FOLDER [--data FOLDER] [--json] ..."
    parser = Parser("convert", ABOUT, EXAMPLES, usage=usage)
    parser.add_argument("file", metavar="FILE", help="best_model.pt, best_model_vlm.pt or a checkpoint_vlm_*.pt")
    parser.add_argument("run", metavar="RUN", help="folder of the run; must be new or empty")
    parser.add_argument(
        "--layout", required=True, choices=LAYOUT_MEANINGS, metavar="|".join(LAYOUT_MEANINGS),
        help="format of the panel files that the model was trained on, which cannot be told from FILE; "
        "best_model_vlm.pt and checkpoint_vlm_* usually mean vlm, best_model.pt ocr",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", required=True, metavar="FOLDER",
        help="the text model's tokenizer, such as a copy of sentence-transformers/all-MiniLM-L6-v2",
    )  # fmt: skip
    for name, model in (("image_heads", "its SigLIP"), ("text_heads", "its text model")):
        about = f"attention heads of {model}, which are not in FILE; 0, the default: as usual for its width"
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=about)
    about = "pixels of the square crops of a ResNet alone; 0, the default: 224, or 32 if narrower than ResNet-50"
    parser.add_argument("--image_side", type=int, default=0, metavar="N", help=about)
    parser.add_json()
    parser.add_settings(PLACES)
    args = parser.parse(argv)
    tell: Callable[[str], None] = (lambda _: None) if args.json else say
    made = convert_checkpoint(
        args.file,
        args.run,
        layout=args.layout,
        tokenizer=args.tokenizer,
        image_heads=args.image_heads,
        text_heads=args.text_heads,
        image_side=args.image_side,
        settings=given(args, PLACES),
        tell=tell,
    )
    if args.json:
        say(to_json(summary(made)))
        return 0
    say(f"converted {args.file} to {made.path}")
    data = "" if made.config.data or made.config.manifest else " --data FOLDER"
    say(f"next: python -m stage3.evaluate --run {made.path}{data}")
    return 0


if __name__ == "__main__":
    run(main)
