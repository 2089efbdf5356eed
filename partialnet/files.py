"""Writing files as a user of the machine expects it: whole or not at all, through links, with usual permissions."""

from __future__ import annotations

import errno
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a place to write to, which replaces ``path`` when the block ends without an error.

    A symbolic link stays one: the file that it names is replaced. A mount point cannot be
    replaced by renaming, so it is overwritten. A device or a pipe is written to as it is.

    Args:
        path: File to write; missing folders above it are made.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh = Path(scratch) / target.name
        yield fresh
        try:
            fresh.replace(target)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            shutil.copyfile(fresh, target)
