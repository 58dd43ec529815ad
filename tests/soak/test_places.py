"""What the soak shares: a place that is not back is seen, and one that came back twice."""

import asyncio

from soak import places


def test_a_look_tells_how_many_places_are_not_back() -> None:
    """Of the semaphore, the lock and the pool; below zero where there are too many."""

    async def take_and_give_back() -> list[int]:
        counts = [await places.missing()]
        await places._semaphore.acquire()
        counts.append(await places.missing())
        await places._lock.acquire()
        counts.append(await places.missing())
        place = await places._pool.get()
        counts.append(await places.missing())
        places._semaphore.release()
        places._lock.release()
        places._pool.put_nowait(place)
        counts.append(await places.missing())
        places._semaphore.release()
        counts.append(await places.missing())
        await places._semaphore.acquire()
        return counts

    assert asyncio.run(take_and_give_back()) == [0, 1, 2, 3, 0, -1]
