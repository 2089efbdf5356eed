"""Writing files as a user of the machine expects it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with the permissions that any new file gets here; the library's own are 0600.

    Args:
        tensors: Tensors by name, on the CPU, contiguous, none sharing memory with another.
        path: File to write; one that is there is replaced and keeps its permissions.
        metadata: Text by name, for the file's header.
    """
    # Here: whoever reads an architecture does without torch.
    from safetensors.torch import save_file

    path.touch()  # umask and default ACLs decide; asking for the umask itself would change it for other threads
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(mode)
