"""``nas bench``: the papers' comparison on the device at hand."""

from __future__ import annotations

import csv
import signal
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nas.commands.options import console, note, plain_table, say
from nas.errors import InputError, JobError

if TYPE_CHECKING:
    from nas.bench.measuring import BenchSettings, Visit
    from nas.bench.published import Published
    from nas.bench.results import Results

_TIMING = "How it is timed"
_CPU_BATCH, _CUDA_BATCH = 8, 256


class RuntimeName(StrEnum):
    """Runtimes of the networks."""

    TORCH = "torch"
    COMPILE = "compile"
    ONNX = "onnx"


class DeviceName(StrEnum):
    """Devices of the networks."""

    CPU = "cpu"
    CUDA = "cuda"


def bench(
    models: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="GLOB", help="Names such as 'partialnet*', published or timm's. \\[all]"),
    ] = None,
    device: Annotated[
        DeviceName | None,
        typer.Option("--device", help="Device. \\[cuda if there is a GPU, else cpu]", rich_help_panel=_TIMING),
    ] = None,
    runtime: Annotated[
        RuntimeName | None,
        typer.Option("--runtime", help="Runtime. \\[compile on a GPU, else torch]", rich_help_panel=_TIMING),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=1024, help="Threads of the processor.", rich_help_panel=_TIMING)
    ] = 1,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            max=4096,
            help=f"Images in a pass of the throughput. \\[{_CUDA_BATCH} on a GPU, else {_CPU_BATCH}]",
            rich_help_panel=_TIMING,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PIXELS",
            min=16,
            max=1024,
            help="Height and width of all images. \\[those of the published figures: 224 for most]",
            rich_help_panel=_TIMING,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, help="Time for each network.", rich_help_panel=_TIMING)
    ] = 6.0,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="Rounds that share these seconds.", rich_help_panel=_TIMING)
    ] = 3,
    results: Annotated[
        Path, typer.Option("--results", metavar="FILE", help="File of JSON lines that keeps each figure at once.")
    ] = Path("nas-bench.jsonl"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, and replace the kept figures.")] = False,
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time", help="Show the processor's time of one thread, without delays by other work."
        ),
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: all figures in full.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw accuracy against speed: .html, .png, .svg or .pdf."),
    ] = None,
) -> None:
    """Measure the papers' networks here, beside their published figures.

    Parameters, multiply-adds, latency and throughput of our variants and of those networks of the papers' table that
    timm has. All networks take turns, round by round. All of them take a quarter of an hour on one core. Each figure is
    kept at once, and the same command continues after an interruption. The published figures are for 224x224 pixels, or
    for the size in the table.

    \b
    Examples:
      nas bench --plot accuracy.html
      nas bench --models 'partialnet*' --models 'fasternet*' --threads 4
      nas bench --csv > table.csv
    """
    from nas.plots.save import check_figure_path

    if plot is not None:
        check_figure_path(plot)
    from nas.bench.published import MODELS, choose

    chosen = choose(models or ())
    settings = _settings(device, runtime, threads, batch, size, seconds, rounds)
    if processor_time and (settings.device != "cpu" or settings.threads > 1):
        raise InputError("--processor-time works only with --device cpu and --threads 1")
    from nas.bench.results import Results

    kept = Results(results, settings.circumstances())
    if fresh:
        kept.forget(row.network for row in chosen)
    try:
        failed = _measure(chosen, settings, kept)
    except KeyboardInterrupt:
        note(f"stopped; {results} keeps the figures, and the same command continues")
        raise typer.Exit(130) from None
    _show(chosen, kept, processor_time=processor_time, as_csv=as_csv, plot=plot)
    if failed:
        count = sum(row.network in MODELS for row in chosen)
        raise JobError(f"{len(failed)} of {count} networks could not be measured: {', '.join(failed)}")


def _settings(
    device: DeviceName | None,
    runtime: RuntimeName | None,
    threads: int,
    batch: int | None,
    size: int | None,
    seconds: float,
    rounds: int,
) -> BenchSettings:
    import torch

    from nas.bench.measuring import BenchSettings
    from nas.probes.runtimes import check_runtime

    where = device or (DeviceName.CUDA if torch.cuda.is_available() else DeviceName.CPU)
    on_gpu = where is DeviceName.CUDA
    how = runtime or (RuntimeName.COMPILE if on_gpu else RuntimeName.TORCH)
    check_runtime(how.value, where.value)
    images = batch or (_CUDA_BATCH if on_gpu else _CPU_BATCH)
    return BenchSettings(how.value, where.value, threads, images, size, seconds, rounds)


def _measure(chosen: Sequence[Published], settings: BenchSettings, kept: Results) -> list[str]:
    """Measure the missing figures, with a line for each visit; return the networks that failed."""
    from nas.bench.measuring import measure

    out, failed = console(stderr=True), []
    bar = Progress(
        TextColumn("measuring"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    task = bar.add_task("", total=None)
    with bar, _noticed() as interrupted:
        for visit in measure(chosen, settings, kept, lambda: say(out, "waiting: another probe uses the device ...")):
            if interrupted:
                raise KeyboardInterrupt
            bar.update(task, completed=visit.position, total=visit.visits)
            say(out, _visit_text(visit, settings, kept))
            if visit.reason is not None:
                failed.append(visit.network)
    return failed


@contextmanager
def _noticed() -> Iterator[list[int]]:
    """Count interruptions besides raising them: one that is raised inside a library's native code can get lost."""
    signals: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)


def _visit_text(visit: Visit, settings: BenchSettings, kept: Results) -> str:
    start = f"round {visit.rounds[-1] + 1}/{settings.rounds}  {visit.network:<20}"
    if visit.reason is not None:
        return f"{start}  failed: {visit.reason}"
    latency, passes = (
        statistics.median(
            ms
            for line in kept.lines
            if (line.network, line.what) == (visit.network, what) and line.round in visit.rounds
            for ms in line.figures["ms"]
        )
        for what in ("latency", "throughput")
    )
    return f"{start}  {latency:8.2f} ms  {1e3 * settings.batch / passes:8.1f} images/s"


def _show(
    chosen: Sequence[Published], kept: Results, *, processor_time: bool, as_csv: bool, plot: Path | None
) -> None:
    from nas.bench.table import HEADS, csv_rows, make_rows, row_texts, sentences

    rows = make_rows(chosen, kept, processor_time=processor_time)
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(csv_rows(rows, kept.circumstances))
    else:
        out = console()
        table = plain_table(*HEADS, right=HEADS[1:])
        for row in rows:
            table.add_row(*row_texts(row), style="bold" if row.published.family == "PartialNet" else None)
        out.print(table)
        for sentence in sentences(rows, kept.circumstances):
            say(out, sentence)
        if processor_time:
            say(out, "times are the processor's own, without delays by other work on the machine")
    if plot is not None:
        from nas.plots.published import comparison_figure, comparison_info
        from nas.plots.save import save_figure

        save_figure(comparison_figure(comparison_info(rows, title=_title(kept.circumstances, processor_time))), plot)
        note(f"wrote {plot}")


def _title(circumstances: Mapping[str, Any], processor_time: bool) -> str:
    threads = circumstances["threads"]
    used = f", {threads} thread{'s' if threads > 1 else ''}" if circumstances["device"] == "cpu" else ""
    what = "processor's time" if processor_time else "speed"
    return f"Published accuracy, {what} on {circumstances['device_name']}{used} ({circumstances['runtime']})"
