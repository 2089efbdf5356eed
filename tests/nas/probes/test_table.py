"""Tables of a device: rows and corrections against a device whose times are known, files, and the cache."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.probes.fitting import correct, rank_correlation
from nas.probes.table import DeviceTable, build_local_table, build_table, cache_path, cached_table, local_job
from nas.probes.timing import Timing
from partialnet.layers.choice import choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.layers.three_parts import ThreePartConv2d
from partialnet.search.cost import inference_form
from partialnet.search.latency_parts import LayerKey
from partialnet.search.latency_rows import latency_keys, predicted_latency

SHAPE = (3, 8, 8)
SPEC = LatencySpec(warmup=1, n=10, interval=1.0, seconds=0.2)


class Small(nn.Module):
    def __init__(self, width: int = 16, parts: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.wide = nn.ModuleList(DPConv2d(width) for _ in range(3))
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.deep = DPConv2d(2 * width, rest="channel_attention", parts=parts)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.wide:
            x = layer(x)
        return self.deep(self.down(x)).mean(dim=(2, 3))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def timing(ms: float) -> Timing:
    """A precise timing on a device whose reference takes 2 ms."""
    return Timing(50, 0, "wall", 0.0, ms, ms, 0.01 * ms, 2.0, ms / 2, (ms / 2, ms / 2), 0, 0.0, precise=True)


def true_ms(layer: PartialConv2d) -> float:
    attended = layer.attended_channels if isinstance(layer, ThreePartConv2d) else 8 * (layer.rest is not None)
    return 0.1 + layer.active_channels**2 / 500 + attended / 40


class Device:
    """Layers cost their time alone; within a network a share more, and the network has a constant of 3 ms."""

    def __init__(self, within: float = 1.3, noise: float = 0.0) -> None:
        self.within, self.noise, self.generator = within, noise, random.Random(0)

    def time(self, network: nn.Module, images: torch.Tensor) -> Timing:
        network(images)
        layers = [module for module in network.modules() if isinstance(module, PartialConv2d)]
        ms = sum(map(true_ms, layers))
        if not isinstance(network, nn.Sequential):
            ms = 3.0 + self.within * ms
        return timing(ms * (1 + self.generator.gauss(0, self.noise)))


def test_rows_are_corrected_by_whole_networks(model):
    told = []
    found = build_table(local_job(model, SHAPE, "small", SPEC), Device(), told.append)
    keys = latency_keys(model, SHAPE)
    assert set(found.table.rows) == {key for levels in keys.values() for calls in levels for key in calls}
    assert found.check is not None
    assert found.check.median_error < 0.01
    assert found.check.rank_correlation > 0.99
    assert found.faults == ()
    assert [step.position for step in told] == list(range(1, len(told) + 1)) == list(range(1, told[-1].total + 1))
    generator, device = random.Random(5), Device()
    for _ in range(20):
        network = inference_form(model, {name: generator.randrange(len(keys[name])) for name in keys})
        measured = device.time(network, torch.zeros(1, *SHAPE)).median_ms
        assert predicted_latency(network, SHAPE, found.table) == pytest.approx(measured, rel=0.02)


def test_layers_in_three_parts_are_timed_at_both_boundaries():
    model = Small(parts=3).eval()
    found = build_table(local_job(model, SHAPE, "small", SPEC, whole=64), Device())
    assert DeviceTable.from_dict(found.to_dict()) == found
    counts, generator = {name: len(choice.levels) for name, choice in choices_of(model).items()}, random.Random(5)
    assert "deep.attended" in counts
    for _ in range(8):
        network = inference_form(model, {name: generator.randrange(count) for name, count in counts.items()})
        measured = Device().time(network, torch.zeros(1, *SHAPE)).median_ms
        assert predicted_latency(network, SHAPE, found.table) == pytest.approx(measured, rel=0.05)


def test_without_whole_networks_rows_stay_as_timed_alone(model):
    found = build_table(local_job(model, SHAPE, "small", SPEC, whole=0), Device())
    assert (found.check, found.table.constant) == (None, None)
    ms = {key.active_channels: row.ms for key, row in found.table.rows.items() if key.channels == 16}
    assert ms[16] == pytest.approx(0.1 + 256 / 500)


def test_what_makes_a_table_uncertain_is_said(model):
    class Shared(Device):
        def time(self, network, images):
            return replace(super().time(network, images), precise=False, ratio_interval=(0.0, 1e3), interrupted=0.9)

    first, second = build_table(local_job(model, SHAPE, "small", SPEC, whole=4), Shared()).faults
    assert first.startswith("15 of 15 timings are less precise than 100.0%")
    assert second == "during 15 of 15 timings the device was throttled or shared"


KEYS = [LayerKey(8, 8, 32, n, 3, "identity") for n in (2, 4, 8, 16, 32)]
KEYS += [LayerKey(4, 4, 64, n, 3, "identity") for n in (4, 8, 16, 32, 64)]


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0, 20), st.integers(0, 2**31))
def test_factors_and_constant_are_found(first, second, constant, seed):
    generator = random.Random(seed)
    alone = {key: generator.uniform(0.5, 2) for key in KEYS}
    factors = {32: first, 64: second}
    networks = []
    for _ in range(16):
        calls = [generator.choice(KEYS[:5]) for _ in range(4)] + [generator.choice(KEYS[5:]) for _ in range(6)]
        networks.append((calls, constant + sum(factors[key.channels] * alone[key] for key in calls)))
    found = correct(alone, networks)
    for calls, ms in networks:
        assert found.constant + sum(found.rows[key] for key in calls) == pytest.approx(ms, rel=0.05)
    assert sorted(abs(error) / ms for error, (_, ms) in zip(found.errors, networks, strict=True))[8] < 0.05


def test_noise_does_not_move_rows_that_are_right():
    generator = random.Random(1)
    alone = {key: generator.uniform(0.5, 2) for key in KEYS}
    networks = []
    for _ in range(16):
        calls = [generator.choice(KEYS) for _ in range(10)]
        networks.append((calls, (5 + sum(alone[key] for key in calls)) * (1 + generator.gauss(0, 0.02))))
    found = correct(alone, networks)
    assert max(abs(found.rows[key] / alone[key] - 1) for key in KEYS) < 0.15


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [4, 5, 9], 1.0),
        ([1, 2, 3], [9, 5, 4], -1.0),
        ([1, 1, 1], [1, 2, 3], 0.0),
        ([1, 2, 2], [1, 2, 2], 1.0),
    ],
)
def test_rank_correlations(first, second, expected):
    assert rank_correlation(first, second) == pytest.approx(expected)


def test_a_real_table_of_this_machine(model):
    found = build_local_table(local_job(model, SHAPE, "small", SPEC, whole=4))
    assert all(row.ms >= 0 and row.repetitions >= 1 for row in found.table.rows.values())
    assert found.fingerprint.startswith("torch (torch ")


@pytest.fixture
def table(model) -> DeviceTable:
    return build_table(local_job(model, SHAPE, "small", SPEC), Device())


def test_files_round_trip(table, tmp_path):
    table.save(tmp_path / "t.json")
    assert DeviceTable.load(tmp_path / "t.json") == table


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: [], "is no table of nas probe table"),
        (lambda data: {**data, "more": 1}, "is no table of nas probe table"),
        (lambda data: {**data, "schema": 9}, "schema is 9, but this version reads 1"),
        (lambda data: {**data, "fingerprint": ""}, "fingerprint is ''"),
        (lambda data: {**data, "reference_ms": 0}, "reference_ms is 0, but must be a positive number"),
        (lambda data: {**data, "check": {"networks": 3}}, "t.json: "),
        (lambda data: {**data, "check": {**data["check"], "networks": "x"}}, "check.networks is 'x'"),
        (lambda data: {**data, "faults": 3}, "t.json: "),
        (lambda data: {**data, "table": {"schema": 1}}, "t.json: table lacks"),
    ],
)
def test_wrong_files_are_told(table, tmp_path, change, expected):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(change(table.to_dict())))
    with pytest.raises(InputError) as caught:
        DeviceTable.load(path)
    assert expected in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        DeviceTable.load(tmp_path / "none.json")
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        DeviceTable.load(path)


def test_the_cache(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path))
    job, built = local_job(model, SHAPE, "small", SPEC), []

    def build() -> DeviceTable:
        built.append(1)
        return build_table(job, Device())

    first, known = cached_table(job, build)
    assert not known
    assert cached_table(job, build) == (first, True)
    assert len(built) == 1
    assert cached_table(job, build, fresh=True)[1] is False
    wider = local_job(Small(8).eval(), SHAPE, "small", SPEC)
    other = local_job(model, SHAPE, "small", LatencySpec(threads=2))
    assert len({cache_path(each.fingerprint, each.network) for each in (job, wider, other)}) == 3
    # damaged, or of another version: it is measured again
    cache_path(job.fingerprint, job.network).write_text("{")
    assert cached_table(job, build)[1] is False
    # a table without a constant does not serve who needs one
    bare = replace(first, check=None, table=replace(first.table, constant=None))
    bare.save(cache_path(job.fingerprint, job.network))
    assert cached_table(job, build)[1] is False
    assert cached_table(replace(job, whole=0), build)[1] is True


def test_a_cache_that_cannot_be_written_costs_only_the_cache(model, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "file"))
    job = local_job(model, SHAPE, "small", SPEC)
    found, known = cached_table(job, lambda: build_table(job, Device()))
    assert (found.title, known) == ("small", False)
    assert "cannot be kept in" in caplog.text


def test_weights_do_not_change_the_hash(model):
    first = local_job(model, SHAPE, "small", SPEC).network
    torch.manual_seed(9)
    assert local_job(Small().eval(), SHAPE, "small", SPEC).network == first
    assert local_job(model, (3, 16, 16), "small", SPEC).network != first


def test_too_few_whole_networks(model):
    with pytest.raises(InputError, match="use 0 or at least 4"):
        local_job(model, SHAPE, "small", SPEC, whole=3)
