"""Shared reads: few reads for many who ask, and none that began before somebody asked."""

from __future__ import annotations

import asyncio

import pytest

from service.shared import SharedReads


class Source:
    """A source whose reads last until ``free`` is set; a read tells the value that was there when it began."""

    def __init__(self) -> None:
        self.value, self.reads = 0, 0
        self.free = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        found = self.value
        await self.free.wait()
        if found < 0:
            raise ValueError(found)
        return found


async def settled() -> None:
    """Let every task go on until it waits for a source."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_whoever_asks_during_a_read_gets_the_next_one_together() -> None:
    async def run() -> tuple[list[int], int]:
        source, shared = Source(), SharedReads()
        first = [asyncio.create_task(shared.read("a", source.read)) for _ in range(5)]
        await settled()  # their read is under way
        source.value = 1
        later = [asyncio.create_task(shared.read("a", source.read)) for _ in range(5)]
        await settled()
        source.free.set()
        found = await asyncio.gather(*first, *later)
        assert not shared._turns
        assert not shared._coming
        return found, source.reads

    assert asyncio.run(run()) == ([0] * 5 + [1] * 5, 2)


def test_other_keys_do_not_wait() -> None:
    async def run() -> int:
        source, shared = Source(), SharedReads()
        reads = [asyncio.create_task(shared.read(key, source.read)) for key in range(10)]
        await settled()
        under_way = source.reads
        source.free.set()
        await asyncio.gather(*reads)
        return under_way

    assert asyncio.run(run()) == 10


def test_an_error_reaches_all_and_the_next_read_is_a_new_one() -> None:
    async def run() -> int:
        source, shared = Source(), SharedReads()
        source.value = -1
        source.free.set()
        found = await asyncio.gather(*(shared.read("a", source.read) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in found] == [ValueError] * 3
        source.value = 2
        result: int = await shared.read("a", source.read)
        return result

    assert asyncio.run(run()) == 2


def test_a_client_that_goes_away_ends_no_read_of_others() -> None:
    async def run() -> int:
        source, shared = Source(), SharedReads()
        gone, stays = (asyncio.create_task(shared.read("a", source.read)) for _ in range(2))
        await settled()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        source.free.set()
        result: int = await stays
        return result

    assert asyncio.run(run()) == 0


def test_a_read_that_is_cancelled_before_its_turn_leaves_nothing_behind() -> None:
    async def run() -> int:
        source, shared = Source(), SharedReads()
        first = asyncio.create_task(shared.read("a", source.read))
        await settled()
        second = asyncio.create_task(shared.read("a", source.read))
        await settled()
        shared._coming["a"].cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        source.free.set()
        assert await first == 0
        assert not shared._turns
        result: int = await shared.read("a", source.read)
        return result

    assert asyncio.run(run()) == 0
