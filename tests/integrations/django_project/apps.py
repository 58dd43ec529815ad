"""The project's one application."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):  # type: ignore[misc]
    """Holds the model."""

    name = "tests.integrations.django_project"
    label = "notes"
    default_auto_field = "django.db.models.BigAutoField"
