"""Registration with timm, at ``import partialnet``: at once if timm is loaded, otherwise right after its import.

``import partialnet`` must load neither timm nor torch, since some processes need no network. Yet
``timm.create_model("partialnet_t2")`` must work after it, in either order of imports. So a finder waits for timm and
registers light entry points after timm's own module has run. It imports nothing that could deadlock with a thread that
waits for timm: the module of a network is imported when a network is built.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AWAITED = "timm"


def register_with_timm() -> None:
    """Register the names of all networks with timm, now or right after its import. A repetition changes nothing."""
    if sys.modules.get(_AWAITED) is not None:
        _register()
    elif not any(isinstance(finder, _AwaitTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AwaitTimm())


def _register() -> None:
    importlib.import_module("partialnet.models.entrypoints")


class _AwaitTimm(MetaPathFinder):
    """Finds timm as the other finders do, and makes its loader register our names. It then removes itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return timm's specification; None for other modules."""
        if fullname != _AWAITED:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _RegisteringLoader(spec.loader, self)
                return spec
        return None


class _RegisteringLoader(Loader):
    """Wraps timm's own loader, restores it before timm runs, and then registers our names."""

    def __init__(self, loader: Loader, finder: _AwaitTimm) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the result of timm's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run timm, then register. If timm fails, the finder stays for its next import."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _register()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
