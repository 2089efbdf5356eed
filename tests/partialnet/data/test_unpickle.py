from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partialnet.data.readers.unpickle import read_batch
from partialnet.errors import DataError
from tests.samples import examples

from . import made

SMALL = (
    made.python2_pickle(made.pixels(1, 6), [3]),
    *(pickle.dumps({b"data": made.pixels(2, 3), b"labels": [1, 2]}, protocol=protocol) for protocol in (2, 4, 5)),
)


class Harmful:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def test_what_python_2_wrote_is_what_pickle_reads(tmp_path: Path) -> None:
    images, targets = made.pixels(3, 3072), [3, 1, 2]
    content = made.python2_pickle(images, targets)
    pickletools.dis(content, out=io.StringIO())  # it is a whole program
    trusted = pickle.loads(content, encoding="bytes")
    (tmp_path / "batch").write_bytes(content)
    batch = read_batch(tmp_path / "batch")
    assert batch["labels"] == trusted[b"labels"] == targets
    assert np.array_equal(batch["data"], trusted[b"data"])
    assert np.array_equal(batch["data"], images)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_protocol(tmp_path: Path, protocol: int, order: Any) -> None:
    array = np.asarray(made.pixels(5, 7), order=order)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": array, b"labels": [1]}, protocol=protocol))
    assert np.array_equal(read_batch(tmp_path / "batch")["data"], array)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (os.system, ("touch {marker}",)),
        (eval, ("open({marker!r}, 'w')",)),
        (exec, ("open({marker!r}, 'w')",)),
        (os.mkdir, ("{marker}",)),
        (getattr, (np, "save")),
        (np.fromfile, ("{marker}",)),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path: Path, call: Any, arguments: tuple[Any, ...], protocol: int) -> None:
    marker = tmp_path / "ran"
    filled = [part.format(marker=str(marker)) if isinstance(part, str) else part.__name__ for part in arguments]
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": Harmful(call, *filled)}, protocol=protocol))
    with pytest.raises(DataError, match=r"batch: .*asks for .*, which no batch of images needs"):
        read_batch(tmp_path / "batch")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00otherK\x01sb.",  # a state for a stand-in
        b"\x80\x02cnumpy\ndtype\nN}X\x08\x00\x00\x00__code__K\x01s\x86b.",  # attributes for a stand-in
        b"\x80\x02cnumpy\ndtype\n)\x81.",  # an object of a stand-in, past its constructor
        b"\x80\x02cnumpy\nndarray\n)R.",  # a call of the word that stands for arrays
        b"\x80\x02c_codecs\nencode\nK\x05K\x06\x86R.",
        b"\x80\x02Pname\n.",  # a persistent id
        b"\x82\x01.",  # an extension
    ],
)
def test_tampered_programs_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="batch: "):
        read_batch(tmp_path / "batch")
    whole = made.python2_pickle(made.pixels(2, 3072), [0, 1])
    (tmp_path / "batch").write_bytes(whole)  # and the reader is unharmed
    assert read_batch(tmp_path / "batch")["labels"] == [0, 1]


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_of_any_kind_is_told_or_does_no_harm(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "batch"
    path.write_bytes(bytes(content))
    with contextlib.suppress(DataError):  # and nothing else
        assert isinstance(read_batch(path), dict)


def test_no_memory_is_reserved_for_a_promise(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")  # "keep this as number four milliards"
    tracemalloc.start()
    try:
        assert read_batch(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: cannot be read \(No such file"):
        read_batch(tmp_path / "gone")
