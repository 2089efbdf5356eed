"""``nas probe``: latency of one network, latency tables of a device, and the server that times for another machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nas.commands.model import NetworkRef, Options, Ratio, Size, load_named, parse_options
from nas.commands.options import console, note, plain_table, say
from nas.definition.sections import LatencySpec
from nas.definition.words import in_words
from nas.errors import InputError
from nas.probes.server import PORT, TOKEN_VARIABLE
from nas.settings import check_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from nas.metrics import Measurement
    from nas.probes.table import DeviceTable, Step, TableJob
    from partialnet.search.latency_parts import RowKey

_TIMING = "How it is timed"
_USUAL_KERNEL = 3

Runtime = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="torch, compile or onnx.", rich_help_panel=_TIMING)
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Device: cpu or cuda.", rich_help_panel=_TIMING)
]
Threads = Annotated[
    int, typer.Option("--threads", metavar="N", help="Threads of the processor.", rich_help_panel=_TIMING)
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Images in a pass.", rich_help_panel=_TIMING)]
Interval = Annotated[
    float,
    typer.Option(
        "--interval",
        metavar="SHARE",
        help="Width of the 95 % interval from which on a timing may end, as a share of the figure.",
        rich_help_panel=_TIMING,
    ),
]
Seconds = Annotated[
    float,
    typer.Option("--seconds", metavar="S", help="A timing ends after this time in any case.", rich_help_panel=_TIMING),
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="URL", help="Machine that runs nas probe serve, such as http://192.168.1.7:8766."),
]
Token = Annotated[
    str | None, typer.Option("--token", metavar="TOKEN", help=f"Token of that server \\[{TOKEN_VARIABLE}]")
]


def network(
    reference: NetworkRef,
    size: Size = None,
    ratio: Ratio = None,
    option: Options = None,
    runtime: Runtime = "torch",
    device: Device = "cpu",
    threads: Threads = 1,
    batch: Batch = 1,
    interval: Interval = 0.02,
    seconds: Seconds = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: all figures in full.")] = False,
) -> None:
    """Measure the latency of a network, in turn with a reference network.

    Both run pass by pass, so that a drift of the machine cancels in their ratio. Passes are added until the 95 %
    interval of the ratio is narrow enough. Interrupted passes are left out. If the device is throttled or shared, the
    output says so.

    \b
    Examples:
      nas probe network t0
      nas probe network my-network --runtime onnx --threads 2
      nas probe network resnet50 --size 160 --json
    """
    spec = _spec(runtime, device, threads, batch, interval, seconds)
    loaded = load_named(reference, size, ratio, option)
    from nas.probes.latency import probe_latency

    found = probe_latency(loaded.network, loaded.input_shape, spec)
    if as_json:
        print(json.dumps({"network": loaded.title, **_as_json(found)}, indent=2))
        return
    out, figures = console(), found.figures
    low, high = figures["interval"]
    say(out, loaded.title, style="bold")
    spread = f"95 % interval {low:.3f} to {high:.3f}, p90 {figures['p90']:.3f}"
    say(out, f"{found.value:.3f} ms, {spread}, n = {figures['n']}")
    say(out, f"{figures['ratio']:.4f} times the reference network, which took {figures['reference_ms']:.3f} ms")
    say(out, found.fingerprint)
    for fault in figures["faults"]:
        say(out, f"uncertain: {fault}")


def _as_json(found: Measurement) -> Mapping[str, Any]:
    return {
        "metric": found.metric,
        "value": found.value,
        "fingerprint": found.fingerprint,
        "figures": dict(found.figures),
    }


def table(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A variant (t2, partialnet_t2, micro), any network of timm (its convolutions become partial), an "
            "architecture.json, an exported folder, or a study's definition (*.yaml), which also says how to time.",
        ),
    ],
    size: Size = None,
    option: Options = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="NAME", help="torch, compile or onnx.", rich_help_panel=_TIMING)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="Device: cpu or cuda.", rich_help_panel=_TIMING),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", help="Threads of the processor.", rich_help_panel=_TIMING),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", help="Images in a pass.", rich_help_panel=_TIMING)
    ] = None,
    interval: Interval = 0.02,
    seconds: Seconds = 10.0,
    whole: Annotated[
        int,
        typer.Option(
            "--whole", metavar="N", min=0, max=1000, help="Whole networks that correct the rows; 0 for none."
        ),
    ] = 16,
    on: On = None,
    token: Token = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the table to this file (*.json).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again instead of reading the cache.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the file of the table.")] = False,
) -> None:
    """Measure the time of each layer of a network at each level of its split.

    The sum of the layers and a constant predicts the latency of any network with these layers. Some whole networks are
    measured as well; they correct the layers' times and show the error of the predictions. The table is kept in the
    user's cache for this network, device, runtime and settings. A study uses it with latency: {table: auto}, or with
    the name of a file under a data root.

    \b
    Examples:
      nas probe table t0 --runtime onnx
      nas probe table studies/digits_quickstart.yaml --out digits-table.json
      nas probe table t0 --size 160 --on http://192.168.1.7:8766 --token TOKEN --out board.json
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    given = {"runtime": runtime or ("onnx" if on else None), "device": device, "threads": threads, "batch": batch}
    asked = _searchable(reference, size, option)
    spec = _checked({**asked.spec, **_given(given), "interval": interval, "seconds": seconds})
    found, known = _measured(asked, spec, whole, on, token, fresh)
    if out is not None:
        _save(found, out)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        _print_table(found)
    if known:
        note("read from the cache; --fresh measures again")


class _Asked(NamedTuple):
    model: nn.Module
    input_shape: tuple[int, int, int]
    title: str
    spec: Mapping[str, Any]
    """Settings of the timing that the reference gives."""


def _searchable(reference: str, size: int | None, option: list[str] | None) -> _Asked:
    """Return the network with splits to be learned that a command line names."""
    if reference.endswith((".yaml", ".yml")):
        if size is not None or option:
            raise InputError(f"--size and --option work only with a network; {reference} fixes both")
        return _of_definition(Path(reference))
    from nas.networks.named import load_network
    from partialnet.models.partialnet import PartialNet
    from partialnet.networks import create
    from partialnet.retrofit import convert_to_patconv

    loaded = load_network(reference, size=size, options=parse_options(option or ()))
    if not isinstance(loaded.network, PartialNet):
        model, _ = convert_to_patconv(loaded.network, searchable=True)
        return _Asked(model, loaded.input_shape, loaded.title, {})
    architecture = loaded.network.architecture()
    return _Asked(create(architecture, searchable=True), loaded.input_shape, architecture.model, {})


def _of_definition(path: Path) -> _Asked:
    from nas.definition.study import load_study
    from nas.training.build import build_network
    from nas.training.feasibility import class_count

    definition = load_study(path).shaped({})
    spec = {} if definition.latency is None else definition.latency.model_dump(exclude={"interval", "seconds"})
    model = build_network(definition, class_count(definition))
    return _Asked(model, definition.data.input_shape, definition.model.model, spec)


def _measured(
    asked: _Asked, spec: LatencySpec, whole: int, on: str | None, token: str | None, fresh: bool
) -> tuple[DeviceTable, bool]:
    from nas.probes.table import build_local_table, build_table, cached_table, local_job

    if on is None:
        if token is not None:
            raise InputError("--token works only with --on")
        job = local_job(asked.model, asked.input_shape, asked.title, spec, whole=whole)
        with table_progress() as tell:
            return cached_table(job, lambda: build_local_table(job, tell), fresh=fresh)
    from nas.probes.remote import RemoteTimer, remote_job

    key = token or os.environ.get(TOKEN_VARIABLE)
    if not key:
        raise InputError(f"--on {on}: the token is missing; give --token or {TOKEN_VARIABLE}")
    with RemoteTimer(on, key, spec, asked.input_shape) as timer, table_progress() as tell:
        far: TableJob = remote_job(
            asked.model, asked.input_shape, asked.title, spec, timer.device(), whole=whole
        )
        return cached_table(far, lambda: build_table(far, timer, tell), fresh=fresh)


@contextmanager
def table_progress() -> Iterator[Callable[[Step], None]]:
    """Yield a function that shows the steps of a table's measurement on a terminal."""
    out = console(stderr=True)
    bar = Progress(
        TextColumn("measuring latency"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    task = bar.add_task("", total=None)

    def tell(step: Step) -> None:
        bar.update(task, completed=step.position - 1, total=step.total, description=step.what)
        # A file or a pipe gets about ten lines instead of a bar.
        if not out.is_terminal and (step.position == 1 or step.position % max(1, step.total // 10) == 0):
            note(f"measuring latency, {step.position} of {step.total}: {step.what}")

    with bar:
        yield tell


def _save(found: DeviceTable, path: Path) -> None:
    try:
        found.save(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written to ({error.strerror or error})") from error
    note(f"wrote {path}")


def _row_kind(key: RowKey) -> str:
    from partialnet.search.latency_parts import MlpKey, ThreePartKey

    if isinstance(key, MlpKey):
        return "MLP, hidden channels"
    kernel = "" if key.kernel_size == _USUAL_KERNEL else f", {key.kernel_size}x{key.kernel_size}"
    attended = f" on {key.attended_channels}" if isinstance(key, ThreePartKey) else ""
    return key.rest.replace("_", " ") + attended + kernel


def _print_table(found: DeviceTable) -> None:
    out = console()
    heads = ("map", "channels", "active", "ms", "spread ms", "n", "rest")
    shown = plain_table(*heads, right=heads[:-1])
    for key, timing in found.table.rows.items():
        shown.add_row(
            f"{key.height}x{key.width}",
            str(key.channels),
            str(key.level),
            f"{timing.ms:.4f}",
            f"{timing.spread_ms:.4f}",
            str(timing.repetitions),
            _row_kind(key),
        )
    say(out, found.title, style="bold")
    out.print(shown)
    if found.table.constant is not None:
        say(out, f"constant: {found.table.constant.ms:.3f} ms")
    say(out, found.fingerprint)
    say(out, found.check.sentence() if found.check else "not corrected by whole networks, so its error is unknown")
    for fault in found.faults:
        say(out, f"uncertain: {fault}")


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all addresses.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port; 0 for a free one.")
    ] = PORT,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help=f"Token; by default a new one \\[{TOKEN_VARIABLE}]"),
    ] = None,
    max_mib: Annotated[
        int, typer.Option("--max-mib", metavar="N", min=1, max=4096, help="Largest ONNX file in MiB.")
    ] = 512,
    path: Annotated[
        bool, typer.Option("--path", help="Print the path of the server's file, which runs alone, and exit.")
    ] = False,
) -> None:
    """Time networks on this machine for a probe that runs elsewhere.

    It runs ONNX files that it receives under a token, in ONNX Runtime on the processor, and returns times. A machine
    without this product needs only Python, onnxruntime, numpy and one file: copy what --path prints, and start it with
    python server.py.

    \b
    Examples:
      nas probe serve
      nas probe serve --host 0.0.0.0 --port 9000
      scp $(nas probe serve --path) board: && ssh board python3 server.py --host 0.0.0.0
    """
    from nas.commands.serve import is_loopback
    from nas.probes import server

    if path:
        print(server.__file__)
        return
    given = token or os.environ.get(TOKEN_VARIABLE)
    if given is not None:
        check_token(given, "--token" if token else TOKEN_VARIABLE)
    if not is_loopback(host):
        note(
            f"warning: {host} is reachable from other machines, and the connection is not encrypted: everyone who has "
            "the token can run networks here"
        )
    try:
        server.serve(host, port, given, max_mib)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on --host {host} --port {port}: {reason}; choose another one") from error


def _spec(runtime: str, device: str, threads: int, batch: int, interval: float, seconds: float) -> LatencySpec:
    return _checked(
        {
            "runtime": runtime,
            "device": device,
            "threads": threads,
            "batch": batch,
            "interval": interval,
            "seconds": seconds,
        }
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _checked(values: Mapping[str, Any]) -> LatencySpec:
    try:
        return LatencySpec(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}" if first["loc"] else "latency"
        shown = f" (got {first['input']!r})" if first["loc"] else ""
        raise InputError(f"{where}: {in_words(first)}{shown}") from None

