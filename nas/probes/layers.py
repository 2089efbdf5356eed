"""A network layer by layer: shapes, active channels, multiply-adds, parameters, and time by a clock at each layer.

Multiply-adds are those of ``nas.probes.flops``, split by module: rows sum up to its total. A clock at each layer slows
a pass down, so passes with and without clocks are timed in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError, one_line
from nas.formatting import format_number
from nas.probes.device import device_name, device_versions, float32_arithmetic
from nas.probes.flops import count_operations, count_parameters
from nas.probes.latency import latency_fingerprint
from nas.probes.timers import exclusive, thread_limit
from nas.probes.timing import median, median_interval
from partialnet.errors import PartialNetError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.calls import evaluating
from partialnet.search.operations import example_input


class LayerRow(NamedTuple):
    """One layer, or the operations of a container outside its layers."""

    layer: str
    """Name of the module."""
    kind: str
    channels: int | None
    """Channels of the output; None if it has none or the layer is never called."""
    active_channels: int | None
    """Convolved channels of a partial convolution."""
    output: tuple[int, ...]
    """Shape of the last call's output without the batch; empty if the layer is never called."""
    macs: int
    """Multiply-adds for one image."""
    params: int
    time_ms: float | None = None
    """Median time in milliseconds of its calls in one pass over a batch; None if nothing was timed."""


class LayerTimes(NamedTuple):
    """The times that the shares of a table refer to."""

    n: int
    clocked_ms: float
    """Time of a pass with a clock at each layer: the sum of the medians of the layers and of what lies between them."""
    between_ms: float
    """Part of that time between the layers: splits, concatenations, sums and functions that belong to no layer."""
    plain_ms: float
    """Median of a whole pass without clocks. Other work on the machine lengthens it more than the sum of medians."""
    plain_interval: tuple[float, float]
    """95 % interval of that median."""
    fingerprint: str


class LayerTable(NamedTuple):
    """A network layer by layer."""

    rows: tuple[LayerRow, ...]
    macs: int
    params: int
    uncounted: Mapping[str, int]
    """Number of calls of each operator that the multiply-adds leave out."""
    input_shape: tuple[int, int, int]
    times: LayerTimes | None

    def share(self, row: LayerRow) -> float | None:
        """Return a row's share of the time of a pass with clocks."""
        return None if self.times is None or row.time_ms is None else row.time_ms / self.times.clocked_ms


class _Shown(NamedTuple):
    layers: dict[str, nn.Module]
    """Modules with a row of their own."""
    containers: dict[str, nn.Module]
    """Modules that contain layers, including the network itself."""


def probe_layers(
    network: nn.Module, input_shape: tuple[int, int, int], *, depth: int, spec: LatencySpec | None = None
) -> LayerTable:
    """Count, and time, each layer of a network in its present form; bring it into the inference form first.

    Args:
        network: Network in eval mode; it is moved to the device of ``spec``.
        input_shape: Shape of one image: channels, height, width.
        depth: Depth of the module tree; a deeper module counts towards the module above it.
        spec: Settings of the timing; None for none.

    Raises:
        InputError: If the network does not run on such an image, or the device is missing.
    """
    shown = _choose(network, depth)
    shapes = _output_shapes(network, shown.layers, input_shape)
    with evaluating(network):
        operations = count_operations(network, input_shape)
    times: dict[str, float] = {}
    timing = None
    if spec is not None:
        times, timing = _time(network, shown, input_shape, spec)
    rows = []
    for name, module in network.named_modules():
        if name in shown.layers:
            channels = _channels(module, shapes.get(name), last=getattr(network, "output_fmt", "") == "NHWC")
            macs, time_ms = operations.by_module.get(name, 0), times.get(name)
            rows.append(_layer_row(name, module, shapes.get(name, ()), channels, macs, time_ms))
        elif name in shown.containers:
            rows += _own_row(name, module, shown, operations.by_module, times)
    kept = tuple(row for row in rows if row.output or row.params or row.macs)
    if timing is not None:
        timing = timing._replace(between_ms=timing.clocked_ms - sum(row.time_ms or 0.0 for row in kept))
    macs, params = sum(operations.counted.values()), count_parameters(network)
    return LayerTable(kept, macs, params, operations.uncounted, input_shape, timing)


def _choose(network: nn.Module, depth: int) -> _Shown:
    """Return the modules that get a row, and those above them. A module that occurs twice is shown once."""
    shown, seen = _Shown({}, {}), set()

    def walk(name: str, module: nn.Module, level: int) -> None:
        if module in seen or (isinstance(module, nn.Identity) and name):
            return
        seen.add(module)
        children = list(module.named_children())
        if level and (level == depth or not children):
            shown.layers[name] = module
            seen.update(module.modules())
            return
        shown.containers[name] = module
        for child, part in children:
            walk(f"{name}.{child}" if name else child, part, level + 1)

    walk("", network, 0)
    return shown


def _output_shapes(
    network: nn.Module, layers: Mapping[str, nn.Module], input_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape[1:])

    handles = [
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(network):
            network(example_input(network, input_shape))
    except PartialNetError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        image = "x".join(map(str, input_shape))
        reason = one_line(error)
        raise InputError(f"{type(network).__name__} cannot process an image of {image}: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _layer_row(
    name: str, module: nn.Module, output: tuple[int, ...], channels: int | None, macs: int, time_ms: float | None
) -> LayerRow:
    active = module.active_channels if isinstance(module, (PartialConv2d, DPConv2d)) else None
    return LayerRow(
        name,
        layer_kind(module),
        channels,
        active,
        output,
        macs,
        count_parameters(module),
        time_ms,
    )


def _own_row(
    name: str, module: nn.Module, shown: _Shown, by_module: Mapping[str, int], times: Mapping[str, float]
) -> list[LayerRow]:
    """Return a row for the operations and parameters of a container itself, if there are any."""
    prefix = f"{name}." if name else ""
    below = [
        other
        for other in (*shown.layers, *shown.containers)
        if other and other.startswith(prefix) and "." not in other.removeprefix(prefix)
    ]
    macs = by_module.get(name, 0) - sum(by_module.get(other, 0) for other in below)
    params = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    if not macs and not params:
        return []
    return [LayerRow(name, f"{type(module).__name__}, itself", None, None, (), macs, params, times.get(name))]


def layer_kind(module: nn.Module) -> str:
    """Describe a module in a few words, such as ``Conv2d 3x3 depthwise``."""
    name = type(module).__name__
    if isinstance(module, (PartialConv2d, DPConv2d)):
        rest = "" if module.rest_kind == "identity" else f" + {module.rest_kind.replace('_', ' ')}"
        return f"{name} {module.kernel_size}x{module.kernel_size}{rest}"
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        depthwise = 1 < module.groups == module.in_channels
        groups = " depthwise" if depthwise else f" in {module.groups} groups" if module.groups > 1 else ""
        return f"{name} {height}x{width}{stride}{groups}"
    return name


def _channels(module: nn.Module, output: tuple[int, ...] | None, *, last: bool) -> int | None:
    """Return the number of channels of an output; ``last`` says that maps of this network are [H, W, C]."""
    if output is None:
        return None
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    # other maps are [C, H, W], tokens [N, C], vectors [C]
    return None if not output else output[0] if len(output) == 3 and not last else output[-1]


class _Clocks:
    """Times of modules by name in a pass; a container's time excludes the layers in it."""

    def __init__(self, shown: _Shown, synchronize: Callable[[], object]) -> None:
        self._shown = shown
        self._synchronize = synchronize
        self._open: list[tuple[int, int]] = []  # start of each open module, and time within its layers, in ns
        self.passes: list[dict[str, float]] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        handles = []
        for name, module in (*self._shown.containers.items(), *self._shown.layers.items()):
            handles.append(module.register_forward_pre_hook(self._start))
            handles.append(module.register_forward_hook(self._stopper(name)))
        self.passes.append({})
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _start(self, _module: nn.Module, _inputs: Any) -> None:
        self._synchronize()
        self._open.append((time.perf_counter_ns(), 0))

    def _stopper(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def stop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            self._synchronize()
            start, within = self._open.pop()
            whole = time.perf_counter_ns() - start
            if self._open:
                above, spent = self._open[-1]
                self._open[-1] = (above, spent + whole)
            times = self.passes[-1]
            times[name] = times.get(name, 0.0) + (whole - within) / 1e6

        return stop


def _time(
    network: nn.Module, shown: _Shown, input_shape: tuple[int, int, int], spec: LatencySpec
) -> tuple[dict[str, float], LayerTimes]:
    """Return the median time of each module and of the passes; passes with and without clocks take turns."""
    fingerprint = latency_fingerprint(spec, input_shape)
    synchronize: Callable[[], object] = torch.cuda.synchronize if spec.device == "cuda" else (lambda: None)
    images = torch.randn(spec.batch, *input_shape, generator=torch.Generator().manual_seed(0)).to(spec.device)
    network.to(spec.device)
    clocks, plain = _Clocks(shown, synchronize), []
    with exclusive(spec.device), thread_limit(spec.threads), torch.inference_mode():
        for _ in range(spec.warmup + spec.n):
            with clocks.attached():
                network(images)
            start = time.perf_counter_ns()
            network(images)
            synchronize()
            plain.append((time.perf_counter_ns() - start) / 1e6)
    passes, plain = clocks.passes[spec.warmup :], sorted(plain[spec.warmup :])
    names = dict.fromkeys(name for times in passes for name in times)
    medians = {name: median([times.get(name, 0.0) for times in passes]) for name in names}
    clocked = sum(medians.values())
    return medians, LayerTimes(spec.n, clocked, 0.0, median(plain), median_interval(plain), fingerprint)


def describe_device(spec: LatencySpec) -> str:
    """Return the device and settings of a timing, for people."""
    where = device_name(spec.device)
    if spec.device == "cpu":
        return f"{where}, {format_number(spec.threads, 'thread')}, batch {spec.batch}"
    convolutions, products = float32_arithmetic(spec.device)
    versions = ", ".join(f"{name} {version}" for name, version in device_versions(spec.device).items())
    return f"{where}, batch {spec.batch}, float32 (convolutions {convolutions}, products {products}), {versions}"
