"""The project's settings; the tests say by variables where its databases are."""

import os
from pathlib import Path
from typing import Any

DIRECTORY = Path(os.environ["DJANGO_PROJECT_DIRECTORY"])
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "tests.integrations.django_project.apps.ProjectConfig",
    "bide.integrations.django",
]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "tests.integrations.django_project.urls"
USE_TZ = True
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIRECTORY / "notes.sqlite3",
        "CONN_MAX_AGE": 60,
    }
}
if "DJANGO_PROJECT_POSTGRES" in os.environ:
    DATABASES["postgres"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "bide",
        "HOST": "127.0.0.1",
        "PORT": os.environ["DJANGO_PROJECT_POSTGRES"],
        "CONN_MAX_AGE": 60,
    }
LOGGING_CONFIG = None
