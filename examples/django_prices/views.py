"""Ask slow sellers for their prices, keep the answers, and show them as they come.

The sellers are pages of this same server, which wait before they answer: it asks itself, with as
few threads as one likes.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render

from bide import wait
from examples.django_prices.models import Price

SELLERS = ("amble", "bumble", "crumble")
SECONDS = 1.0
CLIENT = httpx.AsyncClient(timeout=30)  # one for all requests: they share one event loop


def home(request: HttpRequest) -> HttpResponse:
    """Show a page that asks, and the last answers: a plain view, and a template."""
    shown = {"sellers": SELLERS, "seconds": SECONDS, "prices": Price.objects.all()[:10]}
    return render(request, "prices/home.html", shown)


def seller(request: HttpRequest, name: str, item: str) -> HttpResponse:
    """Stand for another company's service: a plain view that waits, and holds no thread."""
    wait(asyncio.sleep(SECONDS))
    return HttpResponse(str(100 + 7 * len(name) * len(item)))


async def ask(request: HttpRequest, name: str, item: str) -> Price:
    """Ask one seller, and remember the answer."""
    answer = await CLIENT.get(request.build_absolute_uri(f"/seller/{name}/{item}"))
    answer.raise_for_status()
    # The ORM runs on this request's own thread, and on its own connection.
    price: Price = await Price.objects.acreate(seller=name, item=item, cents=int(answer.text))
    return price


async def cheapest(request: HttpRequest, item: str) -> JsonResponse:
    """Ask all sellers at once."""
    prices = await asyncio.gather(*(ask(request, name, item) for name in SELLERS))
    best = min(prices, key=lambda price: price.cents)
    return JsonResponse({"item": item, "seller": best.seller, "cents": best.cents})


async def live(request: HttpRequest, item: str) -> StreamingHttpResponse:
    """Show each answer when it is there."""

    async def lines() -> AsyncIterator[str]:
        asked = [asyncio.ensure_future(ask(request, name, item)) for name in SELLERS]
        try:
            for each in asyncio.as_completed(asked):
                price = await each
                yield f"{price.seller}: {price.cents}\n"
        finally:  # the client has left
            for each in asked:
                each.cancel()

    return StreamingHttpResponse(lines(), content_type="text/plain")


def history(request: HttpRequest, item: str) -> JsonResponse:
    """Show what was answered before: a plain view, as Django has always had them."""
    prices = Price.objects.filter(item=item).values_list("seller", "cents")[:20]
    return JsonResponse({"item": item, "prices": [list(each) for each in prices]})
