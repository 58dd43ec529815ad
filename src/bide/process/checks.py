"""What ``--check`` looks at, beside the values of settings and the application.

A check looks at what the settings name, changes nothing, and does not mind that a server runs. To
add one, write it here and put it into ``CHECKS``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from bide.applications.patched import refuse_patched
from bide.environment import with_address
from bide.errors import SettingError, StartError
from bide.process.status_place import check_reach
from bide.serving.access_log import form_of
from bide.serving.request_ids import RequestIds
from bide.settings import Settings
from bide.transports.addresses import Address, check_place, listen, parse_address
from bide.transports.contexts import Contexts

Check = Callable[[Settings], Iterable[str | StartError]]
"""Returns facts, which are printed, and errors; an error may be raised as well."""


def check_all(settings: Settings) -> Iterator[str | StartError]:
    """Return what all checks find."""
    for check in CHECKS:
        try:
            yield from check(settings)
        except StartError as error:
            yield error


def _addresses(settings: Settings) -> Iterator[str | StartError]:
    """Whether each address is one of this machine. It may be in use: by the server that runs."""
    status = [settings.status] if settings.status else []
    for each in (*with_address(settings, False, os.environ).bind, *status):
        try:
            address = parse_address(each)
            if not address.path:
                with contextlib.ExitStack() as opened:
                    sockets = listen(Address(address.host))  # on a free port
                    for one in sockets:
                        opened.callback(one.close)
                    if each in status:
                        check_reach(settings, sockets)
            elif not address.path.startswith("@"):
                place = os.path.dirname(address.path)
                if not os.access(place, os.W_OK):
                    raise StartError(f"cannot listen on {address}: {place} cannot be written to")
                check_place(address.path)
        except StartError as error:
            yield error
        except FileExistsError as error:
            yield StartError(f"cannot listen on {address}: {error.strerror}")


def _logs(settings: Settings) -> Iterator[str | StartError]:
    """Whether the logs can be written in their forms, and what configures them can be read."""
    try:
        form_of(settings.access_format)
    except StartError as error:
        yield error
    path = settings.access_log
    place = path if os.path.exists(path) else os.path.dirname(path)
    if path not in ("", "-") and (os.path.isdir(path) or not os.access(place, os.W_OK)):
        yield SettingError(f"cannot write the access log {path}")
    if settings.log_config:
        from bide.serving.log_config import apply

        apply(settings.log_config)


def _certificates(settings: Settings) -> Iterator[str | StartError]:
    """Whether the certificates can be used; whom they are for, and until when."""
    contexts = Contexts.of(settings)
    if contexts is not None:
        contexts.warn()
        yield from (f"certificate: {each}" for each in contexts.describe())


def _request_ids(settings: Settings) -> Iterator[str | StartError]:
    """Whether a response can have the header of their ids."""
    if settings.request_id:
        RequestIds(settings.request_id)
    return iter(())


def _reactor(settings: Settings) -> Iterator[str | StartError]:
    """Whether Twisted is there, if its reactor is wanted."""
    if settings.reactor == "twisted" and importlib.util.find_spec("twisted") is None:
        yield StartError(
            "--reactor twisted needs Twisted, which is not installed: pip install 'bide[twisted]'"
        )


def _patched(_: Settings) -> Iterator[str | StartError]:
    """Whether gevent or eventlet has patched what the server needs."""
    refuse_patched()
    return iter(())


CHECKS: Final[list[Check]] = [_addresses, _certificates, _logs, _request_ids, _reactor, _patched]
"""They are made after the application has been imported, in this order."""
