"""What was measured, kept on disk at once: a file of JSON lines, each complete in itself. No torch.

A line is one turn of one network: its counts, or the times of its passes in one round. Lines belong together that have
the same circumstances (machine, versions, settings), so one file serves several machines and settings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from nas.errors import InputError
from partialnet.files import whole_file

What = Literal["counts", "latency", "throughput"]
_KEYS = frozenset({"key", "circumstances", "network", "what", "round", "at", "figures"})


class Line(NamedTuple):
    """One turn of one network."""

    network: str
    what: What
    round: int
    at: str
    """Time of day in UTC, ISO 8601."""
    figures: Mapping[str, Any]
    """``params``, ``macs``, ... of counts; of the others ``batch``, times of single passes: ``ms``, and ``busy_ms``,
    the processor's own."""


class Results:
    """The lines of one file that belong to some circumstances.

    Args:
        path: Made with the first line; its folder must exist.
        circumstances: Machine, versions and settings.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, circumstances: Mapping[str, Any]) -> None:
        self.path = path
        self.circumstances = circumstances
        canonical = json.dumps(circumstances, sort_keys=True, separators=(",", ":"))
        self._key = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: the folder {path.absolute().parent} does not exist")
        self._entries = _read(path)
        self.lines = [_line(entry) for entry in self._entries if entry["key"] == self._key]

    def has(self, network: str, what: What, turn: int) -> bool:
        """Return whether a turn is done."""
        return any((line.network, line.what, line.round) == (network, what, turn) for line in self.lines)

    def add(self, line: Line) -> None:
        """Keep a line; when this returns it is on the disk.

        Raises:
            InputError: If the file cannot be written to.
        """
        entry = {"key": self._key, "circumstances": self.circumstances, **line._asdict()}
        try:
            with self.path.open("ab+") as file:
                # what a crash left of a line must not swallow this one
                start = b"\n" if _is_torn(file) else b""
                file.write(start + json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written to ({error.strerror})") from error
        self._entries.append(entry)
        self.lines.append(line)

    def forget(self, networks: Iterable[str]) -> None:
        """Drop what is known of networks under these circumstances; other lines stay."""
        gone = set(networks)
        kept = [entry for entry in self._entries if entry["key"] != self._key or entry["network"] not in gone]
        if len(kept) == len(self._entries):
            return
        with whole_file(self.path) as fresh:
            fresh.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._entries = kept
        self.lines = [line for line in self.lines if line.network not in gone]


def _is_torn(file: BinaryIO) -> bool:
    """Return whether a file's last line has no end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as results of nas bench ({error})") from error
    lines: Sequence[str] = text.split("\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line) if line else None
        except ValueError:
            continue  # torn by a crash: that turn is taken again
        if entry is None:
            continue
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            raise InputError(f"{path}: line {number} is no result of nas bench; name another file with --results")
        entries.append(entry)
    if lines != [""] and not entries:
        raise InputError(f"{path}: holds no results of nas bench; name another file with --results")
    return entries


def _line(entry: Mapping[str, Any]) -> Line:
    return Line(*(entry[field] for field in Line._fields))
