"""What building a wheel compiles; a hook of hatchling.

With a C compiler the Cython modules are built. Without one the wheel is pure Python, which does the
same more slowly. ``BIDE_COMPILE=1`` asks for the compiled form: mypyc compiles the modules of
``COMPILED``, too, and a build that cannot make it fails. ``BIDE_PURE=1`` asks for the pure form.
The source distribution and an editable install are pure always: what is compiled beside a source
would hide what is changed in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED: Final = """
native
asgi/answering asgi/call asgi/messages
exchange/body exchange/call exchange/channel exchange/messages exchange/peer exchange/stream
exchange/totals
executors/executor executors/hub executors/lane executors/loop executors/roster
executors/tasks executors/threads
protocols/caught_up protocols/interfaces
protocols/http1/chunked protocols/http1/heads protocols/http1/pipeline
protocols/http1/reading protocols/http1/syntax protocols/http1/writing
protocols/http2/buckets protocols/http2/connection protocols/http2/exchange
protocols/http2/guard protocols/http2/heads protocols/http2/receiving protocols/http2/sending
protocols/websocket/arrivals protocols/websocket/connection protocols/websocket/inbox
serving/connection serving/counters serving/deadlines
transports/closing transports/connected transports/lingering transports/openssl
transports/pollable transports/streaming transports/tcp transports/tls exchange/unsent
waiting/adapters waiting/background waiting/current waiting/deadlines waiting/futures waiting/loops
waiting/outcome waiting/parking waiting/times waiting/waiter
wsgi/conversation wsgi/environ wsgi/input wsgi/pushing
"""
"""The modules of the package that mypyc compiles: those on the path of a request or of a wait.

What looks at frames (``waiting/cleanups``, ``waiting/locks``), awaits (``waiting/awaiting``) or
inherits from a type written in C (``executors/shells``) or from a class of another package
(``protocols/http2/setup``) cannot be.
"""

MYPYC: Final = "mypy[mypyc]>=2.4,<2.5"


class CompilingHook(BuildHookInterface[Any]):
    """Compiles what is to be compiled, and puts it into the wheel."""

    PLUGIN_NAME = "custom"

    _target: Path | None = None  # where this build compiles; it is needed until the wheel is packed

    def dependencies(self) -> list[str]:
        """Return what this build needs installed."""
        if self.target_name != "wheel" or pure():
            return []
        return ["cython>=3.1,<4", "setuptools>=77", *([MYPYC] if asked() else [])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is packed; called by hatchling."""
        if self.target_name != "wheel" or version == "editable" or pure():
            return
        target = self._target = Path(tempfile.mkdtemp(prefix="bide-build-"))
        try:
            built = compile_all(Path(self.root) / "src", target, mypyc=asked())
        except Exception as error:  # noqa: BLE001 - of the compiler, of Cython or of setuptools
            self._remove_target()
            if asked():
                self.app.abort(
                    f"BIDE_COMPILE=1 asks for the compiled form, and it cannot be built: {error}; "
                    "install a C compiler and Python's headers (Debian: gcc, python3-dev)"
                )
            self.app.display_warning(f"bide: built as pure Python, without a C compiler: {error}")
            return
        if not built:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for file in built:
            build_data["force_include"][str(file)] = str(file.relative_to(target / "lib"))

    def finalize(self, *_: object) -> None:
        """Remove what was compiled; called by hatchling when the wheel is packed."""
        self._remove_target()

    def _remove_target(self) -> None:
        if self._target is not None:
            shutil.rmtree(self._target)
            self._target = None


def asked() -> bool:
    """Whether this build must be compiled, by mypyc, too."""
    return os.environ.get("BIDE_COMPILE") == "1"


def pure() -> bool:
    """Whether nothing is to be compiled."""
    return os.environ.get("BIDE_PURE") == "1"


def compile_all(source: Path, target: Path, *, mypyc: bool) -> list[Path]:
    """Compile the package below ``source``; return the libraries, below ``target/lib``."""
    from setuptools import Distribution

    copied = target / "src"
    shutil.copytree(source / "bide", copied / "bide", ignore=shutil.ignore_patterns("*.so", "*.c"))
    with contextlib.chdir(copied):
        extensions = [*of_cython(target), *(of_mypyc(target) if mypyc else [])]
        if not extensions:
            return []
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib = str(target / "lib")
        command.build_temp = str(target / "o")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    return [Path(file) for file in command.get_outputs()]


def of_cython(target: Path) -> list[Any]:
    """Return the extensions of the Cython modules below the current directory."""
    from Cython.Build import cythonize
    from setuptools import Extension

    extensions = [
        Extension(".".join(path.with_suffix("").parts), [str(path)])
        for path in sorted(Path().rglob("*.pyx"))
    ]
    if not extensions:
        return []
    made: list[Any] = cythonize(
        extensions, build_dir=str(target / "c"), language_level=3, quiet=True
    )
    return made


def of_mypyc(target: Path) -> list[Any]:
    """Return the extensions of the modules to compile, below the current directory, a copy."""
    from mypyc.build import mypycify

    paths = [f"bide/{name}.py" for name in COMPILED.split()]
    Path("mypy.ini").write_text("[mypy]\nignore_missing_imports = True\ncache_dir = /dev/null\n")
    try:
        made: list[Any] = mypycify(
            ["--config-file", "mypy.ini", *paths],
            opt_level=os.environ.get("BIDE_OPTIMIZE", "3"),
            debug_level="0",
            group_name="bide",
            target_dir=str(target / "mypyc"),
        )
    except SystemExit as error:  # it has said why
        raise ValueError(f"mypyc refused the sources ({error.code})") from None
    return made
