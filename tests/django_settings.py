"""Django's settings, for a test that brings its own; other tests of the process have theirs."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def django_settings(**values: Any) -> Iterator[None]:
    """Have Django use these settings, and its defaults for all others, until the end."""
    from django.conf import UserSettingsHolder, global_settings, settings

    holder: Any = UserSettingsHolder(global_settings)
    for name, value in {
        "ALLOWED_HOSTS": ["*"],
        "SECRET_KEY": "of the tests",
        "MIDDLEWARE": [],
        **values,
    }.items():
        setattr(holder, name, value)
    lazy: Any = settings
    before = lazy._wrapped
    lazy._wrapped = holder
    try:
        yield
    finally:
        lazy._wrapped = before
