"""Replaces parts of Django and asgiref, and puts the originals back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync
from django.conf import settings
from django.core.signals import request_started
from django.db import connections
from django.http import StreamingHttpResponse

from bide.errors import StartError
from bide.integrations.django import asynchronous, databases, options, worker_threads
from bide.waiting.waiter import refusals

_installed: list[tuple[Any, str, Any]] = []


def install() -> Callable[[], None]:
    """Replace all parts; see :func:`bide.integrations.django.install`."""
    if _installed:
        return _nothing
    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise StartError(
            "bide.integrations.django needs Django's settings: set DJANGO_SETTINGS_MODULE, or "
            "call settings.configure(), before"
        )
    options.current = options.read()
    _put(AsyncToSync, "__call__", asynchronous.async_to_sync)
    _put(SyncToAsync, "__call__", asynchronous.sync_to_async)
    _put(StreamingHttpResponse, "__iter__", asynchronous.iterate_response)
    _put(connections, "_connections", databases.Local(connections._connections))
    _put(connections, "create_connection", databases.create_connection)
    if not options.current.wait_in_atomic:
        refusals.append(databases.refuse_in_atomic)
    request_started.connect(asynchronous.begin)
    return _uninstall


def _put(owner: Any, name: str, value: Any) -> None:
    _installed.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _uninstall() -> None:
    request_started.disconnect(asynchronous.begin)
    while _installed:
        setattr(*_installed.pop())
    if databases.refuse_in_atomic in refusals:
        refusals.remove(databases.refuse_in_atomic)
    options.current = options.Options()
    worker_threads.dismiss()


def _nothing() -> None:
    pass
