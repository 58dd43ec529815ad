"""Attacks on a real server over HTTP/2: what each may cost at most, whatever it sends.

Nothing here depends on how fast the machine is; `python -m soak.http2` measures.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from soak.http2_attacks import ATTACKS, SOURCE
from tests.failures import same
from tests.http2_clients import Client, get
from tests.live.conftest import Start
from tests.served import until

GROWTH = 40 * 1024 * 1024
"""Bytes by which an attack may let the server grow: its limits, and what CPython keeps."""


def resident(process: int) -> int:
    """Return the bytes of memory that a process uses."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_cost_little_and_nobody_else_notices(
    name: str, start: Start, tmp_path: Path
) -> None:
    """Calls, memory and the other connection's answers; and the attacker is told why it ends."""
    attack = ATTACKS[name]
    (tmp_path / "attacked.py").write_text(SOURCE)
    # What is freed goes back to the system: glibc would keep what is freed between two objects.
    program = start("attacked:app", "--bind", "127.0.0.1:0", MALLOC_MMAP_THRESHOLD_="65536")
    address = program.serving()
    with Client(address) as other:
        for _ in range(20):
            same(other.ask(get(b"/other")).status, 200)
        before = resident(program.pid)
        with Client(address) as attacker:
            attack.run(attacker)
            same(other.ask(get(b"/other")).body, b"x" * 10)
            begun = int(other.ask(get(b"/begun")).body)
            assert begun <= attack.begun, begun
            if attack.reason:
                assert attacker.gone is not None
                code, why = attacker.gone
                calm = code == ErrorCodes.ENHANCE_YOUR_CALM
                same(calm, attack.reason != "http2_error")
                attacker.until_closed()
                until(lambda: program.until(f"({attack.reason}), the last: {why}"))
            else:
                same(attacker.gone, None)
        same(other.ask(get(b"/other")).body, b"x" * 10)
        grown = resident(program.pid) - before
        assert grown < GROWTH, grown
