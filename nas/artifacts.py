"""Files that outlive the process that wrote them: weights and exports, in a folder or behind any fsspec URL.

The URI of an artifact is relative to the storage, so that the storage can move. SHA-256 checks its bytes at each fetch.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import fsspec

from nas.candidate import Artifact, PackedFile
from nas.errors import InputError, NotFoundError, StoreError
from nas.settings import mask

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
_MAX_URI = 512
_CHUNK = 1 << 20
_PARTIAL = ".partial"


def check_uri(uri: str) -> str:
    """Return ``uri`` if it stays below the storage: segments of letters, digits and ``. _ = -``, joined by ``/``.

    Raises:
        InputError: If it is absolute, empty or too long, leaves the storage, or holds other characters.
    """
    if len(uri) > _MAX_URI or not all(_SEGMENT.fullmatch(segment) for segment in uri.split("/")):
        raise InputError(
            f"an artifact's URI must be relative, such as studies/ID/3/weights.safetensors, of letters, digits and "
            f"'. _ = -' and at most {_MAX_URI} characters, but got {uri[:100]!r}"
        )
    return uri


@dataclass(frozen=True)
class StoredFile:
    """A file in a storage, with or without a record.

    Args:
        uri: Path relative to the storage.
        size: Size in bytes.
        modified: Time of the last change; None if the storage does not tell.
    """

    uri: str
    size: int
    modified: datetime | None

    @property
    def partial(self) -> bool:
        """Whether a process that died, or still writes, has left it half-written."""
        return self.uri.endswith(_PARTIAL)


class Artifacts:
    """A storage of files.

    Args:
        storage: Folder, or fsspec URL such as ``s3://bucket/folder``; the first file creates it.

    Raises:
        StoreError: If the URL's protocol is unknown or its package is not installed.
    """

    def __init__(self, storage: str) -> None:
        self._shown = mask(storage) if "://" in storage else storage
        local = storage if "://" in storage else str(Path(storage).expanduser().absolute())
        try:
            self._fs: Any
            # A listing that is remembered would miss what other processes and machines store.
            self._fs, self._root = fsspec.core.url_to_fs(local, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            reason = str(error).replace(storage, self._shown)
            raise StoreError(f"storage {self._shown!r} cannot be used: {reason}") from None
        # The clients of object stores raise errors of their own, for example without credentials.
        self._faults: type[Exception] = Exception if "://" in storage else OSError

    def __repr__(self) -> str:
        return f"Artifacts({self._shown!r})"

    @property
    def folder(self) -> Path | None:
        """Folder of the storage on this machine; None if it is elsewhere."""
        return Path(self._root) if "file" in self._fs.protocol else None

    def place(self, uri: str) -> tuple[Any, str]:
        """Return the file system of fsspec, and the path of ``uri`` in it."""
        return self._fs, self._path(check_uri(uri))

    def check_writable(self) -> None:
        """Check that the storage can be written, with a small file that is deleted again.

        Raises:
            StoreError: If it cannot be written.
        """
        probe = self._path(f"probe-{secrets.token_hex(8)}{_PARTIAL}")
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            with self._fs.open(probe, "wb") as file:
                file.write(bytes(4096))
            self._fs.rm_file(probe)
        except OSError as error:
            self._discard(probe)
            raise StoreError(f"storage {self._shown!r} cannot be written ({error})") from error

    def put(self, local: Path, uri: str, kind: str) -> Artifact:
        """Store a copy of ``local`` under ``uri``, whole or not at all; it replaces an earlier file.

        Raises:
            InputError: If ``uri`` could leave the storage.
            NotFoundError: If ``local`` does not exist.
            StoreError: If the storage cannot be written.
        """
        target = self._path(check_uri(uri))
        if not local.is_file():
            raise NotFoundError(f"there is no file {local} to store as {uri}")
        partial = f"{target}.{secrets.token_hex(8)}{_PARTIAL}"
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            with local.open("rb") as source, self._fs.open(partial, "wb") as copy:
                sha256, size = _copy(source, copy)
            self._fs.mv(partial, target)
        except self._faults as error:
            self._discard(partial)
            raise StoreError(f"storage {self._shown!r}: {uri} cannot be written ({error})") from error
        return Artifact(uri, sha256, size, kind)

    def fetch(self, artifact: Artifact, into: Path) -> Path:
        """Copy an artifact to this machine and verify its checksum.

        Args:
            artifact: Record of the file.
            into: Folder, in which the file keeps its name, or path of the new file.

        Returns:
            Path of the copy.

        Raises:
            NotFoundError: If the storage does not hold the file.
            StoreError: If the file cannot be read, or differs from the stored one.
        """
        target = into / artifact.uri.rpartition("/")[2] if into.is_dir() else into
        self._fetch(artifact.uri, target, (artifact.sha256, artifact.size))
        return target

    def copy(self, uri: str, target: Path) -> Path:
        """Copy a file without a record to ``target``, whole or not at all.

        Raises:
            NotFoundError: If the storage does not hold the file.
            StoreError: If the file cannot be read.
        """
        self._fetch(uri, target, None)
        return target

    def _fetch(self, uri: str, target: Path, wanted: tuple[str, int] | None) -> None:
        source = self._path(check_uri(uri))
        partial = target.with_name(f"{target.name}.{secrets.token_hex(8)}{_PARTIAL}")
        try:
            with self._fs.open(source, "rb") as stored, partial.open("wb") as copy:
                found = _copy(stored, copy)
            if wanted not in (None, found):
                assert wanted is not None
                raise StoreError(
                    f"storage {self._shown!r}: {uri} is damaged: found {found[1]} bytes, sha256 {found[0]}; "
                    f"stored were {wanted[1]} bytes, sha256 {wanted[0]}"
                )
            partial.replace(target)
        except FileNotFoundError:
            raise NotFoundError(f"storage {self._shown!r} has no file {uri}; is NAS_STORAGE right?") from None
        except StoreError:
            raise
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {uri} cannot be read ({error})") from error
        finally:
            partial.unlink(missing_ok=True)

    def exists(self, uri: str) -> bool:
        """Return whether the storage holds a file under ``uri``.

        Raises:
            StoreError: If the storage cannot be read.
        """
        path = self._path(check_uri(uri))
        try:
            return bool(self._fs.isfile(path))
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {uri} cannot be looked for ({error})") from error

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly below ``folder``; an empty list without such a folder.

        Raises:
            StoreError: If the storage cannot be read.
        """
        return self._names(folder, "file")

    def _names(self, folder: str, kind: str) -> list[str]:
        try:
            entries = self._fs.ls(self._path(check_uri(folder)), detail=True)
        except FileNotFoundError:
            return []
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {folder} cannot be read ({error})") from error
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == kind)

    def files(self, folder: str) -> list[StoredFile]:
        """Return all files below ``folder``, at any depth, by URI; an empty list without such a folder.

        Raises:
            StoreError: If the storage cannot be read.
        """
        top = self._path(check_uri(folder))
        try:
            found = self._fs.find(top, detail=True) if self._fs.isdir(top) else {}
        except FileNotFoundError:
            return []
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {folder} cannot be read ({error})") from error
        start = len(self._root.rstrip("/")) + 1
        return [
            StoredFile(path[start:], int(facts.get("size") or 0), _modified(facts))
            for path, facts in sorted(found.items())
        ]

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below ``folder``; an empty list without such a folder.

        Raises:
            StoreError: If the storage cannot be read.
        """
        return self._names(folder, "directory")

    def remove(self, uri: str) -> None:
        """Delete the file under ``uri``, if there is one.

        Raises:
            StoreError: If the file cannot be deleted.
        """
        try:
            self._fs.rm_file(self._path(check_uri(uri)))
        except FileNotFoundError:
            return
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {uri} cannot be deleted ({error})") from error

    def discard_partials(self, folder: str, name: str = "") -> None:
        """Delete half-written files below ``folder`` of processes that died while they stored something.

        Only the sole writer there may call it, before it starts to write: it would also delete files that are being
        written.

        Args:
            folder: Folder to search, at any depth.
            name: Beginning of the files' names.

        Raises:
            StoreError: If the storage cannot be read, or a file cannot be deleted.
        """
        try:
            for path in self._fs.find(self._path(check_uri(folder))):
                file = path.rpartition("/")[2]
                if file.startswith(name) and file.endswith(_PARTIAL):
                    self._fs.rm_file(path)
        except FileNotFoundError:
            return
        except self._faults as error:
            raise StoreError(f"storage {self._shown!r}: {folder} cannot be swept ({error})") from error

    def _path(self, uri: str) -> str:
        return f"{self._root.rstrip('/')}/{uri}"

    def _discard(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except self._faults:
            return  # nothing was written


def _modified(facts: Mapping[str, Any]) -> datetime | None:
    """Return the time of a file's last change, which kinds of storages name differently."""
    found = facts.get("mtime") or facts.get("LastModified") or facts.get("updated")
    if isinstance(found, datetime):
        return found.astimezone(UTC)
    return datetime.fromtimestamp(found, UTC) if isinstance(found, (int, float)) else None


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return digest.hexdigest(), size


def packed_files(folder: Path) -> list[PackedFile]:
    """Return the files of a package's folder with their checksums, by name."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(PackedFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
    return found


def zip_folder(folder: Path, target: Path) -> Path:
    """Pack ``folder`` with its name at the top into the zip file ``target``."""
    made = shutil.make_archive(os.fspath(target.with_suffix("")), "zip", folder.parent, folder.name)
    return Path(made)
