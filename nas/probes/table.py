"""Latency tables of a device: the time of each layer of a network at each level of its choices.

Each row is timed alone, in turn with the reference network. Some whole networks are timed as well; they give the
constant and correct the rows (``nas.probes.fitting``). The error of a table is that of these networks, each predicted
from the others. A table belongs to a network, an image size and a fingerprint, and is kept in the user's cache under
these three.

A file is one JSON object: ``schema``, ``fingerprint``, ``network`` (hash of the searchable network and its input),
``title``, ``reference_ms``, ``check`` (the error), ``faults``, and ``table`` in the form of
``partialnet.search.latency_table``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.findings.milliseconds import TableCheck
from nas.probes.device import device_name
from nas.probes.fitting import NOISE, correct, rank_correlation
from nas.probes.latency import latency_fingerprint, runtime_name
from nas.probes.runtimes import example_images
from nas.probes.timers import LocalTimer, Timer, precision_of
from nas.probes.timing import Timing as Passes
from nas.probes.timing import median
from partialnet.data.cache import cache_directory
from partialnet.errors import BudgetError
from partialnet.fuse import fuse
from partialnet.json_text import read_json, write_json
from partialnet.layers.choice import Choice, at_levels, choices_of
from partialnet.layers.dpconv import dpconv_layers
from partialnet.models.block import Block
from partialnet.search.cost import inference_form
from partialnet.search.latency_parts import Circumstances, Constant, RowKey, Timing
from partialnet.search.latency_rows import LayerRows, calls_at, latency_rows, needs_mlps
from partialnet.search.latency_table import LatencyTable

SCHEMA = 1
WHOLE = 16
"""Number of whole networks that correct a table."""
_LEAST_WHOLE = 4
_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What is being timed."""

    position: int
    """Position among all timings, from 1."""
    total: int
    what: str


@dataclass(frozen=True)
class DeviceTable:
    """A latency table with its origin and its error.

    Args:
        fingerprint: Circumstances of its times; only figures with the same one can be compared.
        network: Hash of the searchable network and its input.
        title: Network and input in a few words.
        reference_ms: Milliseconds of the reference network to which all times refer.
        check: Error on whole networks; None if the rows were not corrected.
        faults: Reasons why its times are uncertain, one clause each.
        table: Times by row.
    """

    fingerprint: str
    network: str
    title: str
    reference_ms: float
    check: TableCheck | None
    faults: tuple[str, ...]
    table: LatencyTable

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "network": self.network,
            "title": self.title,
            "reference_ms": self.reference_ms,
            "check": None if self.check is None else asdict(self.check),
            "faults": list(self.faults),
            "table": self.table.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: object, source: str = "latency table") -> DeviceTable:
        """Read the JSON form.

        Raises:
            InputError: If it is not the form of a table; the message names the source, the field and the value.
        """
        names = {"schema", *(field.name for field in fields(cls))}
        if not isinstance(data, Mapping) or set(data) != names:
            wanted = ", ".join(sorted(names))
            raise InputError(f"{source}: is no table of nas probe table; it must be an object with the keys {wanted}")
        if data["schema"] != SCHEMA:
            raise InputError(f"{source}: schema is {data['schema']!r}, but this version reads {SCHEMA}")
        for name in ("fingerprint", "network", "title"):
            if not isinstance(data[name], str) or not data[name]:
                raise InputError(f"{source}: {name} is {data[name]!r}, but must be a text that is not empty")
        reference = data["reference_ms"]
        if isinstance(reference, bool) or not isinstance(reference, (int, float)) or not 0 < reference < math.inf:
            raise InputError(f"{source}: reference_ms is {reference!r}, but must be a positive number")
        try:
            check = None if data["check"] is None else _check_from(data["check"])
            faults = tuple(map(str, data["faults"]))
            table = LatencyTable.from_dict(data["table"], f"{source}: table")
        except (TypeError, BudgetError) as error:
            raise InputError(str(error) if isinstance(error, BudgetError) else f"{source}: {error}") from error
        return cls(data["fingerprint"], data["network"], data["title"], float(reference), check, faults, table)

    def save(self, path: Path) -> None:
        """Write the table as JSON, whole or not at all.

        Raises:
            OSError: If the file cannot be written.
        """
        write_json(self.to_dict(), path)

    @classmethod
    def load(cls, path: Path) -> DeviceTable:
        """Read a file.

        Raises:
            InputError: If it cannot be read, or is not a table; the message names the file.
        """
        return cls.from_dict(read_json(path, InputError), str(path))


def _check_from(data: Mapping[str, Any]) -> TableCheck:
    check = TableCheck(**data)
    for name, value in asdict(check).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"check.{name} is {value!r}, but must be a number")
    return check


def network_hash(model: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """Return a hash of the structure of a searchable network and of its input; values of weights do not count."""
    state = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    text = json.dumps([repr(model), state, list(input_shape)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TableJob:
    """A table to build.

    Args:
        model: Network with ``DPConv2d`` layers; it stays unchanged.
        input_shape: Shape of one image: channels, height, width.
        title: Name of the network.
        circumstances: Circumstances that all times share.
        fingerprint: Fingerprint of these circumstances.
        batch: Number of images in a pass.
        whole: Number of whole networks to time; 0 leaves the rows as timed alone, and the table without a constant.
        spec: Settings of the timings.
    """

    model: nn.Module
    input_shape: tuple[int, int, int]
    title: str
    circumstances: Circumstances
    fingerprint: str
    spec: LatencySpec
    whole: int = WHOLE

    def __post_init__(self) -> None:
        if self.whole and self.whole < _LEAST_WHOLE:
            raise InputError(f"{self.whole} whole networks cannot correct a table: use 0 or at least {_LEAST_WHOLE}")

    @property
    def network(self) -> str:
        """Hash of the network and its input."""
        return network_hash(self.model, self.input_shape)


def local_job(
    model: nn.Module, input_shape: tuple[int, int, int], title: str, spec: LatencySpec, *, whole: int = WHOLE
) -> TableJob:
    """Return the table of this machine to build; see :class:`TableJob`.

    Raises:
        InputError: If the device is missing, or lacks the runtime; or if ``whole`` is too small.
    """
    fingerprint = latency_fingerprint(spec, input_shape)
    where = Circumstances(
        device_name(spec.device), spec.threads, "float32", "channels_last", spec.batch, runtime_name(spec)
    )
    return TableJob(model, input_shape, title, where, fingerprint, spec, whole)


def build_local_table(job: TableJob, tell: Callable[[Step], object] = lambda _: None) -> DeviceTable:
    """Build a table of this machine; see :func:`build_table`."""
    with LocalTimer(job.spec, job.input_shape) as timer:
        return build_table(job, timer, tell)


def build_table(job: TableJob, timer: Timer, tell: Callable[[Step], object] = lambda _: None) -> DeviceTable:
    """Time each row of a network's table, and whole networks that correct them.

    Args:
        job: Table to build.
        timer: Timer of the device.
        tell: Function to call before each timing; an exception that it raises ends the building.

    Raises:
        ArchitectureError: If the network has no ``DPConv2d`` layer.
        BudgetError: If the network cannot process such images.
    """
    choices = choices_of(job.model)
    layers = latency_rows(
        job.model, job.input_shape, mlps=needs_mlps({choice.kind for choice in choices.values()})
    )
    dpconv_layers(job.model)
    rows = _rows(layers)
    networks = _spread_levels({name: len(choice.levels) for name, choice in choices.items()}, job.whole)
    total, alone, whole = len(rows) + len(networks), [], []
    for position, (key, (name, levels)) in enumerate(rows.items(), start=1):
        tell(Step(position, total, f"{name} at n = {key.level} of {key.channels}"))
        maps = example_images((key.channels, key.height, key.width), job.spec.batch)
        layer = _layer_at(job.model, name, levels)
        alone.append(timer.time(layer, maps.contiguous(memory_format=torch.channels_last)))
    for position, levels in enumerate(networks, start=len(rows) + 1):
        tell(Step(position, total, f"a whole network, {position - len(rows)} of {len(networks)}"))
        images = example_images(job.input_shape, job.spec.batch)
        whole.append(timer.time(inference_form(job.model, levels), images))
    calls = [[key for _, key in calls_at(layers, levels)] for levels in networks]
    return _assembled(job, list(rows), alone, list(zip(calls, whole, strict=True)))


def _rows(layers: Mapping[str, LayerRows]) -> dict[RowKey, tuple[str, dict[str, int]]]:
    """Return for each row one layer that it belongs to, and the levels of its choices."""
    found: dict[RowKey, tuple[str, dict[str, int]]] = {}
    for name, rows in layers.items():
        for levels in product(*map(range, rows.counts)):
            chosen = dict(zip(rows.choices, levels, strict=True))
            for key in rows.at(chosen):
                found.setdefault(key, (name, chosen))
    return found


def _spread_levels(counts: Mapping[str, int], networks: int) -> list[dict[str, int]]:
    """Return random levels of each layer such that the networks use the levels of a layer equally often."""
    generator = random.Random(0)
    columns = {}
    for name, count in counts.items():
        places = list(range(networks))
        generator.shuffle(places)
        columns[name] = [place * count // networks for place in places]
    return [{name: column[index] for name, column in columns.items()} for index in range(networks)]


def _layer_at(model: nn.Module, name: str, levels: Mapping[str, int]) -> nn.Module:
    """Return the inference form of a layer at the levels of its choices; of an MLP, with its block's shortcuts."""
    layer = model.get_submodule(name)
    with at_levels({choices_of(model)[choice]: level for choice, level in levels.items()}):
        if isinstance(layer, Choice):
            layer = layer.fixed()
    around = model.get_submodule(name.rpartition(".")[0])
    if isinstance(around, Block) and around.mlp is model.get_submodule(name):
        return fuse(Block(nn.Identity(), around.attention, layer, 0.0, around.mixer_shortcut)).eval()
    return fuse(nn.Sequential(layer)).eval()


def _assembled(
    job: TableJob,
    rows: Sequence[RowKey],
    alone: Sequence[Passes],
    whole: Sequence[tuple[Sequence[RowKey], Passes]],
) -> DeviceTable:
    timings = [*alone, *(passes for _, passes in whole)]
    usual = median([passes.reference_ms for passes in timings])  # one for all, so that a drift between them cancels
    times = {key: passes.ratio * usual for key, passes in zip(rows, alone, strict=True)}
    check = constant = None
    if whole:
        measured = [(calls, passes.ratio * usual) for calls, passes in whole]
        # a 95 % interval is four standard errors wide
        noise = max(NOISE, median([passes.width for _, passes in whole]) / 4)
        corrected = correct(times, measured, noise)
        times = dict(corrected.rows)
        spread = sorted(corrected.left)
        quarter = len(spread) // 4
        constant = Constant(job.title, corrected.constant, len(whole), spread[-1 - quarter] - spread[quarter])
        actual = [ms for _, ms in measured]
        predicted = [ms - error for ms, error in zip(actual, corrected.errors, strict=True)]
        off = sorted(abs(error) / ms for error, ms in zip(corrected.errors, actual, strict=True))
        check = TableCheck(len(whole), median(off), off[-1], rank_correlation(predicted, actual))
    return DeviceTable(
        job.fingerprint,
        job.network,
        job.title,
        usual,
        check,
        tuple(_faults(timings, job.spec, usual)),
        LatencyTable(
            job.circumstances,
            {
                key: Timing(times[key], passes.n, passes.spread_ms * usual / passes.reference_ms)
                for key, passes in zip(rows, alone, strict=True)
            },
            constant,
        ),
    )


def _faults(timings: Sequence[Passes], spec: LatencySpec, usual_ms: float) -> Iterator[str]:
    wide = [passes for passes in timings if not passes.precise]
    if wide:
        widest = max(passes.width for passes in wide)
        yield f"{len(wide)} of {len(timings)} timings are less precise than {spec.interval:.1%}, at worst {widest:.1%}"
    uneasy = sum(bool(replace(passes, precise=True).faults(precision_of(spec), usual_ms)) for passes in timings)
    if uneasy:
        yield f"during {uneasy} of {len(timings)} timings the device was throttled or shared"


def cache_path(fingerprint: str, network: str) -> Path:
    """Return the file of a table in the user's cache."""
    name = hashlib.sha256(f"{fingerprint}\n{network}".encode()).hexdigest()[:24]
    return cache_directory() / "latency" / f"{name}.json"


def cached_table(
    job: TableJob, build: Callable[[], DeviceTable], *, fresh: bool = False
) -> tuple[DeviceTable, bool]:
    """Return a table from the user's cache, or build it and keep it there.

    Only the first of several processes builds; the others wait for it. If the cache is not writable, a warning says so.

    Args:
        job: Table to find.
        build: Function that builds it.
        fresh: Whether to build it in any case.

    Returns:
        The table, and whether it was found.
    """
    path = cache_path(job.fingerprint, job.network)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        _log.warning("the latency table cannot be kept in %s (%s)", path.parent, error.strerror or error)
        return build(), False
    with lock:
        known = None if fresh else _known(path, job)
        if known is not None:
            return known, True
        table = build()
        try:
            table.save(path)
        except OSError as error:
            _log.warning("the latency table cannot be kept in %s (%s)", path.parent, error.strerror or error)
        return table, False


def _known(path: Path, job: TableJob) -> DeviceTable | None:
    try:
        table = DeviceTable.load(path)
    except InputError:
        return None  # missing, or of another version: it is built again
    same = (table.fingerprint, table.network) == (job.fingerprint, job.network)
    return table if same and (table.check is not None or not job.whole) else None
