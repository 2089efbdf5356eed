"""The choice of an 8-bit form, and what is said about it; tests of the commands export a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.definition.sections import LatencySpec
from nas.errors import ConflictError, InputError
from nas.networks.int8 import SECTION, Int8Request, check_data, check_drop, quantized, ways, with_section
from partialnet.architecture import Architecture, ConversionRules
from partialnet.data import load
from partialnet.networks import create
from partialnet.package import Preprocessing
from partialnet.train import EvaluationResult, Recipe, fit


def result(top1: float) -> EvaluationResult:
    return EvaluationResult(top1, 1.0, 0.5, 200)


@pytest.mark.parametrize(("int8", "most"), [(0.9, 0.0), (0.89, 0.01), (0.95, 0.0), (0.0, 1.0)])
def test_a_small_fall_is_accepted(int8: float, most: float) -> None:
    check_drop(result(0.9), result(int8), most)


@pytest.mark.parametrize(("int8", "most"), [(0.895, 0.0), (0.889, 0.01), (0.0, 0.5)])
def test_a_large_fall_is_refused_with_both_scores(int8: float, most: float) -> None:
    told = rf"200 validation images falls by {90 - 100 * int8:.2f} points, from 90\.00 % to {100 * int8:.2f} %"
    with pytest.raises(ConflictError, match=told):
        check_drop(result(0.9), result(int8), most)


def test_first_and_last_layers_are_tried_both_ways() -> None:
    plans = [plan for _, plan in ways(("a", "b", "c"))]
    kept = [(), ("a",), ("c",), ("a", "c")]
    assert [(plan.kept, plan.everything) for plan in plans] == [(k, e) for e in (False, True) for k in kept]
    assert len({name for name, _ in ways(("a", "b", "c"))}) == 8


def test_only_the_networks_own_data_will_do() -> None:
    splits = load("digits")
    info = splits.info
    fitting = Preprocessing("digits", info.class_names, info.input_shape, info.mean, info.std)
    check_data(splits, fitting)
    others = Preprocessing("digits", tuple("abcdefghij"), info.input_shape, info.mean, info.std)
    with pytest.raises(InputError, match=r"int8: the data set digits has the classes \['0', .* but the network \['a'"):
        check_data(splits, others)
    with pytest.raises(InputError, match=r"images of the shape \[1, 8, 8\], but the network \[1, 16, 16\]"):
        check_data(splits, Preprocessing("digits", info.class_names, (1, 16, 16), info.mean, info.std))


def test_the_probe_runs_in_onnx_runtime_with_the_studys_settings() -> None:
    spec = LatencySpec(runtime="compile", threads=2, batch=4, table="auto")
    probe = Int8Request(load("digits"), 0.01, spec).probe
    assert (probe.runtime, probe.device, probe.threads, probe.batch, probe.table) == ("onnx", "cpu", 2, 4, None)


@pytest.mark.parametrize(
    "card", ["", "# x\n\ntext\n", f"# x\n\n{SECTION}\n\nold\n", f"# x\n\n{SECTION}\n\nold\n\n## Use\n"]
)
def test_a_card_has_one_section_about_it(card: str) -> None:
    found = with_section(card, f"{SECTION}\n\nnew\n")
    assert found.count(SECTION) == found.count("new") == 1
    assert "old" not in found
    assert ("# x" in found, "## Use" in found) == ("# x" in card, "## Use" in card)
    without = with_section(card, "")
    assert SECTION not in without
    assert ("# x" in without, "## Use" in without) == ("# x" in card, "## Use" in card)


@pytest.mark.long
def test_a_network_converted_from_timm_has_an_8_bit_form(tmp_path: Path) -> None:
    splits = load("digits")
    rules = ConversionRules(convert=("layer1.*", "layer2.*"))
    network = create(Architecture("timm/resnet18", {"num_classes": 10, "in_chans": 1}, conversion=rules))
    batches = splits.train.batches(64, shuffle_seed=0, drop_last=True)
    fit(network, batches, recipe=Recipe(), epochs=2, seed=0)
    info = splits.info
    preprocessing = Preprocessing(info.name, info.class_names, info.input_shape, info.mean, info.std)
    form = quantized(network.eval(), preprocessing, Int8Request(splits, 0.05), tmp_path)
    scores = {name: form.report["validation"][name]["top1"] for name in ("float32", "int8")}
    assert scores["int8"] >= scores["float32"] - 0.05 > 0.2
    assert len(form.report["choices"]) == 8
    assert 3 * form.file.stat().st_size < form.plain.stat().st_size
