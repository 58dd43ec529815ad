"""The configuration of the Django app ``bide.integrations.django``, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig

from bide.integrations.django import install


class BideConfig(AppConfig):  # type: ignore[misc]
    """Installs the integration when Django has been set up."""

    name = "bide.integrations.django"
    label = "bide"
    verbose_name = "Bide"

    def ready(self) -> None:
        """Install the integration."""
        install()
