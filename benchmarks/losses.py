"""Time and memory of the losses against bare matrix products: `python -m benchmarks.losses`.

The yardstick is three V x V x D float32 products on one thread, measured between the losses in the same process: what
a forward and a backward pass of the dense variant need at least. Every number is the minimum of several interleaved
repeats. Memory is the growth of the process's peak resident set over one forward and backward pass, in a process of
its own, in units of V x D floats; inputs are not in it, gradients are.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import psutil
import torch
from torch import Tensor

from stage3 import losses

BARS = {  # (share of three products, V x D floats) that the design asks for
    "supcon": (0.75, 5.0),
    "info_nce": (1.35, 6.0),
    "reconstruction": (1.2, None),  # share of its head alone
}


@dataclass(frozen=True)
class Row:
    """One measured loss, and the bars it should stay under."""

    name: str
    temperature: float
    seconds: float
    ratio: float
    ratio_bar: float
    floats: float | None
    floats_bar: float | None


def inputs(panels: int, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two (V, D) leaves and the pages of V panels, five to a page."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(panels, dimension, generator=generator).requires_grad_() for _ in range(2))
    return a, b, torch.arange(panels) // 5


def one_pass(name: str, a: Tensor, b: Tensor, page_ids: Tensor, temperature: float) -> None:
    """Forward and backward of one loss."""
    a.grad = b.grad = None
    if name == "supcon":
        losses.supcon(a, page_ids, temperature).mean.backward()
    else:
        to_text, to_image = losses.info_nce(a, b, temperature)
        (to_text.mean + to_image.mean).backward()


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: other processes that share the cores should not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def least(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The minimum time of each, taken in turns so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):  # the first round warms up
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: min(taken[1:]) for name, taken in times.items()}


def peak_bytes() -> int:
    """Peak resident set of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_growth(name: str, panels: int, dimension: int, temperature: float, queue: multiprocessing.Queue) -> None:
    """In a fresh process: how far one pass lifts the peak over what the inputs and a small pass already took."""
    torch.set_num_threads(1)
    one_pass(name, *inputs(1024, dimension), temperature)  # libraries and their buffers
    a, b, page_ids = inputs(panels, dimension)
    resident, before = psutil.Process().memory_info().rss, peak_bytes()
    one_pass(name, a, b, page_ids, temperature)
    queue.put(peak_bytes() - resident if peak_bytes() > before else 0)


def floats_per_entry(name: str, panels: int, dimension: int, temperature: float) -> float:
    """Extra memory of one pass in units of V x D floats."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue = context.Queue()
    child = context.Process(target=measure_growth, args=(name, panels, dimension, temperature, queue))
    child.start()
    grown = queue.get(timeout=600)
    child.join()
    return grown / (4 * panels * dimension)


def contrastive_rows(panels: int, dimension: int, repeats: int) -> list[Row]:
    """`supcon` and `info_nce` at a usual and a small temperature."""
    cases = [(name, tau) for name in ("supcon", "info_nce") for tau in (0.07, 0.01)]
    # memory first: a child process inherits the peak of its parent
    floats = {case: floats_per_entry(case[0], panels, dimension, case[1]) for case in cases}
    a, b, page_ids = inputs(panels, dimension)
    z, out = a.detach(), torch.empty(panels, panels)
    works: dict[str, Callable[[], object]] = {"product": lambda: torch.mm(z, z.T, out=out)}
    for name, tau in cases:
        works[f"{name} {tau}"] = lambda name=name, tau=tau: one_pass(name, a, b, page_ids, tau)
    taken = least(works, repeats)
    rows = []
    for name, tau in cases:
        spent = taken[f"{name} {tau}"]
        ratio_bar, floats_bar = BARS[name]
        rows.append(Row(name, tau, spent, spent / (3 * taken["product"]), ratio_bar, floats[name, tau], floats_bar))
    return rows


def reconstruction_row(panels: int, dimension: int, repeats: int) -> Row:
    """Leave-one-out context, head and loss over every panel, against the head and a plain loss alone."""
    e, target, page_ids = inputs(panels, dimension)
    valid = torch.ones(panels, dtype=torch.bool)
    head = torch.nn.Sequential(
        torch.nn.Linear(dimension, dimension), torch.nn.GELU(), torch.nn.Linear(dimension, dimension)
    )

    def alone() -> None:
        e.grad = None
        (head(e) - target.detach()).square().mean().backward()

    def over_pages() -> None:
        e.grad = None
        prediction = head(losses.leave_one_out_mean(e, page_ids))
        losses.reconstruction(prediction, target, valid).mean.backward()

    taken = least({"alone": alone, "pages": over_pages}, repeats)
    ratio_bar, _ = BARS["reconstruction"]
    return Row("reconstruction", float("nan"), taken["pages"], taken["pages"] / taken["alone"], ratio_bar, None, None)


def table(rows: list[Row], panels: int, dimension: int) -> str:
    """The rows as text."""
    lines = [f"V = {panels}, D = {dimension}, one thread; forward + backward"]
    lines.append(f"{'loss':<16}{'tau':>6}{'seconds':>10}{'ratio':>8}{'bar':>7}{'floats/VD':>11}{'bar':>6}")
    for row in rows:
        tau = "" if row.temperature != row.temperature else f"{row.temperature:g}"
        memory = "" if row.floats is None else f"{row.floats:.2f}"
        bar = "" if row.floats_bar is None else f"{row.floats_bar:g}"
        lines.append(
            f"{row.name:<16}{tau:>6}{row.seconds:>10.3f}{row.ratio:>8.3f}{row.ratio_bar:>7}{memory:>11}{bar:>6}"
        )
    lines.append("ratio: of three V x V x D products; reconstruction: of its head alone")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=8192, help="V (default 8192)")
    parser.add_argument("--dim", type=int, default=512, help="D (default 512)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats, the minimum counts (default 3)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = contrastive_rows(chosen.panels, chosen.dim, chosen.repeats)
    rows.append(reconstruction_row(chosen.panels, chosen.dim, chosen.repeats))
    print(json.dumps([asdict(row) for row in rows]) if chosen.json else table(rows, chosen.panels, chosen.dim))


if __name__ == "__main__":
    main()
