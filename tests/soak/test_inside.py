"""The soak's look inside: what is kept for a time is not taken for what is left."""

from __future__ import annotations

import asyncio
import gc
import linecache
import traceback
import weakref

from soak.inside import empty_caches


def test_emptying_the_caches_drops_the_source_that_a_traceback_has_read() -> None:
    """A line of the monitor makes one whenever it comes first: thousands of lines at once."""

    async def look() -> None:
        await empty_caches()
        assert not linecache.cache

    traceback.format_stack()
    assert linecache.cache
    asyncio.run(look())


def test_emptying_the_caches_drops_cancelled_timers_and_leaves_the_others() -> None:
    """Up to a hundred of them are kept, with all that they hold, until their time comes."""

    async def look() -> None:
        loop = asyncio.get_running_loop()
        due = asyncio.Event()
        timers = [loop.call_later(3600.0, int) for _ in range(90)]
        loop.call_later(0.01, due.set)
        for timer in timers:
            timer.cancel()
        kept = weakref.WeakSet(timers)
        del timer, timers
        await asyncio.sleep(0)
        gc.collect()
        assert len(kept) == 90
        await empty_caches()
        gc.collect()
        assert not kept
        await due.wait()

    asyncio.run(look())
