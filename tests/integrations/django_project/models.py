"""The project's one model."""

from django.db import models


class Note(models.Model):  # type: ignore[misc]
    """Something that a test has written."""

    text = models.CharField(max_length=100)

    class Meta:
        """Its application is found by the label."""

        app_label = "notes"
