"""The pages."""

from django.urls import path

from examples.django_prices import views

urlpatterns = [
    path("", views.home),
    path("seller/<name>/<item>", views.seller),
    path("cheapest/<item>", views.cheapest, name="cheapest"),
    path("live/<item>", views.live, name="live"),
    path("history/<item>", views.history, name="history"),
]
