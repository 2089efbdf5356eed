"""A sweep in the terminal: a live table of the running trials, or plain lines if the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nas.definition.study import StudyDefinition
from nas.finalist import ratio_label
from nas.findings.candidates import describe_candidates
from nas.formatting import format_count, format_duration
from nas.sweep.progress import (
    EpochDone,
    FinalStarted,
    Foreseen,
    Probing,
    SearchEnded,
    SearchStarted,
    Stopping,
    SweepEvent,
    Tick,
    TrialEnded,
    TrialEvent,
    TrialStarted,
    Warned,
)
from nas.trial import EpochRecord, TrialKind, TrialSpec, TrialState

_STARTING = "starting Ray and the first trials: 10 to 20 seconds ..."


def describe_trial(spec: TrialSpec) -> str:
    """Return a trial's values in a few words: ``uniform 1/4`` or ``target 3.2``."""
    if spec.kind is TrialKind.CHEAPER:
        return spec.label
    if spec.finalist is not None:
        return f"{spec.finalist.label} retrained, seed {spec.finalist.seed_index + 1}"
    if spec.kind is TrialKind.BASELINE and "ratio" in spec.parameters:
        return ratio_label(float(spec.parameters["ratio"]))
    return f"target {float(spec.parameters['target']):.3g}" if "target" in spec.parameters else spec.kind.value


@dataclass
class _Running:
    spec: TrialSpec
    epochs: int
    since: float
    record: EpochRecord | None = None

    @property
    def share(self) -> float:
        """Share of its epochs that are done."""
        return min(1.0, self.record.epoch / self.epochs) if self.record else 0.0


@dataclass
class SweepState:
    """The state that a display shows, summed over the events so far. It knows no terminal.

    Args:
        clock: Monotonic clock in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    definition: StudyDefinition | None = None
    running: dict[int, _Running] = field(default_factory=dict)
    ended: int = 0
    total: int = 0
    failed: int = 0
    stopped: int = 0
    best: float | None = None
    note: str = ""
    started: float | None = None
    ended_before: int = 0

    def update(self, event: SweepEvent) -> None:
        """Take in an event."""
        # The total may fall: a final comparison is planned for more networks than the front may hold.
        self.ended, self.total = max(self.ended, event.ended), event.total or self.total
        match event:
            case SearchStarted():
                self.definition, self.started, self.ended_before = event.definition, self.clock(), event.ended
                self.note = _STARTING
            case TrialStarted():
                self.running[event.number] = _Running(event.spec, self._epochs(event.spec), self.clock())
            case EpochDone() if event.number in self.running:
                self.running[event.number].record = event.record
                self.note = "" if self.note == _STARTING else self.note
            case TrialEnded():
                self.running.pop(event.number, None)
                self.failed += event.state is TrialState.FAILED
                self.stopped += event.state is TrialState.PRUNED
                for candidate in event.candidates:
                    top1 = candidate.score("top1", candidate.kind)
                    self.best = max(filter(None, (self.best, top1)), default=None)
            case FinalStarted() | Foreseen() | Stopping() | Probing() | Warned():
                self.note = event.message
            case SearchEnded():
                self.running.clear()

    def _epochs(self, spec: TrialSpec) -> int:
        if self.definition is None:
            return 1
        if spec.kind is TrialKind.RETRAIN and self.definition.final.epochs:
            return self.definition.final.epochs
        training = self.definition.training
        swept = spec.parameters
        return int(swept.get("epochs", training.epochs)) + int(swept.get("finetune_epochs", training.finetune_epochs))

    @property
    def done(self) -> float:
        """Number of ended trials, plus the done shares of running ones."""
        return self.ended + sum(trial.share for trial in self.running.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the search started."""
        return 0.0 if self.started is None else self.clock() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds until the end at the speed so far; None before there is an estimate."""
        done = self.done - self.ended_before
        return self.elapsed * (self.total - self.done) / done if done >= 0.1 else None


class SweepDisplay:
    """A live table of the running trials with a bar over all, or plain lines if the output is not a terminal.

    Use as a context manager, and as the ``progress`` of :func:`nas.sweep.search.run_search`.

    Args:
        console: Console for the output; standard output if absent.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(markup=False, emoji=False)
        self._state = SweepState()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}", markup=False),
            console=self._console,
        )
        self._task = self._bar.add_task("trials", total=None, eta="")
        self._live: Live | None = None
        self._last_draw = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: SweepEvent) -> None:
        """Show ``event``."""
        known = self._state.running.get(event.number) if isinstance(event, TrialEvent) else None
        since = known.since if known is not None else None
        self._state.update(event)
        line = self._line(event, since)
        if line:
            self._console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
        now = time.monotonic()
        if self._live is not None and (not isinstance(event, Tick) or now - self._last_draw > 0.5):
            self._last_draw = now
            self._live.update(self._render(), refresh=True)

    def _line(self, event: SweepEvent, since: float | None) -> str | None:
        """Return the line that stays in the output; it names started trials only if no table shows them."""
        place = f"[{self._state.ended:>{len(str(self._state.total))}}/{self._state.total}]"
        match event:
            case TrialStarted() if self._live is None:
                return f"{place} trial {event.number} ({describe_trial(event.spec)}) started"
            case TrialEnded():
                what, state = describe_trial(event.spec), event.state.value
                took = f", {format_duration(time.monotonic() - since)}" if since is not None else ""
                scores = (describe_candidates(event.candidates) if event.candidates else event.reason) or ""
                return f"{place} trial {event.number} ({what}) {state}: {scores}{took}{self._eta()}"
            case Warned() | Stopping() | FinalStarted() | Foreseen():
                return event.message
            case Probing() if self._live is None:
                return event.message
        return None

    def _eta(self) -> str:
        remaining = self._state.remaining
        if self._live is not None or not remaining:
            return ""
        return f"; about {format_duration(remaining)} to go"

    def _render(self) -> RenderableType:
        state = self._state
        remaining = state.remaining
        eta = f"about {format_duration(remaining)} to go" if remaining else ""
        self._bar.update(self._task, total=state.total or None, completed=round(state.done, 1), eta=eta)
        best = f" · best top-1 {100 * state.best:.2f} %" if state.best is not None else ""
        counts = ((state.stopped, "stopped early"), (state.failed, "failed"))
        ended = "".join(f" · {count} {word}" for count, word in counts if count)
        footer = Text(f"{state.ended} of {state.total} trials ended{ended}{best}  {state.note}", style="dim")
        return Group(self._table(), self._bar, footer)

    def _table(self) -> Table:
        table = Table(expand=True, pad_edge=False, box=None, header_style="bold")
        for name in ("trial", "what", "phase"):
            table.add_column(name, no_wrap=True)
        for name in ("epoch", "loss", "top-1", "cost", "target"):
            table.add_column(name, justify="right", no_wrap=True)
        for number, trial in sorted(self._state.running.items()):
            record = trial.record
            metrics = record.metrics if record else {}
            top1, cost, target = metrics.get("top1"), metrics.get("cost"), metrics.get("target")
            table.add_row(
                str(number),
                describe_trial(trial.spec),
                record.phase if record else "starting",
                f"{record.epoch if record else 0}/{trial.epochs}",
                f"{metrics['loss']:.3f}" if "loss" in metrics else "",
                f"{100 * top1:.2f} %" if top1 is not None else "",
                format_count(cost) if cost is not None else "",
                format_count(target) if target is not None else "",
            )
        return table
