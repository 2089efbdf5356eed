"""``nas model``: shows a network layer by layer."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from nas.commands.options import console, note, plain_table, say
from nas.definition.space import parse_ratio
from nas.definition.text import parse_yaml
from nas.errors import InputError, one_line
from nas.versions import versions

if TYPE_CHECKING:
    from nas.definition.sections import LatencySpec
    from nas.networks.named import LoadedNetwork
    from nas.probes.layers import LayerTable

_TIMING = "How it is timed"

NetworkRef = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="A variant (t2, partialnet_t2, patnet_t2, micro), any network of timm, an architecture.json, or an "
        "exported folder.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--size", metavar="PIXELS", min=1, max=4096, help="Height and width of the image; its own if absent."),
]
Ratio = Annotated[
    str | None,
    typer.Option("--ratio", metavar="R", help="Uniform split such as 1/8, for names only; converts networks of timm."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Constructor argument, for names only, e.g. depths=[2,2,8,2]."),
]


def model(
    network: NetworkRef,
    size: Size = None,
    ratio: Ratio = None,
    option: Options = None,
    training_form: Annotated[
        bool, typer.Option("--training-form", help="Show the training form, not the inference form with folded norms.")
    ] = False,
    depth: Annotated[
        int,
        typer.Option("--depth", metavar="N", min=1, help="Depth of the shown modules; deeper ones count towards them."),
    ] = 5,
    no_time: Annotated[bool, typer.Option("--no-time", help="Count, but measure no time.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, rich_help_panel=_TIMING)] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, max=4096, rich_help_panel=_TIMING)] = 1,
    passes: Annotated[int, typer.Option("--n", min=10, max=100_000, help="Pass count.", rich_help_panel=_TIMING)] = 30,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="Device: cpu or cuda.", rich_help_panel=_TIMING)
    ] = "cpu",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML page that works alone.")
    ] = None,
) -> None:
    """Show a network layer by layer: channels, active channels, multiply-adds, parameters, time.

    By default, the inference form is counted, as in all other commands, and the rows sum up to their totals. Times are
    medians with a clock at each layer.

    \b
    Examples:
      nas model partialnet_t2
      nas model t0 --ratio 1/8 --size 192 --no-time
      nas model my-network --depth 9 --csv > layers.csv
      nas model resnet50 --depth 2 --html resnet50.html
      nas model t2 --option depths=[2,2,8,2] --option use_spatial_attn=false
    """
    if as_csv and as_json:
        raise InputError("--csv and --json exclude each other")
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu or cuda, but got {device!r}")
    if html is not None and not html.absolute().parent.is_dir():
        raise InputError(f"--html {html}: the folder {html.absolute().parent} does not exist")
    from nas.definition.sections import LatencySpec
    from nas.probes.layers import probe_layers
    from partialnet.fuse import fuse

    loaded = load_named(network, size, ratio, option)
    spec = None
    if not no_time:
        where: Any = device
        spec = LatencySpec(device=where, threads=threads, batch=batch, warmup=3, n=passes)
    judged = loaded.network if training_form else fuse(loaded.network)
    table = probe_layers(judged, loaded.input_shape, depth=depth, spec=spec)
    sentences = _sentences(table, loaded, training_form, spec)
    if as_csv:
        _print_csv(table)
    elif as_json:
        print(json.dumps(_as_json(table, loaded, training_form), indent=2))
    else:
        _print_table(table, loaded, sentences)
    if html is not None:
        _write_page(html, table, loaded, sentences)


def load_named(reference: str, size: int | None, ratio: str | None, option: Sequence[str] | None) -> LoadedNetwork:
    """Return the network that a command line names.

    Raises:
        InputError: If an option has no value, or the ratio is invalid.
    """
    from nas.networks.named import load_network

    try:
        share = None if ratio is None else parse_ratio(ratio)
    except ValueError as error:
        raise InputError(f"--ratio: {error}") from None
    return load_network(reference, size=size, ratio=share, options=parse_options(option or ()))


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """Return the constructor arguments of a command line.

    Raises:
        InputError: If one has no value, or the value is not valid YAML.
    """
    options = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key.isidentifier():
            raise InputError(f"--option {text}: give KEY=VALUE, such as depths=[2,2,8,2]")
        try:
            options[key] = parse_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"--option {text}: the value is not valid YAML ({one_line(error)})") from None
    return options


def _sentences(table: LayerTable, loaded: LoadedNetwork, training_form: bool, spec: LatencySpec | None) -> list[str]:
    from nas.networks.named import is_ours
    from nas.probes.layers import describe_device

    form = "training form" if training_form else "inference form"
    if not training_form and not is_ours(loaded.network):
        form += " (nothing to fold in this family)"
    image = "x".join(map(str, table.input_shape))
    found = [f"{form}; multiply-adds of one image of {image}, as fvcore counts them with attention's products"]
    if table.uncounted:
        names = ", ".join(f"{name.removeprefix('aten::')} x{count}" for name, count in table.uncounted.items())
        found.append(f"not counted: {names}")
    if table.times is not None and spec is not None:
        times = table.times
        low, high = times.plain_interval
        found.append(
            f"times: medians of n = {times.n} passes with a clock at each layer ({describe_device(spec)}), in ms; "
            "between the layers are splits, concatenations, sums and functions without a layer"
        )
        found.append(
            f"passes without clocks, in turn with them: median {times.plain_ms:.3f} ms, 95 % interval {low:.3f} to "
            f"{high:.3f}"
        )
    return [*loaded.notes, *found]


def _print_table(table: LayerTable, loaded: LoadedNetwork, sentences: Sequence[str]) -> None:
    from nas.plots.layer_table import HEADS, row_texts, total_texts

    def arranged(texts: tuple[str, ...]) -> list[str]:
        # texts at the end, where they wrap in a narrow terminal
        layer, kind, *figures = texts if table.times is not None else texts[:-2]
        return [layer, *figures, kind]

    out = console()
    heads = arranged(HEADS)
    shown = plain_table(*heads, right=[name for name in heads if name not in ("layer", "kind", "output")])
    for row in table.rows:
        shown.add_row(*arranged(row_texts(row, table.share(row))))
    for texts in total_texts(table):
        shown.add_row(*arranged(texts), style="bold")
    say(out, loaded.title, style="bold")
    out.print(shown)
    for sentence in sentences:
        say(out, sentence)


def _as_json(table: LayerTable, loaded: LoadedNetwork, training_form: bool) -> Mapping[str, Any]:
    return {
        "network": loaded.title,
        "form": "training" if training_form else "inference",
        "input_shape": list(table.input_shape),
        "macs": table.macs,
        "params": table.params,
        "uncounted": dict(table.uncounted),
        "times": None if table.times is None else table.times._asdict(),
        "layers": [{**row._asdict(), "share": table.share(row)} for row in table.rows],
        "versions": versions(),
    }


def _print_csv(table: LayerTable) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    fields = ("layer", "kind", "channels", "active_channels", "output", "macs", "params", "time_ms", "share")
    writer.writerow(fields)
    for row in table.rows:
        values = {**row._asdict(), "output": "x".join(map(str, row.output)), "share": table.share(row)}
        writer.writerow(["" if values[name] is None else values[name] for name in fields])


def _write_page(path: Path, table: LayerTable, loaded: LoadedNetwork, sentences: Sequence[str]) -> None:
    from nas.plots.layer_table import network_page
    from nas.plots.page import render

    made_with = ", ".join(f"{name} {number}" for name, number in versions().items())
    colophon = f"Made by nas model on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC with {made_with}."
    try:
        path.write_text(render(network_page(table, loaded.title, sentences, colophon)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written to ({error.strerror})") from error
    note(f"wrote {path}")
