"""The client without asyncio, made from the one for asyncio: ``python -m nas.client.twin`` writes ``sync.py``.

The two say the same methods, so only ``asynchronous.py`` is edited. A test compares both files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

SOURCE = Path(__file__).with_name("asynchronous.py")
TWIN = Path(__file__).with_name("sync.py")
_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        '"""The client for asyncio."""': (
            '"""The client that waits for each answer: made from ``asynchronous.py``; edit that, see ``twin.py``."""'
        ),
        "A client of one service for asyncio; its methods are those of :class:`nas.client.Client`.": (
            "A client of one service."
        ),
        "import asyncio\n": "",
    }
)
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "AsyncClient": "Client", "AsyncIterator": "Iterator", "asyncio": "time", "__aenter__": "__enter__",
        "__aexit__": "__exit__", "aclose": "close", "aread": "read", "aiter_lines": "iter_lines",
        "aiter_bytes": "iter_bytes",
    }
)  # fmt: skip


def without_asyncio(text: str) -> str:
    """Return the module without asyncio.

    Raises:
        ValueError: If the source lacks one of the sentences that differ.
    """
    for ours, theirs in _TEXTS.items():
        if ours not in text:
            raise ValueError(f"{SOURCE.name} has no {ours!r}; mend the list in {Path(__file__).name}")
        text = text.replace(ours, theirs)
    text = re.sub(r"\b(?:async|await) ", "", text)
    return re.sub(r"\w+", lambda word: _WORDS.get(word[0], word[0]), text)


if __name__ == "__main__":
    TWIN.write_text(without_asyncio(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
