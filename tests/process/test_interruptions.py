"""A server's loop goes on, whatever is raised into it, and whenever."""

import asyncio
from typing import Any

import pytest

from bide.process import interruptions


def test_what_is_raised_while_an_error_is_told_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal may come then, too, and its handler raise."""
    told: list[BaseException] = []

    def tell(_: str, *, exc_info: BaseException) -> None:
        told.append(exc_info)
        if len(told) == 1:
            raise LookupError("by a signal's handler")

    def leave() -> Any:
        raise SystemExit(3)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(leave)
        while len(told) < 2:
            await asyncio.sleep(0)

    monkeypatch.setattr(interruptions.log, "error", tell)
    loop = asyncio.new_event_loop()
    try:
        interruptions.run_through(loop, main())
    finally:
        loop.close()
    assert [type(each) for each in told] == [SystemExit, LookupError]
