"""The experiments as data: one entry per point of the loss review, and more for what else can go wrong.

A finding compares arms. Nothing here trains or counts; `schedule` and `tables` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stage3.ablate.beyond import E1, E2, E3, E4, E5, E6, E7, E8, E9, E10, E11, S1, S2, S3
from stage3.ablate.review import F1, F2, F3, F4, F5, F6
from stage3.ablate.terms import Arm, Finding
from stage3.config import nearest
from stage3.errors import ConfigError

FINDINGS: dict[str, Finding] = {
    f.id: f for f in (F1, F2, F3, F4, F5, F6, S1, S2, S3, E1, E2, E3, E4, E5, E6, E7, E8, E9, E10, E11)
}
SWEEPS = ("F4", "F6", "E7", "E9")  # whose arms the plot of retrieval against page coherence shows


def chosen(ids: Sequence[str]) -> list[Finding]:
    """The findings of these names; "all" is every one.

    Raises:
        ConfigError: an unknown name.
    """
    wanted = list(FINDINGS) if "all" in ids else ids
    for name in wanted:
        if name not in FINDINGS:
            raise ConfigError(
                f"findings: unknown {name!r}. Choose from {', '.join(FINDINGS)}.{nearest(name, FINDINGS)}"
            )
    return [FINDINGS[name] for name in dict.fromkeys(wanted)]


def arms(findings: list[Finding]) -> Iterator[tuple[Finding, Arm]]:
    """Every arm that these findings compare, with its finding; an arm of several findings comes several times."""
    for finding in findings:
        for comparison in finding.comparisons:
            yield finding, comparison.fixed
            yield finding, comparison.reviewed
