"""Time and memory of reading a manifest of a million pages, each stage in a process of its own.

    python -m benchmarks.manifest [--pages 1215620] [--files 20000] [--json]

Writes a manifest, labels and some panel files in a temporary folder; most listed pages have no panel file, as while a
detector is still running. Prints seconds and peak resident memory of a first load, of a second one from the cache, and
of a table with `--files` pages in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import sys, time
start = time.perf_counter()
from stage3.data import readers
from stage3.config import Config
imported = time.perf_counter()
table = readers.load(Config(manifest=sys.argv[1], panels=sys.argv[2], labels=sys.argv[3], cache_dir=sys.argv[4],
                            max_without_image=1.0))  # none is there
done = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status")) if sys.platform == "linux" else {}
if status:
    peak = int(status["VmHWM"].split()[0]) / 1024
else:
    import psutil
    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", info.rss) / 2**20
print(f"{imported - start:.1f} {done - imported:.1f} {peak:.0f} {table.report.pages_listed} {len(table.pages)}")
"""


def write_data(root: Path, pages: int, files: int) -> None:
    """A manifest in the real one's format, labels for all pages, panel files for the first `files`."""
    boxes = [[10 + 190 * i, 10, 190 + 190 * i, 990] for i in range(5)]
    labels: dict[str, str] = {}
    with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("canonical_id,absolute_image_path\n")
        for n in range(pages):
            book, page = f"#Series {n // 3000} vol{n // 30 % 100} - Unknown Author", f"JPG4CBZ/{n % 30:04d}"
            page_id = f"{book}/{page}"
            file.write(f"{page_id},E:\\CalibreComics_extracted\\{book}\\{page.replace('/', chr(92))}.jpg\n")
            labels[page_id] = "story" if n % 10 else "cover"
            if n < files:
                path = root / "panels" / f"{page_id}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                said = [{"box_2d": box, "description": f"street {n}, panel {i}"} for i, box in enumerate(boxes)]
                path.write_text(json.dumps({"overall_summary": "", "panels": said}), encoding="utf-8")
    (root / "labels.json").write_text(json.dumps(labels), encoding="utf-8")


def main() -> None:
    """Run the stages and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1_215_620)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.perf_counter()
        write_data(root, args.pages, args.files)
        size = (root / "manifest.csv").stat().st_size / 2**20
        wrote = time.perf_counter() - start
        paths = [str(root / name) for name in ("manifest.csv", "panels", "labels.json", "cache")]
        stages = {}
        for stage in ("first load", "second load"):
            command = [sys.executable, "-c", CHILD, *paths]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            stages[stage] = done.stdout.split()
    if args.json:
        found = {stage: {"s": float(values[1]), "MB": float(values[2])} for stage, values in stages.items()}
        print(json.dumps({"pages": args.pages, **found}))
        return
    print(f"wrote {args.pages:,} rows ({size:.0f} MB) and {args.files:,} panel files in {wrote:.0f} s")
    print(f"{'':<14}{'import s':>9}{'load s':>9}{'peak MB':>9}{'listed':>11}{'kept':>9}")
    for stage, (imported, load, peak, listed, kept) in stages.items():
        print(f"{stage:<14}{imported:>9}{load:>9}{peak:>9}{int(listed):>11,}{int(kept):>9,}")


if __name__ == "__main__":
    main()
