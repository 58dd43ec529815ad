"""Django with async views, a stream and the ORM: the application.

Try it:

    bide examples.django_prices.wsgi:application --threads 2
    open http://127.0.0.1:8000/ in a browser, or
    curl http://127.0.0.1:8000/cheapest/tea
    curl -N http://127.0.0.1:8000/live/coffee
    curl http://127.0.0.1:8000/history/tea

It keeps a small SQLite database in the system's temporary directory, or in PRICES_DIRECTORY.
"""

import os

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_prices.settings")

application = get_wsgi_application()
call_command("migrate", run_syncdb=True, verbosity=0)
