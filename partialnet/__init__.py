"""PartialNet: partial attention convolution, learned split ratios, and export to fixed networks.

Sources: PartialNet (arXiv 2502.01303), PATNet (arXiv 2503.03148). Names are loaded on first use (PEP 562), so that
``partialnet.architecture`` and ``partialnet.variants`` can be imported without torch. Whenever timm is imported, before
or after this package, it knows the networks' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names
from partialnet.registration import register_with_timm

_LOCATIONS = {
    "Architecture": "partialnet.architecture",
    "ConversionRules": "partialnet.architecture",
    "Budget": "partialnet.search.budget",
    "CapturedNetwork": "partialnet.captured",
    "DPConv2d": "partialnet.layers.dpconv",
    "FractionalOptions": "partialnet.search.fractional",
    "GatesOptions": "partialnet.search.gates",
    "LatencyTable": "partialnet.search.latency_table",
    "PartialConv2d": "partialnet.layers.partial_conv",
    "PartialNet": "partialnet.models.partialnet",
    "SearchState": "partialnet.search.state",
    "SplitResult": "partialnet.search.result",
    "SupernetOptions": "partialnet.search.supernet_options",
    "convert_to_patconv": "partialnet.retrofit",
    "create": "partialnet.networks",
    "fuse": "partialnet.fuse",
    "learn_split": "partialnet.search.learn_split",
    "load_authors_checkpoint": "partialnet.checkpoints",
    "load_package": "partialnet.package",
    "to_fixed": "partialnet.export",
    "to_onnx": "partialnet.onnx_export",
    "to_torch_export": "partialnet.torch_export",
}

__all__ = sorted(_LOCATIONS)

if TYPE_CHECKING:
    from partialnet.architecture import Architecture, ConversionRules
    from partialnet.captured import CapturedNetwork
    from partialnet.checkpoints import load_authors_checkpoint
    from partialnet.export import to_fixed
    from partialnet.fuse import fuse
    from partialnet.layers.dpconv import DPConv2d
    from partialnet.layers.partial_conv import PartialConv2d
    from partialnet.models.partialnet import PartialNet
    from partialnet.networks import create
    from partialnet.onnx_export import to_onnx
    from partialnet.package import load_package
    from partialnet.retrofit import convert_to_patconv
    from partialnet.search.budget import Budget
    from partialnet.search.fractional import FractionalOptions
    from partialnet.search.gates import GatesOptions
    from partialnet.search.latency_table import LatencyTable
    from partialnet.search.learn_split import learn_split
    from partialnet.search.result import SplitResult
    from partialnet.search.state import SearchState
    from partialnet.search.supernet_options import SupernetOptions
    from partialnet.torch_export import to_torch_export

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
register_with_timm()
