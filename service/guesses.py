"""Slows down those who guess tokens: by their address, and all of them together.

After a few wrong secrets, each further unknown secret from the address waits before it is checked, so that also the
time of the answer tells nothing. A right one is never refused for the mistakes of others: it waits for seconds at
most, and one that was right a moment ago, from the same address, does not wait at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FREE_MISTAKES = 5
LONGEST_WAIT = 4.0
_FIRST_WAIT = 0.25
_MEMORY_SECONDS = 300.0
_OVERALL_PER_MINUTE = 100
_OVERALL_WAIT = 1.0
_WAITING_PER_ADDRESS = 8
_WAITING = 200
_ADDRESSES = 10_000


class Guesses:
    """Wrong secrets of the last minutes.

    Args:
        clock: Clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mistakes: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._right: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: dict[str, int] = {}
        self._minute = (0, clock())

    def delay(self, address: str) -> float:
        """Return the time in seconds that an unknown secret from ``address`` waits."""
        count, last = self._mistakes.get(_network(address), (0, 0.0))
        count = 0 if self._clock() - last > _MEMORY_SECONDS else count
        own = 0.0 if count < FREE_MISTAKES else min(LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(count - FREE_MISTAKES, 10))
        return max(own, _OVERALL_WAIT if self._in_this_minute() >= _OVERALL_PER_MINUTE else 0.0)

    async def wait(self, address: str) -> bool:
        """Wait before an unknown secret is checked; return False at once if too many from there wait already."""
        network, seconds = _network(address), self.delay(address)
        if seconds <= 0:
            return True
        if self._waiting.get(network, 0) >= _WAITING_PER_ADDRESS or sum(self._waiting.values()) >= _WAITING:
            return False
        self._waiting[network] = self._waiting.get(network, 0) + 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]
        return True

    def wrong(self, address: str) -> None:
        """Record a wrong secret."""
        network, now = _network(address), self._clock()
        count, last = self._mistakes.pop(network, (0, now))
        self._mistakes[network] = (1 if now - last > _MEMORY_SECONDS else count + 1, now)
        if len(self._mistakes) > _ADDRESSES:
            self._mistakes.popitem(last=False)
        self._minute = (self._in_this_minute() + 1, self._minute[1])

    def right(self, address: str, secret_digest: str) -> None:
        """Record a right secret, which its user sends again without waiting.

        The mistakes of the address stay: a guesser may have a token of their own.
        """
        key = (_network(address), secret_digest)
        self._right.pop(key, None)
        self._right[key] = self._clock()
        if len(self._right) > _ADDRESSES:
            self._right.popitem(last=False)

    def was_right(self, address: str, secret_digest: str) -> bool:
        """Return whether this secret came from this address a moment ago, and was right."""
        seen = self._right.get((_network(address), secret_digest))
        return seen is not None and self._clock() - seen <= _MEMORY_SECONDS

    def _in_this_minute(self) -> int:
        count, began = self._minute
        if self._clock() - began >= 60.0:
            self._minute = (count := 0, self._clock())
        return count


def _network(address: str) -> str:
    """Return what counts as one address: a network of IPv6 has more addresses than anyone can count."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{found}/64", strict=False)) if found.version == 6 else address
