"""Reading CIFAR's pickled batches without running code from them.

A pickle is a program, so loading a foreign one may do anything. This reader knows only the few names that a pickled
NumPy array of bytes needs. It puts its own plain functions in their place, and refuses all other names.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from partialnet.errors import DataError

_ARRAY = "ndarray"
_BYTE_CODES = ("u1", b"u1", "|u1", b"|u1")


class _Dtype:
    """Stands for ``numpy.dtype``; accepts only bytes."""

    def __init__(self, code: object) -> None:
        if code not in _BYTE_CODES:
            raise pickle.UnpicklingError(f"holds an array of type {code!r}, but images are bytes (u1)")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which bytes do not have."""


class _Array:
    """Stands for ``numpy.ndarray`` while its state is read."""

    def __init__(self) -> None:
        self.values = np.zeros((0,), dtype=np.uint8)

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype)):
            raise pickle.UnpicklingError("holds an array in an unknown form")
        _, shape, _, column_major, data = state
        self.values = _array(data, shape, "F" if column_major else "C")


def _array(data: object, shape: object, order: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if isinstance(data, str):  # Python 2 wrote bytes as text
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("holds an array without bytes or without a shape")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape, order="F" if order == "F" else "C")


class _BatchUnpickler(pickle._Unpickler):
    """Unpickler that offers only bound methods and a word: nothing that a pickle could change or misuse.

    It is the Python one, not the C one: a tampered file makes it raise, but never reserve unlimited memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")
        self._known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _ARRAY,
            ("numpy", "dtype"): self._dtype,
            ("_codecs", "encode"): self._encode,
        }
        for package in ("numpy.core", "numpy._core"):
            self._known[f"{package}.multiarray", "_reconstruct"] = self._reconstruct
            self._known[f"{package}.numeric", "_frombuffer"] = self._frombuffer

    def find_class(self, module: str, name: str) -> Any:
        """Return our stand-in for a known name.

        Raises:
            UnpicklingError: If the name is not one of these.
        """
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no batch of images needs") from None

    def _dtype(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def _encode(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"encodes {type(text).__name__} as {encoding!r}")
        return text.encode("latin1")

    def _reconstruct(self, kind: object, *_: object) -> _Array:
        if kind != _ARRAY:
            raise pickle.UnpicklingError("holds an array of an unknown class")
        return _Array()

    def _frombuffer(self, data: object, dtype: object, shape: object, order: object) -> _Array:
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("holds an array in an unknown form")
        array = _Array()
        array.values = _array(data, shape, order)
        return array


def read_batch(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of byte arrays, lists, numbers and text.

    Returns:
        Values under text keys, with arrays as uint8.

    Raises:
        DataError: If the file is missing or damaged, calls for code, or holds no dictionary; the message names it.
    """
    try:
        content = _BatchUnpickler(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise any type of exception
        raise DataError(f"{path}: damaged, or no batch of CIFAR: it {_told(error)}; fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, but a batch of CIFAR is a dictionary")
    return {_text(key): value.values if isinstance(value, _Array) else value for key, value in content.items()}


def _told(error: Exception) -> str:
    message = str(error)
    return message if message.startswith(("asks", "holds", "encodes")) else f"cannot be unpickled ({message})"


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
