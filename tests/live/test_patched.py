"""What gevent and eventlet put in the places of threads: refused, or harmless."""

import os
from pathlib import Path

from tests.failures import Failures
from tests.live.conftest import Start
from tests.live.processes import get

GEVENT = """
from gevent import monkey
monkey.patch_all({options})
import queue, subprocess, threading, time, bide

def in_a_thread():
    results = queue.Queue()
    threading.Thread(target=lambda: results.put(subprocess.run(["true"]).returncode)).start()
    time.sleep(0.001)
    return results.get()

def app(environ, start_response):
    found = b"%d %d" % (in_a_thread(), bide.wait(bide.in_thread(in_a_thread)))
    start_response("200 OK", [])
    return [found]
"""

EVENTLET = """
already_patched = {"thread": True, "socket": True}
"""


def test_an_application_that_patches_threads_is_refused(start: Start, tmp_path: Path) -> None:
    """In one line that names what is patched, and the remedy; the import itself may fail of it."""
    remedy = "thread=False, queue=False, subprocess=False, os=False, signal=False"
    tables = {
        "": "thread, queue, subprocess and os",
        "thread=False": "queue, subprocess and os",
        "queue=False, subprocess=False, os=False, signal=False": "thread",
    }
    with Failures() as failures:
        for number, (options, names) in enumerate(tables.items()):
            with failures.of(options):
                name = f"patched{number}"
                (tmp_path / f"{name}.py").write_text(GEVENT.format(options=options))
                program = start(f"{name}:app", "--bind", "127.0.0.1:0")
                assert program.wait() == 1
                assert program.lines == [
                    f"bide: gevent has patched {names}, and Bide's threads would hang: remove "
                    f"monkey.patch_all(), or write monkey.patch_all({remedy})"
                ]


def test_the_remedy_that_is_named_works(start: Start, tmp_path: Path) -> None:
    """Threads and programs of a view, on a lane and beside it; then a stop."""
    remedy = "thread=False, queue=False, subprocess=False, os=False, signal=False"
    (tmp_path / "patched.py").write_text(GEVENT.format(options=remedy))
    program = start("patched:app", "--bind", "127.0.0.1:0", PATH=os.environ["PATH"])
    assert get(program.serving()).text == "0 0"


def test_an_application_that_eventlet_has_patched_is_refused(start: Start, tmp_path: Path) -> None:
    """Whatever it has patched: a package of eventlet's name stands in for it."""
    (tmp_path / "eventlet").mkdir()
    (tmp_path / "eventlet" / "__init__.py").write_text("")
    (tmp_path / "eventlet" / "patcher.py").write_text(EVENTLET)
    (tmp_path / "mysite.py").write_text("import eventlet.patcher\ndef app(e, s): pass\n")
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    assert program.wait() == 1
    assert program.lines == [
        "bide: eventlet has patched socket and thread, and Bide's threads would hang: remove "
        "eventlet.monkey_patch()"
    ]
