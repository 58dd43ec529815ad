"""The pages."""

from django.urls import path

from examples.django_prices import views

urlpatterns = [
    path("seller/<name>/<item>", views.seller),
    path("cheapest/<item>", views.cheapest),
    path("live/<item>", views.live),
    path("history/<item>", views.history),
]
