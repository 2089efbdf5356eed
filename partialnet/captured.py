"""Inference as a CUDA graph: all kernels of a network start with one command of the host.

At small sizes a GPU finishes the kernels of an uncompiled network faster than its host can launch them. A captured
network replays them without the host, so that the GPU's own time is what counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from partialnet.errors import PartialNetError

_WARM_UP = 3  # runs before the capture, in which libraries choose kernels and Triton compiles


class CapturedNetwork:
    """A network in eval mode, captured for images of one shape, type and layout.

    Weights are read at each run, so that changes in place count. A module's Python code, hooks included, runs only
    while it is captured.

    Args:
        network: Network in eval mode on a GPU; the inference form (:func:`partialnet.fuse`) has the fewest kernels.
        images: Images [B, C, H, W] on the same GPU, as later ones will be.

    Raises:
        PartialNetError: If the images are not on a GPU, or the network is in training mode.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        if images.device.type != "cuda":
            raise PartialNetError(f"a network is captured on a GPU, but the images are on {images.device}")
        if network.training:
            raise PartialNetError("a network is captured in eval mode, but this one is in training mode: call .eval()")
        self._network = network  # the graph holds addresses of its weights, which must not be freed
        self._images = images.clone()
        with torch.cuda.device(images.device), torch.no_grad():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    network(self._images)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._out: Tensor = network(self._images)

    def __call__(self, images: Tensor) -> Tensor:
        """Map images [B, C, H, W] to the network's output.

        Raises:
            PartialNetError: If shape, type or device differ from those of the captured images.
        """
        expected = self._images
        if images.shape != expected.shape or images.dtype != expected.dtype or images.device != expected.device:
            raise PartialNetError(
                f"captured for images {tuple(expected.shape)}, {expected.dtype} on {expected.device}, but these are "
                f"{tuple(images.shape)}, {images.dtype} on {images.device}: capture the network for them as well"
            )
        expected.copy_(images)
        self._graph.replay()
        return self._out.clone()
