"""Bodies of what a study can use: data sets, models, methods, searchers, metrics, devices. Loads neither torch nor ray.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nas.metrics import Direction
from nas.wire.bodies import Body


class DatasetBody(Body):
    """A data set that definitions can name; whether its files are there is checked at the launch.

    Args:
        title: Description in one line.
        channels: Number of colour channels.
        size: Native height and width in pixels; None if images differ in size.
        classes: Number of classes; None if the folder decides.
    """

    name: str
    title: str
    channels: int
    size: int | None
    classes: int | None


class ModelBody(Body):
    """A variant of PartialNet that definitions can name.

    Args:
        depths: Number of blocks in each stage.
        embed_dim: Width of the first stage.
        input_size: Channels, height, width of the images that it was built for.
    """

    name: str
    embed_dim: int
    depths: tuple[int, ...]
    act_layer: str
    input_size: tuple[int, int, int]


class MethodBody(Body):
    """A method that learns split ratios.

    Args:
        space: Parameters of its own, with their default distributions.
        ends_with: Evaluation kind that its trials end with.
        yields_front: Whether one trial yields a network for each target.
    """

    name: str
    space: dict[str, Any]
    ends_with: str
    yields_front: bool


class SearcherBody(Body):
    """A searcher that proposes trials.

    Args:
        learns: Whether it learns from results.
        grid: Whether it proposes the points of a grid.
    """

    name: str
    learns: bool
    grid: bool


class MetricBody(Body):
    """A metric.

    Args:
        direction: Whether larger or smaller values are better.
        objective: Whether a study can have it as an objective.
        evaluated: Whether it is a score on data, of one evaluation kind.
    """

    name: str
    label: str
    direction: Direction
    objective: bool
    evaluated: bool


class DeviceBody(Body):
    """Circumstances that latencies were measured under.

    Args:
        fingerprint: Text that stands for the circumstances, by which a front chooses them.
        circumstances: Device, runtime, threads, batch and resolution of the newest measurement.
        measurements: Number of measured networks.
        measured_at: Time of the newest measurement.
    """

    fingerprint: str
    circumstances: dict[str, Any]
    measurements: int
    measured_at: datetime


class DatasetList(Body):
    """Known data sets."""

    datasets: tuple[DatasetBody, ...]
    count: int


class ModelList(Body):
    """Known variants; definitions can also convert models of timm (``timm/NAME``)."""

    models: tuple[ModelBody, ...]
    count: int


class SearcherList(Body):
    """Known searchers and methods."""

    searchers: tuple[SearcherBody, ...]
    methods: tuple[MethodBody, ...]
    count: int


class MetricList(Body):
    """Known metrics."""

    metrics: tuple[MetricBody, ...]
    count: int


class LatencyTableBody(Body):
    """A latency table of a device, which studies search with.

    Args:
        fingerprint: Text that stands for the device and the circumstances.
        network: Name of the network whose layers it holds.
        title: Device and circumstances in words.
        reference_ms: Latency of the whole network in milliseconds.
        studies: Names of the studies.
    """

    fingerprint: str
    network: str
    title: str
    reference_ms: float
    studies: tuple[str, ...]


class DeviceList(Body):
    """Devices with measured latencies, and the latency tables of studies."""

    devices: tuple[DeviceBody, ...]
    count: int
    tables: tuple[LatencyTableBody, ...] = ()
