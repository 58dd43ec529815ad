"""The interface for programs: FastAPI, whose lifespan makes the pool."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request

from examples.shared_pool.pool import Pool, open_pool

CONNECTIONS = 2


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Pool]]:
    """Make the state of the whole server: this application's, and that of its neighbour."""
    directory = os.environ.get("PRICES_DIRECTORY") or tempfile.gettempdir()
    async with open_pool(Path(directory, "bide-shared-pool.sqlite3"), CONNECTIONS) as pool:
        await pool.fetch("CREATE TABLE IF NOT EXISTS prices (item TEXT PRIMARY KEY, cents INTEGER)")
        await pool.fetch("INSERT OR IGNORE INTO prices VALUES ('tea', 250), ('coffee', 300)")
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)


@app.get("/prices/{item}")
async def show(item: str, request: Request) -> dict[str, int]:
    """Return what an item costs."""
    pool: Pool = request.state.pool
    rows = await pool.fetch("SELECT cents FROM prices WHERE item = ?", item)
    if not rows:
        raise HTTPException(404)
    return {"cents": rows[0][0]}


@app.put("/prices/{item}")
async def change(item: str, cents: int, request: Request) -> dict[str, int]:
    """Set what an item costs."""
    pool: Pool = request.state.pool
    await pool.fetch("INSERT OR REPLACE INTO prices VALUES (?, ?)", item, cents)
    return {"cents": cents}


@app.get("/pool")
async def count(request: Request) -> dict[str, int]:
    """Return how many connections there are, and how many were in use at once."""
    pool: Pool = request.state.pool
    return {"size": pool.size, "most": pool.most}
