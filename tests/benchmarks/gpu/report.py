"""Rows of the GPU benchmark: gathered section by section, printed as one table, kept as JSON."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nas.probes.device import device_versions
from tests.benchmarks.timing import processor

TOO_LATE = "skipped: no time was left"
OURS = ("partialnet", "nas", "tests")
PACKAGES = ("torch", "timm", "triton", "torchvision", "numpy")


class OutOfTime(BaseException):
    """The time is over in the middle of a case; no exception of a case, so that none handles it."""


@dataclass(frozen=True)
class Row:
    """One figure, or what stood in its way.

    Args:
        section: Part of the benchmark.
        case: Case that was measured.
        value: The figure; None if there is none.
        unit: Unit of the figure; "x" for a ratio.
        goal: Required value, such as ">= 1.0"; "" if there is no goal.
        note: Further figures, or why there is none.
    """

    section: str
    case: str
    value: float | None
    unit: str = ""
    goal: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """``"met"`` or ``"missed"``; "" if there is nothing to judge."""
        if self.value is None or not self.goal:
            return ""
        relation, limit = self.goal.split()
        met = self.value <= float(limit) if relation == "<=" else self.value >= float(limit)
        return "met" if met else "missed"


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return the device, the driver's and the packages' versions, and the precision switches that hold."""
    found: dict[str, Any] = {"device": processor(), "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory_gb": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            **device_versions("cuda"),
            "convolutions": torch.backends.cudnn.conv.fp32_precision,
        }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@dataclass
class Report:
    """All rows so far; every section is written to the file as soon as it is done.

    Args:
        device: Device of the figures.
        deadline: Time by the monotonic clock at which everything ends.
        path: JSON file; None keeps none.
        rows: Rows so far.
    """

    device: torch.device
    deadline: float
    path: Path | None = None
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row, and show it at once: a run may be cut off. Goals are those of a GPU."""
        if self.device.type != "cuda":
            row = replace(row, goal="")
        self.rows.append(row)
        print(render(row), flush=True)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    @contextmanager
    def punctual(self) -> Iterator[None]:
        """End the case that runs at the deadline; those after it are skipped."""

        def over(number: int, frame: object) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, self.deadline - time.monotonic()))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @contextmanager
    def case(self, section: str, case: str) -> Iterator[None]:
        """Run a case: whatever stops it costs this case only, and becomes a row."""
        try:
            yield
        except OutOfTime:
            self.add(Row(section, case, None, note=TOO_LATE))
        except Exception as error:
            first = str(error).strip().splitlines() or [""]
            note = f"failed: {type(error).__name__}: {first[0][:160]}"
            if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OURS:
                note = f"skipped: {error.name} is not installed"
            self.add(Row(section, case, None, note=note))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def section(self, name: str, run: Callable[[Report], None]) -> None:
        """Run a section, or say that there was no time for it; then write the file."""
        start = time.monotonic()
        print(f"\n== {name}", flush=True)
        if self.late:
            self.add(Row(name, "all", None, note=TOO_LATE))
        else:
            run(self)
            print(f"   {time.monotonic() - start:.0f} s", flush=True)
        self.save()

    def save(self) -> None:
        """Write circumstances and rows as JSON."""
        if self.path is not None:
            rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
            content = {"schema": 1, "circumstances": circumstances(self.device), "rows": rows}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @property
    def failed(self) -> bool:
        """Whether a case failed; goals that were missed and cases that were skipped are no failures."""
        return any(row.note.startswith("failed") for row in self.rows)


def render(row: Row) -> str:
    """Return a line of the table."""
    value = "-" if row.value is None else f"{row.value:,.3f}" if abs(row.value) < 100 else f"{row.value:,.0f}"
    goal = f"{row.goal} {row.verdict}".strip()
    return f"{row.section:10} {row.case:60} {value:>10} {row.unit:9} {goal:15} {row.note}".rstrip()
