"""Kernels for a GPU: what they compute, where they are used, and that nothing else meets them."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from partialnet.layers import kernels
from tests.partialnet.several import fork_server
from tests.samples import sampled

INTERPRETED = Path(__file__).with_name("interpreted_kernels.py")
UNUSED = ("cacheprovider", "schemathesis", "anyio")  # plugins of pytest


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
@pytest.mark.forks
@pytest.mark.parametrize(
    ("marker", "seconds"),
    [
        pytest.param("not long", 280, id="short"),  # less than pytest's limit
        pytest.param("long", 1780, id="long", marks=(pytest.mark.long, pytest.mark.timeout(1800))),
    ],
)
def test_kernels_interpreted(tmp_path: Path, marker: str, seconds: float) -> None:
    child = fork_server().Process(target=run_interpreted, args=(marker, tmp_path / "said"))
    child.start()
    child.join(seconds)
    code = child.exitcode
    child.kill()  # else the end of this process waits for it
    assert (tmp_path / "said").exists(), f"it said nothing; its exit code is {code}"
    said = (tmp_path / "said").read_text()
    assert code == 0, said
    assert re.search(r"\d+ passed", said)
    assert not re.search(r"\d+ skipped", said)


def run_interpreted(marker: str, said: Path) -> None:
    """Run the tests of interpreted kernels, and write down what pytest says."""
    with said.open("w") as stream, redirect_stdout(stream), redirect_stderr(stream):
        code = pytest.main(["-q", *map("-pno:{}".format, UNUSED), "-m", marker, str(INTERPRETED)])
    sys.exit(code)


def test_a_processor_is_no_gpu() -> None:
    with torch.no_grad():
        assert not kernels.serves(torch.randn(2, 4, 3, 3))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
@pytest.mark.parametrize(
    ("kernel", "number", "shape"),
    sampled(
        ("_statistics_kernel", "_gated_shortcut_kernel"),
        ("bf16", "fp16", "fp32"),
        ((16, None), (256, None), (2, 1)),
    ),
)
def test_kernels_compile_for_a_gpu_that_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str, number: str, shape: tuple[int, int | None]
) -> None:
    """The interpreter is more lenient than the compiler. An H100; channels last, where strides of 1 are constants."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from partialnet.layers.kernels import triton_kernels

    channels, pixels = shape
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants: dict[str, int | None] = {"PIXELS": 16, "CHANNELS": channels, "WIDTH": channels, "pixels": pixels}
    constants |= dict.fromkeys(("channel_stride", "x_channel", "shortcut_channel", "out_channel"), 1)
    signature, given = {}, {}
    for parameter in getattr(triton_kernels, kernel).params:
        value = constants.get(parameter.name)
        pointer = parameter.name in ("x", "shortcut", "gate", "shift", "out")
        signature[parameter.name] = "constexpr" if value is not None else f"*{number}" if pointer else "i32"
        if value is not None:
            given[(parameter.num,)] = value
    source = ASTSource(fn=getattr(triton_kernels, kernel), signature=signature, constexprs=given)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared < 48 * 1024
