"""The pages for people: Django, with plain views that wait for the pool of the other."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html, format_html_join

import bide
from examples.shared_pool.pool import Pool, Row

settings.configure(
    SECRET_KEY="an example keeps no secrets",
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
)


def fetch(request: HttpRequest, query: str, *values: str) -> list[Row]:
    """Wait for what the pool returns; no thread waits."""
    pool: Pool = request.META["bide.state"]["pool"]
    return bide.wait(pool.fetch(query, *values))


def prices(request: HttpRequest) -> HttpResponse:
    """List what there is."""
    rows = fetch(request, "SELECT item, cents FROM prices ORDER BY item")
    items = format_html_join(
        "", '<li><a href="/{}">{}</a></li>', ((row[0], row[0]) for row in rows)
    )
    return HttpResponse(format_html("<h1>Prices</h1><ul>{}</ul>", items))


def price(request: HttpRequest, item: str) -> HttpResponse:
    """Say what one item costs."""
    rows = fetch(request, "SELECT cents FROM prices WHERE item = ?", item)
    if not rows:
        raise Http404
    return HttpResponse(format_html("<h1>{}</h1><p>{} cents</p>", item, rows[0][0]))


urlpatterns = [path("", prices), path("<item>", price)]
app = get_wsgi_application()
