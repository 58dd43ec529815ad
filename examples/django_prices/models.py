"""What the shop remembers."""

from django.db import models


class Price(models.Model):  # type: ignore[misc]
    """A price that a seller has named."""

    seller = models.CharField(max_length=50)
    item = models.CharField(max_length=50)
    cents = models.PositiveIntegerField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The newest one first."""

        ordering = ("-at", "-pk")
