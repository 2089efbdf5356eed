"""A device that must not be waited for, emulated on the processor: whoever reads a number of it is told so.

Every tensor counts as one of the device, but for the copies of gates that the host keeps, what it drew itself from a
generator, and what follows from these alone. Reading is allowed where numbers of many steps are taken at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from partialnet.search import gates
from partialnet.train import readings

_READING_OPERATIONS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2", "masked_select")
_READING_METHODS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "numpy", "cpu", "__array__")


class Waited(AssertionError):
    """The host read a number of the device."""


class _Place:
    """Tensors that are known to be somewhere."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def add(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor):
            self._known[id(tensor)] = tensor

    def holds(self, tensor: Any) -> bool:
        return self._known.get(id(tensor)) is tensor


class _Operations(TorchDispatchMode):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in _READING_OPERATIONS:
            self.device.check(name, args[0])
        return func(*args, **(kwargs or {}))


class Device(TorchFunctionMode):
    """Refuses readings while it is entered.

    Attributes:
        transfers: How often numbers were read where it is allowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transfers = 0
        self.host = _Place()
        self.constant = _Place()
        self._allowed = False

    def check(self, name: str, tensor: Any) -> None:
        if not self._allowed and not self.host.holds(tensor):
            raise Waited(f"{name} of a tensor {tuple(tensor.shape)} makes the host wait for the device")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READING_METHODS and isinstance(args[0], Tensor):
            self.check(name, args[0])
        result = func(*args, **(kwargs or {}))
        self._follow((args, kwargs or {}), result)
        return result

    def _follow(self, arguments: Any, result: Any) -> None:
        """Note where a result is: what was made of nothing goes with whatever it meets."""
        leaves = tree_leaves(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        place = None
        if any(isinstance(leaf, torch.Generator) for leaf in leaves) or any(map(self.host.holds, tensors)):
            if all(self.host.holds(tensor) or self.constant.holds(tensor) for tensor in tensors):
                place = self.host
        elif all(map(self.constant.holds, tensors)):
            place = self.constant
        for leaf in tree_leaves(result) if place is not None else ():
            place.add(leaf)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Allow what happens inside."""
        before, self._allowed = self._allowed, True
        try:
            yield
        finally:
            self._allowed = before

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Refuse readings inside."""
        with self, _Operations(self):
            yield


def emulate(monkeypatch: pytest.MonkeyPatch, steps: int = 32) -> Device:
    """Let numbers wait on the processor as on a GPU, for ``steps`` steps; return what watches over it."""
    device = Device()
    receive = readings._receive

    def counted(transfer: Any) -> list[float]:
        device.transfers += 1
        with device.reading():
            return receive(transfer)

    def copied(tensor: Tensor) -> Tensor:
        copy = tensor.detach().clone()
        device.host.add(copy)
        return copy

    monkeypatch.setattr(gates, "on_host", copied)
    monkeypatch.setattr(readings, "steps_between", lambda _: steps)
    monkeypatch.setattr(readings, "_receive", counted)
    return device
