"""In which precision two forms of a network can be compared: rounding against what a fault of 0.1 % does.

A searchable network at random levels and its fixed form, whole, at 224x224. "float32" and "float64" are the largest
difference of their outputs over the largest output, if both run in that type: rounding alone. "fault" is the same in
float64 if one kernel in the middle of the network is 0.1 % too large: what a comparison of whole networks would have to
see. A comparison is safe where rounding lies far below the tolerance of 1e-5. Layers are compared one by one as well.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from partialnet import Architecture, create
from partialnet.exact import random_input
from partialnet.layers.choice import fix_choices
from partialnet.layers.dpconv import dpconv_layers
from tests.benchmarks.timing import machine
from tests.partialnet.searchable import scramble

NAMES = ("partialnet_t0", "partialnet_s", "partialnet_l")


def output(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the outputs of ``model``, run in ``dtype``."""
    with torch.no_grad():
        return model.to(dtype).eval()(x.to(dtype)).double()


def differences(name: str, size: int = 224) -> tuple[float, float, float]:
    """Return the relative differences in float32, in float64, and of the faulty form."""
    torch.manual_seed(0)
    levels = random.Random(0)
    searched = create(Architecture(name), searchable=True)
    scramble(searched)
    for layer in dpconv_layers(searched).values():
        layer.set_active_channels(levels.choice(layer.levels))
    names = list(dpconv_layers(searched))
    x = random_input((3, size, size))
    exact = output(searched, x, torch.float64)
    largest = float(exact.abs().max())
    searched.float()
    fixed = create(Architecture(name), searchable=True)
    fixed.load_state_dict(searched.state_dict())
    fix_choices(fixed)
    single = float((output(searched, x, torch.float32) - output(fixed, x, torch.float32)).abs().max()) / largest
    double = float((exact - output(fixed, x, torch.float64)).abs().max()) / largest
    with torch.no_grad():
        fixed.get_submodule(names[len(names) // 2]).conv.weight *= 1.001
    fault = float((exact - output(fixed, x, torch.float64)).abs().max()) / largest
    return single, double, fault


def main() -> None:
    """Print a row for each network."""
    print(machine())
    print(f"{'':14} {'float32':>9} {'float64':>9} {'fault':>9}   relative to the largest output")
    for name in NAMES:
        print(f"{name:14} " + " ".join(f"{value:9.1e}" for value in differences(name)), flush=True)


if __name__ == "__main__":
    main()
