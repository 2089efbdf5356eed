"""``python -m tests.faults --kills 30`` injects faults into small real studies and prints their cost (make faults)."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.faults.injection import Damage, inject
from tests.faults.kinds import FAULTS, KILLS, OTHERS, missing

_PER_STUDY = 4


def spread_kills(targets: Sequence[str], kills: int) -> list[dict[str, int]]:
    """Return rounds of kills, at most four for each target in each: more would only be kills without progress."""
    rounds: list[dict[str, int]] = []
    left = [kills // len(targets) + (place < kills % len(targets)) for place in range(len(targets))]
    while any(left):
        shares = [min(_PER_STUDY, count) for count in left]
        rounds.append({target: share for target, share in zip(targets, shares, strict=True) if share})
        left = [count - share for count, share in zip(left, shares, strict=True)]
    return rounds


def show(found: Sequence[Damage]) -> None:
    """Print the table: a row for each study, and the sum."""
    table = Table("fault", "number", "study", "lost", "doubled", "zombie", "repeated epochs", "differ", "left", "s")
    for one in found:
        counts = (one.lost, one.doubled, one.zombies, one.repeated, one.differ, one.left)
        table.add_row(one.fault, str(one.faults), one.state.value, *map(str, counts), f"{one.seconds:.0f}")
    sums = [
        sum(getattr(one, name) for one in found)
        for name in ("faults", "lost", "doubled", "zombies", "repeated", "differ", "left")
    ]
    table.add_section()
    table.add_row("all", str(sums[0]), "", *map(str, sums[1:]), f"{sum(one.seconds for one in found):.0f}")
    Console(width=120).print(table)


def main() -> int:
    """Inject the faults; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="number of kills (30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their moments (0)")
    parser.add_argument(
        "--fault",
        action="append",
        choices=list(FAULTS),
        help="kind of fault; may be given several times (all kills, and one of each other fault)",
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    chosen = given.fault or [*KILLS, *OTHERS]
    errors = Console(stderr=True, markup=False)
    for reason in filter(None, map(missing, chosen)):
        errors.print(f"left out: {reason}")
    chosen = [name for name in chosen if missing(name) is None]
    plans = spread_kills([name for name in chosen if name in KILLS], given.kills) if set(chosen) & set(KILLS) else []
    others = dict.fromkeys((name for name in chosen if name in OTHERS), 1)
    found: list[Damage] = []
    try:
        for turn, plan in enumerate([*plans, *([others] if others else [])]):
            inject(plan, given.seed + turn, errors.print, found)
    finally:
        show(found)
    return 0 if all(one.harmless for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
