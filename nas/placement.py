"""Where a trial ran, and in what precision: the machine, its share of it, and what its figures depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Compute:
    """What the numbers of a training depend on, besides the definition.

    Args:
        device: Name of the processor or of the GPU.
        precision: Type of the training's arithmetic, as in the definition.
        convolutions: What float32 convolutions run in on the device: ``"ieee"``, or ``"tf32"`` on a GPU.
        products: What float32 matrix products run in on the device.
        memory_gib: Memory that the trial may take of its GPU; None on a processor.
        versions: Versions of torch and, on a GPU, of CUDA, cuDNN and the driver.
    """

    device: str
    precision: str
    convolutions: str
    products: str
    memory_gib: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where Ray put a trial.

    Args:
        node: Host name.
        pid: Of its process.
        cpus: Share of CPUs.
        gpus: Share of GPUs.
        gpu_ids: GPUs it may see, by Ray's numbering.
        cuda_visible_devices: The environment variable as the trial sees it; None if it is not set.
        compute: What its numbers depend on.
    """

    node: str
    pid: int
    cpus: float
    gpus: float
    gpu_ids: tuple[str, ...] = ()
    cuda_visible_devices: str | None = None
    compute: Compute | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Placement:
        """Build it from :meth:`to_dict`."""
        compute = data["compute"]
        found = None if compute is None else Compute(**compute)
        return cls(**{**data, "gpu_ids": tuple(data["gpu_ids"]), "compute": found})

    def sentence(self) -> str:
        """Return it in words, for people."""
        if self.compute is None:
            return self.node
        share = f", {self.gpus:g} of it" if 0 < self.gpus < 1 else ""
        cap = "" if self.compute.memory_gib is None else f", at most {self.compute.memory_gib:.1f} GiB"
        arithmetic = self.compute.precision
        if arithmetic == "float32" and "tf32" in (self.compute.convolutions, self.compute.products):
            arithmetic += f" (convolutions {self.compute.convolutions}, products {self.compute.products})"
        return f"{self.compute.device}{share}{cap}, {arithmetic}, on {self.node}"
