from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def cache(_own_cache: None) -> Path:
    from partialnet.data.cache import cache_directory

    return cache_directory()
