"""Parts of a latency table: subjects of its rows, times, circumstances, and the constant. Loads no torch."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from partialnet.errors import BudgetError

LAYOUTS = ("contiguous", "channels_last")


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse what is no integer of at least ``least``.

    Raises:
        BudgetError: If it is another value; the message gives its name.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BudgetError(f"{name} is {value!r}, but must be an integer of at least {least}")


def check_number(name: str, value: object, least: float = -math.inf) -> None:
    """Refuse what is no finite number of at least ``least``.

    Raises:
        BudgetError: If it is another value; the message gives its name.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Compared without conversion: a JSON integer may be too large for a float.
    if number and max(least, -sys.float_info.max) <= value <= sys.float_info.max:  # type: ignore[operator]
        return
    lowest = f" of at least {least:g}" if math.isfinite(least) else ""
    raise BudgetError(f"{name} is {value!r}, but must be a finite number{lowest}")


def check_word(name: str, value: object) -> None:
    """Refuse what is no text, or an empty one.

    Raises:
        BudgetError: If it is another value; the message gives its name.
    """
    if not isinstance(value, str) or not value.strip():
        raise BudgetError(f"{name} is {value!r}, but must be a text that is not empty")


class _Convolution:
    """What the calls of partial convolutions in two and in three parts have in common; they hold its values."""

    height: int
    width: int
    channels: int
    active_channels: int
    kernel_size: int
    rest: str
    heads: int

    def _check(self) -> None:
        for name in ("height", "width", "channels", "active_channels", "kernel_size"):
            check_integer(name, getattr(self, name), 1)
        check_integer("heads", self.heads, 0)
        check_word("rest", self.rest)

    @property
    def level(self) -> int:
        """Value that differs between rows of one shape: the active channels."""
        return self.active_channels

    @property
    def family(self) -> str:
        """Rows whose times differ alike between a layer alone and one in a network, whatever its parts are."""
        heads = f" with {self.heads} heads" if self.heads else ""
        return (
            f"{self.channels} channels on a {self.height}x{self.width} map, kernel {self.kernel_size}, "
            f"{self.rest}{heads}"
        )


@dataclass(frozen=True, order=True)
class LayerKey(_Convolution):
    """One call of a partial convolution at one level: all properties of a layer that its time depends on.

    Args:
        height: Height of its map in pixels.
        width: Width of its map in pixels.
        channels: Width C of the layer.
        active_channels: Convolved channels n.
        kernel_size: Size of the convolution's kernel.
        rest: Operation on the other channels, such as ``"channel_attention"``.
        heads: Number of heads of the self-attention; 0 without self-attention.

    Raises:
        BudgetError: If a value is out of its range.
    """

    height: int
    width: int
    channels: int
    active_channels: int
    kernel_size: int
    rest: str
    heads: int = 0

    def __post_init__(self) -> None:
        self._check()
        if self.active_channels > self.channels:
            raise BudgetError(f"active_channels is {self.active_channels}, but must be at most {self.channels}")

    @property
    def shape(self) -> str:
        """Shape of the layer without its level, in words."""
        return self.family


@dataclass(frozen=True, order=True)
class MlpKey:
    """One call of a block's MLP, with the block's shortcuts, at one hidden width.

    Args:
        height: Height of its map in pixels.
        width: Width of its map in pixels.
        channels: Width C of input and output.
        hidden_channels: Hidden width.
        form: Activation, attentions and shortcuts of the block, in words.

    Raises:
        BudgetError: If a value is out of its range.
    """

    height: int
    width: int
    channels: int
    hidden_channels: int
    form: str

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "hidden_channels"):
            check_integer(name, getattr(self, name), 1)
        check_word("form", self.form)

    @property
    def level(self) -> int:
        """Value that differs between rows of one shape: the hidden width."""
        return self.hidden_channels

    @property
    def shape(self) -> str:
        """Shape of the MLP without its hidden width, in words."""
        return self.family

    @property
    def family(self) -> str:
        """Rows whose times differ alike between a layer alone and one in a network: those of one shape."""
        return f"an MLP of {self.channels} channels on a {self.height}x{self.width} map, {self.form}"


@dataclass(frozen=True, order=True)
class ThreePartKey(_Convolution):
    """One call of a partial convolution in three parts, whose attention leaves some channels out.

    Args:
        height: Height of its map in pixels.
        width: Width of its map in pixels.
        channels: Width C of the layer.
        active_channels: Convolved channels n.
        attended_channels: Channels that the attention serves, fewer than C - n; 0 for none.
        kernel_size: Size of the convolution's kernel.
        rest: Operation on the attended channels, such as ``"channel_attention"``.
        heads: Number of heads of the self-attention; 0 without self-attention.

    Raises:
        BudgetError: If a value is out of its range.
    """

    height: int
    width: int
    channels: int
    active_channels: int
    attended_channels: int
    kernel_size: int
    rest: str
    heads: int = 0

    def __post_init__(self) -> None:
        self._check()
        check_integer("attended_channels", self.attended_channels, 0)
        left = self.channels - self.active_channels
        if self.attended_channels >= left:
            raise BudgetError(
                f"attended_channels is {self.attended_channels}, but must be less than {left}, the channels that are "
                "not convolved; a layer that attends to all of them has two parts"
            )

    @property
    def shape(self) -> str:
        """Shape of the layer without its active channels, in words."""
        return f"{self.family} on {self.attended_channels}"


RowKey = LayerKey | MlpKey | ThreePartKey
"""Subject of a row of a table."""


@dataclass(frozen=True)
class Timing:
    """A measured time.

    Args:
        ms: Median time in milliseconds for a pass of one batch.
        repetitions: Number of passes in the median.
        spread_ms: Interquartile range in milliseconds.

    Raises:
        BudgetError: If a value is out of its range.
    """

    ms: float
    repetitions: int
    spread_ms: float

    def __post_init__(self) -> None:
        check_number("ms", self.ms, 0)
        check_integer("repetitions", self.repetitions, 1)
        check_number("spread_ms", self.spread_ms, 0)


@dataclass(frozen=True)
class Circumstances:
    """Circumstances that all times of a table share.

    Args:
        device: Name that the processor or the accelerator reports.
        threads: Number of threads of the computation.
        dtype: Type of weights and maps, such as ``"float32"``.
        layout: Memory layout: ``"contiguous"`` or ``"channels_last"``.
        batch: Number of images in a pass.
        runtime: Runtime with its version.

    Raises:
        BudgetError: If a value is out of its range.
    """

    device: str
    threads: int
    dtype: str
    layout: str
    batch: int
    runtime: str

    def __post_init__(self) -> None:
        for name in ("device", "dtype", "runtime"):
            check_word(name, getattr(self, name))
        for name in ("threads", "batch"):
            check_integer(name, getattr(self, name), 1)
        if self.layout not in LAYOUTS:
            raise BudgetError(f"layout is {self.layout!r}, but must be one of {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class Constant:
    """The time that no split changes, fitted to whole networks; below 0 if layers are faster together.

    Args:
        network: Kind of network and input that it belongs to.
        ms: Median over the networks of the time in milliseconds that their layers do not explain.
        repetitions: Number of networks.
        spread_ms: Interquartile range over the networks in milliseconds.

    Raises:
        BudgetError: If a value is out of its range.
    """

    network: str
    ms: float
    repetitions: int
    spread_ms: float

    def __post_init__(self) -> None:
        check_word("network", self.network)
        check_number("ms", self.ms)
        check_integer("repetitions", self.repetitions, 1)
        check_number("spread_ms", self.spread_ms, 0)
