"""Writing files as users expect: whole or not at all, through links, with usual permissions."""

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
    """Write a safetensors file with the permissions of a new file; the library's own are 0600.

    Args:
        tensors: Contiguous tensors by name, on the CPU, which share no memory.
        path: Path of the file; an existing file is replaced and keeps its permissions.
        metadata: Texts by name for the header of the file.
    """
    # Imported here, because readers of architectures need no torch.
    from safetensors.torch import save_file

    path.touch()  # umask and default ACLs decide; reading the umask itself would change it for other threads
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(mode)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which replaces ``path`` if the block ends without an error.

    A symbolic link stays: the file that it names is replaced. A mount point cannot be replaced by renaming, so it is
    overwritten. A device or a pipe is written to directly.

    Args:
        path: Path of the file; missing folders above it are created.
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
