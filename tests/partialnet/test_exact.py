"""Forms are compared exactly, whatever the process says about precision, and its switches stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.exact import exact_outputs, random_input
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.partialnet import create
from partialnet.onnx_export import to_onnx
from partialnet.retrofit import convert_to_patconv
from tests.partialnet.search_runs import METHODS, search
from tests.partialnet.searchable import SmallNet, scramble
from tests.partialnet.tf32 import Tf32
from tests.samples import sampled

BACKENDS: Any = torch.backends
SWITCHES: dict[str, Any] = {
    "all": BACKENDS,
    "cuda": BACKENDS.cudnn,
    "matmul": BACKENDS.cuda.matmul,
    "conv": BACKENDS.cudnn.conv,
    "rnn": BACKENDS.cudnn.rnn,
    "mkldnn": BACKENDS.mkldnn,
    "mkldnn matmul": BACKENDS.mkldnn.matmul,
    "mkldnn conv": BACKENDS.mkldnn.conv,
}
DEFAULTS = dict.fromkeys(SWITCHES, "none") | {"conv": "tf32", "rnn": "tf32"}


def told(ask: Callable[[], object]) -> object:
    """Return an older switch's answer; torch refuses to give one where both styles of switches were used."""
    try:
        return ask()
    except RuntimeError:
        return "mixed"


def observed() -> dict[str, object]:
    """Return everything about precision that torch tells."""
    return {
        **{name: switch.fp32_precision for name, switch in SWITCHES.items()},
        "cudnn allow_tf32": told(lambda: BACKENDS.cudnn.allow_tf32),
        "matmul allow_tf32": told(lambda: BACKENDS.cuda.matmul.allow_tf32),
        "matmul precision": told(torch.get_float32_matmul_precision),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "benchmark": BACKENDS.cudnn.benchmark,
        "oneDNN": BACKENDS.mkldnn.enabled,
        "deterministic": (BACKENDS.cudnn.deterministic, torch.are_deterministic_algorithms_enabled()),
    }


@pytest.fixture(autouse=True)
def _default_switches() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for name, value in DEFAULTS.items():
        SWITCHES[name].fp32_precision = value
    BACKENDS.cudnn.benchmark = BACKENDS.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


def old_style() -> None:
    BACKENDS.cudnn.allow_tf32 = BACKENDS.cuda.matmul.allow_tf32 = True


def new_style() -> None:
    BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cuda.matmul.fp32_precision = "tf32"


def from_above() -> None:
    BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cuda.matmul.fp32_precision = "none"
    BACKENDS.fp32_precision = "tf32"


def everything_else() -> None:
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.benchmark = BACKENDS.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)


SETTINGS = (old_style, new_style, from_above, everything_else)
EVERY_SETTING = pytest.mark.parametrize("setting", SETTINGS)


class CastsInside(nn.Module):
    """Insists on float32, as layers that were made for mixed precision do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = DPConv2d(8)
        self.after = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.layer(x).float())
        return out


class SlightlyOff(DPConv2d):
    """Hands out a fixed form whose kernel is 0.1 % too large."""

    def fixed(self) -> PartialConv2d:
        layer = super().fixed()
        with torch.no_grad():
            layer.conv.weight *= 1.001
        return layer


def micro() -> nn.Module:
    return create(Architecture("partialnet_micro", {"num_classes": 5}), searchable=True)


def resnet18(**options: Any) -> nn.Module:
    network, _ = convert_to_patconv(timm.create_model("resnet18", num_classes=5, **options), searchable=True)
    return network


def narrow_resnet18() -> nn.Module:
    return resnet18(channels=(16, 16, 32, 32))


def networks_with(values: Sequence[Any]) -> list[Any]:
    """Return networks and their images' shapes with each of ``values``; a sample, and the rest marked ``long``."""
    networks = [(SmallNet, (3, 6, 6)), (micro, (3, 32, 32)), (narrow_resnet18, (3, 32, 32))]
    whole = [pytest.param((resnet18, (3, 32, 32)), value, marks=pytest.mark.long) for value in values]
    return [*sampled(networks, values), *whole]


def name_of(value: Any) -> str:
    """Return the name of a network, a setting or a type in the name of a test."""
    found = value[0] if isinstance(value, tuple) else value
    return getattr(found, "__name__", str(found).removeprefix("torch."))


DTYPES = (torch.bfloat16, torch.float16, torch.float64)
Network = tuple[Callable[[], nn.Module], tuple[int, int, int]]


def test_the_emulation_does_what_broke_searches_on_a_gpu() -> None:
    x, model = random_input((3, 32, 32)), micro().eval()
    scramble(model)
    with torch.no_grad(), Tf32() as gpu:
        once, again = model(x), model(x)
    assert gpu.reduced
    assert 1e-5 < float((once - again).abs().max()) / float(once.abs().max()) < 1e-2
    BACKENDS.cudnn.conv.fp32_precision = "ieee"
    with torch.no_grad(), Tf32() as gpu:
        assert torch.equal(model(x), model(x))
    assert not gpu.reduced


@pytest.mark.parametrize(("network", "setting"), networks_with(SETTINGS), ids=name_of)
def test_forms_are_equal_where_tf32_is_on(network: Network, setting: Callable[[], None]) -> None:
    make, shape = network
    model = make()
    scramble(model)
    setting()
    before = observed()
    with Tf32(), torch.autocast("cpu", torch.bfloat16):
        to_fixed(model, input_shape=shape)
    assert observed() == before


@pytest.mark.parametrize("method", METHODS)
def test_every_search_ends_well_where_tf32_is_on(method: str) -> None:
    old_style()
    with Tf32() as gpu:
        result = search(method=method)
    assert gpu.reduced
    assert result.within_budget


@pytest.mark.parametrize(("network", "dtype"), networks_with(DTYPES), ids=name_of)
def test_networks_of_any_type_are_fixed(network: Network, dtype: torch.dtype) -> None:
    make, shape = network
    model = make().to(dtype)
    scramble(model)
    fixed = to_fixed(model, input_shape=shape)
    assert {value.dtype for value in fixed.state_dict().values() if value.is_floating_point()} == {dtype}


@EVERY_SETTING
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_that_is_slightly_off_is_refused(dtype: torch.dtype, setting: Callable[[], None]) -> None:
    model = SmallNet()
    model.second = SlightlyOff(16)
    setting()
    with Tf32(), pytest.raises(ArchitectureError, match="second: outputs of the searched and the fixed form differ by"):
        to_fixed(model.to(dtype))


@pytest.mark.parametrize("level", range(5))
def test_a_kernel_that_is_slightly_off_is_refused_at_every_level(level: int) -> None:
    torch.manual_seed(level)
    model = create(Architecture("partialnet_micro"), searchable=True)
    layer = SlightlyOff(16, rest="channel_attention")
    nn.init.trunc_normal_(layer.conv.weight, std=0.02)  # as the family initialises it: the smallest kernels there are
    model.set_submodule("stages.0.blocks.0.mixer", layer)
    layer.set_active_channels(layer.levels[level])
    with pytest.raises(ArchitectureError, match=r"stages\.0\.blocks\.0\.mixer: outputs of"):
        to_fixed(model)


@EVERY_SETTING
def test_a_module_that_insists_on_float32_is_compared_in_full_precision(setting: Callable[[], None]) -> None:
    model = CastsInside()
    setting()
    before = observed()
    to_fixed(model, input_shape=(8, 4, 4))
    assert observed() == before


def test_where_float64_is_refused_the_cpu_computes_float32_in_full() -> None:
    seen = []

    class Watching(CastsInside):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, x.device.type, BACKENDS.mkldnn.enabled))
            return super().forward(x)

    (out,) = exact_outputs([Watching()], random_input((8, 4, 4)))
    assert seen == [(torch.float64, "cpu", True), (torch.float32, "cpu", False)]
    assert out[0].dtype == torch.float64
    assert BACKENDS.mkldnn.enabled


def test_what_cannot_be_compared_is_refused_with_both_reasons() -> None:
    class Halves(CastsInside):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(torch.float16))

    with pytest.raises(ArchitectureError, match=r"Halves cannot be compared exactly: in float64 .* in float32 on the"):
        exact_outputs([Halves()], random_input((8, 4, 4)))
    assert BACKENDS.mkldnn.enabled


VALUES = st.sampled_from(["ieee", "tf32", "none"])
COMMANDS = st.lists(st.tuples(st.sampled_from(sorted(SWITCHES)), VALUES), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=COMMANDS, after=COMMANDS)
def test_switches_answer_as_if_nothing_had_happened(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    model, x = CastsInside(), random_input((8, 2, 2))

    def answers(*, between: bool) -> list[dict[str, object]]:
        for name, value in [*DEFAULTS.items(), *before]:
            SWITCHES[name].fp32_precision = value
        if between:
            exact_outputs([model], x)
        found = [observed()]
        for name, value in after:  # a switch that follows the one above it still does
            SWITCHES[name].fp32_precision = value
            found.append(observed())
        return found

    assert answers(between=True) == answers(between=False)


@pytest.mark.slow
def test_a_compiled_network_is_compared_as_it_was_written() -> None:
    compiled = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph.forward

    model = torch.compile(SmallNet(), backend=backend)
    to_fixed(model, input_shape=(3, 6, 6))
    assert not compiled


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"depths": (1,), "merge_strides": (), "rests": ("identity",), "use_spatial_attn": False}, id="one_block"
        ),
        pytest.param({"depths": (1, 1, 1, 1)}, id="four_stages", marks=pytest.mark.long),
    ],
)
def test_an_onnx_file_is_right_where_precision_is_low(tmp_path: Any, options: dict[str, Any]) -> None:
    everything_else()
    model = fuse(timm.create_model("partialnet_micro", num_classes=5, **options).eval())
    with Tf32(), torch.autocast("cpu", torch.bfloat16):
        path = to_onnx(model, tmp_path / "network.onnx", input_shape=(3, 16, 16))
    assert path.is_file()


def test_copies_are_compared_and_models_left_alone() -> None:
    model = SmallNet().train()
    state = copy.deepcopy(model.state_dict())
    exact_outputs([model], random_input((3, 6, 6)))
    assert model.training
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
