"""Where the images of tar shards lie, found by one pass over their headers and kept outside the data roots."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from partialnet.data.cache import VARIABLE, cache_directory
from partialnet.data.images import SUFFIXES
from partialnet.data.readers.labels import distinct
from partialnet.errors import DataError, printable
from partialnet.files import save_safetensors, whole_file

_SCHEMA = 1
_ENDS = 1 << 16  # bytes at the start and the end of a shard that tell it from others
_LARGEST_LABEL = 1 << 20  # bytes
_LABEL_KEYS = ("label", "cls")
_OTHER = "members that are neither files nor folders"
_WITHOUT_IMAGE = "samples without an image"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardIndex:
    """Places, names and labels of N images.

    Args:
        places: Shard, offset and number of bytes of each image, int64 [N, 3].
        names: Names of all members, one after the other, in UTF-8.
        ends: End of each image's name in ``names``, int64 [N].
        labels: The different labels.
        codes: Place of each image's label in ``labels``, int64 [N].
        left_out: Number of unused members by reason.
    """

    places: NDArray[np.int64]
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]
    labels: tuple[str, ...]
    codes: Tensor
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, place: int) -> str:
        """Return the name of an image's member."""
        start = int(self.ends[place - 1]) if place else 0
        return self.names[start : int(self.ends[place])].tobytes().decode(errors="surrogateescape")


def indexed(name: str, shards: Sequence[Path]) -> ShardIndex:
    """Return the index of ``shards``, built now or earlier; only the first of several processes builds it.

    Args:
        name: Name of the data set and part, for the file's name and messages.
        shards: Paths of the shards.

    Raises:
        DataError: If a shard is damaged, or a sample is not whole; the message names shard and member.
    """
    fingerprint = _fingerprint(shards)
    file = cache_directory() / f"{name}-{fingerprint[:16]}.index.safetensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            index = _load(file, fingerprint)
            if index is None:
                index = build_index(name, shards)
                _save(file, fingerprint, index)
            return index
    except OSError as error:
        _log.warning(
            "%s: the index of the shards cannot be kept in %s (%s); set %s to a folder that can be written",
            name, file.parent, error.strerror or error, VARIABLE,
        )
        return build_index(name, shards)


def build_index(name: str, shards: Sequence[Path]) -> ShardIndex:
    """Read the headers of all members, and the labels; arguments and errors are those of :func:`indexed`."""
    places: list[tuple[int, int, int]] = []
    names: list[bytes] = []
    labels: list[str] = []
    left_out: Counter[str] = Counter()
    seen: dict[str, int] = {}
    told = time.monotonic()
    for number, shard in enumerate(shards):
        for key, sample in _samples(shard, left_out).items():
            if key in seen:
                raise DataError(f"{shard}: the sample {key!r} is in {shards[seen[key]]} as well; keys must differ")
            seen[key] = number
            if sample.image is None:
                left_out[_WITHOUT_IMAGE] += 1
                continue
            if sample.label is None:
                raise DataError(f"{shard}: {sample.image.name}: has no label; looked for {key}.cls and {key}.json")
            places.append((number, sample.image.offset_data, sample.image.size))
            names.append(sample.image.name.encode(errors="surrogateescape"))
            labels.append(sample.label)
        if time.monotonic() - told > 2:
            told = time.monotonic()
            _log.info("%s: indexed %d of %d shards, %d images", name, number + 1, len(shards), len(names))
    if not names:
        raise DataError(f"{shards[0].parent}: the {len(shards)} shards of {name} hold no images")
    texts, codes = distinct(labels)
    ends = np.cumsum([len(text) for text in names], dtype=np.int64)
    joined = np.frombuffer(b"".join(names), dtype=np.uint8)
    return ShardIndex(np.array(places, dtype=np.int64), joined, ends, tuple(texts), codes, dict(left_out))


@dataclass
class _Sample:
    """The members of one key: its image, and its label from a ``.cls`` file or else from a ``.json`` one."""

    image: tarfile.TarInfo | None = None
    label: str | None = None
    suffixes: frozenset[str] = frozenset()


def _samples(shard: Path, left_out: Counter[str]) -> dict[str, _Sample]:
    """Return the samples of a shard by key: the name up to the first dot after the folder, as WebDataset has it."""
    samples: dict[str, _Sample] = {}
    with shard.open("rb") as raw:
        for member in _members(shard, raw):
            folder, _, base = member.name.rpartition("/")
            if member.isdir() or base.startswith("."):
                continue
            if not member.isreg() or member.issparse():
                left_out[_OTHER] += 1  # a link could lead anywhere
                continue
            stem, _, suffix = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            sample, suffix = samples.setdefault(key, _Sample()), suffix.lower()
            if suffix in sample.suffixes:
                raise DataError(f"{shard}: {member.name}: is in the shard twice; keys must differ")
            sample.suffixes |= {suffix}
            if f".{suffix}" in SUFFIXES:
                if sample.image is not None:
                    raise DataError(f"{shard}: {member.name}: its sample has another image, {sample.image.name}")
                sample.image = member
            elif suffix == "cls" or (suffix == "json" and "cls" not in sample.suffixes):
                sample.label = _label(shard, raw, member, suffix)
    return samples


def _members(shard: Path, raw: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a shard.

    Raises:
        DataError: If it is no plain tar file, or is cut off or damaged; the message names the place.
    """
    size = os.fstat(raw.fileno()).st_size
    try:
        with tarfile.open(fileobj=raw, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.offset_data + member.size > size:
                    raise DataError(f"{shard}: {member.name}: is cut off; fetch the shard again")
                yield member
                archive.members = []  # type: ignore[attr-defined]  # otherwise it remembers every header
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{shard}: damaged, cut off, or no uncompressed tar file ({error}); fetch it again") from error
    # tarfile takes a damaged header for the end, so the mark of the end must be there.
    if os.pread(raw.fileno(), tarfile.BLOCKSIZE, end) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise DataError(f"{shard}: damaged or cut off at byte {end}: there is no end mark; fetch it again")


def _label(shard: Path, raw: BinaryIO, member: tarfile.TarInfo, suffix: str) -> str:
    if member.size > _LARGEST_LABEL:
        raise DataError(f"{shard}: {member.name}: has {member.size:,} bytes, which is too much for a label")
    content = os.pread(raw.fileno(), member.size, member.offset_data)
    try:
        text = content.decode("utf-8").strip()
        if suffix == "json":
            text = _from_json(json.loads(text))
    except ValueError as error:  # also of the encoding
        raise DataError(f"{shard}: {member.name}: cannot be read as a label ({error})") from error
    if not text:
        raise DataError(f"{shard}: {member.name}: the label is empty")
    return text


def _from_json(found: object) -> str:
    value = found
    if isinstance(found, dict):
        value = next((found[key] for key in _LABEL_KEYS if key in found), None)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("must hold a number or a name under 'label'")
    return str(value).strip()


def _fingerprint(shards: Sequence[Path]) -> str:
    """Hash what tells shards from others: place, size, time, and both ends; reading all would take hours."""
    digest = hashlib.sha256(f"{_SCHEMA}".encode())
    for shard in shards:
        try:
            with shard.open("rb") as file:
                facts = os.fstat(file.fileno())
                digest.update(os.fsencode(f"{shard.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}\0"))
                digest.update(os.pread(file.fileno(), _ENDS, 0))
                digest.update(os.pread(file.fileno(), _ENDS, max(0, facts.st_size - _ENDS)))
        except OSError as error:
            raise DataError(f"{shard}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _save(file: Path, fingerprint: str, index: ShardIndex) -> None:
    tensors = {
        "places": torch.from_numpy(index.places),
        "names": torch.from_numpy(index.names.copy()),
        "ends": torch.from_numpy(index.ends),
        "codes": index.codes,
    }
    metadata = {
        "fingerprint": fingerprint,
        "labels": json.dumps(index.labels),
        "left_out": json.dumps(dict(index.left_out)),
    }
    try:
        with whole_file(file) as fresh:
            save_safetensors(tensors, fresh, metadata)
    except (OSError, SafetensorError) as error:  # a full disk must not cost the index
        _log.warning("%s: the index of the shards cannot be kept (%s)", file, printable(str(error)))


def _load(file: Path, fingerprint: str) -> ShardIndex | None:
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            facts = content.metadata() or {}
            if facts.get("fingerprint") != fingerprint:
                return None
            places, names, ends, codes = (content.get_tensor(key) for key in ("places", "names", "ends", "codes"))
            labels, left_out = tuple(json.loads(facts["labels"])), json.loads(facts["left_out"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        _log.warning("%s: damaged (%s), reading the shards again", file, error)
        return None
    return ShardIndex(places.numpy(), names.numpy(), ends.numpy(), labels, codes, left_out)
