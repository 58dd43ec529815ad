"""A pool of connections for coroutines, as asyncpg's and others are; here of SQLite's."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


class Pool:
    """A few connections. Who finds none free waits for one.

    Attributes:
        size: how many there are.
        most: how many were in use at once, at the most.
    """

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self.size = len(connections)
        self.most = 0
        self._free: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()
        for each in connections:
            self._free.put_nowait(each)

    async def fetch(self, query: str, *values: Any) -> list[Row]:
        """Run a query, commit, and return its rows."""
        connection = await self._free.get()
        self.most = max(self.most, self.size - self._free.qsize())
        query_ends = asyncio.ensure_future(asyncio.to_thread(_run, connection, query, values))
        # Not before that, also if whoever asks does not wait for the end.
        query_ends.add_done_callback(lambda _: self._free.put_nowait(connection))
        return await asyncio.shield(query_ends)


def _run(connection: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[Row]:
    with connection:
        return connection.execute(query, values).fetchall()


@asynccontextmanager
async def open_pool(path: Path, size: int) -> AsyncIterator[Pool]:
    """Open a pool for the length of the ``async with`` block."""
    connections = [sqlite3.connect(path, check_same_thread=False) for _ in range(size)]
    try:
        yield Pool(connections)
    finally:
        for each in connections:
            each.close()
