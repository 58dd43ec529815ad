"""The project's settings: one line of them is Bide's."""

import os
import tempfile
from pathlib import Path

DIRECTORY = Path(os.environ.get("PRICES_DIRECTORY") or tempfile.gettempdir())

SECRET_KEY = "an example keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.django_prices.urls"
WSGI_APPLICATION = "examples.django_prices.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIRECTORY / "bide-django-prices.sqlite3",
        "CONN_MAX_AGE": 60,
    }
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
INSTALLED_APPS = [
    "examples.django_prices",
    "bide.integrations.django",
]
