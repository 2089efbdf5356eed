"""What a launcher tells the processes of one training by their environment. Loads no torch."""

from __future__ import annotations

import os

RENDEZVOUS = "PARTIALNET_RENDEZVOUS"
"""Variable with the URL at which processes meet; ``torchrun`` names a port instead."""


def launched() -> bool:
    """Return whether ``torchrun``, or a launcher like it, has started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarted() -> bool:
    """Return whether ``torchrun`` has started this process again, after one of its processes has failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def first() -> bool:
    """Return whether this process is the only one, or the first of several: it writes files and messages."""
    return not launched() or os.environ["RANK"] == "0"
