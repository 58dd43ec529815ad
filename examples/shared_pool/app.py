"""Django and FastAPI in one process, and one pool of database connections for both.

FastAPI's lifespan makes the pool. Its coroutines ``await`` it, and Django's plain views ``wait``
for it: the same connections, on the same event loop, and no thread waits.

    pip install django fastapi
    bide examples.shared_pool.app:app
    curl http://127.0.0.1:8000/tea
    curl -X PUT 'http://127.0.0.1:8000/api/prices/tea?cents=275'
    curl http://127.0.0.1:8000/tea
    curl http://127.0.0.1:8000/api/pool

http://127.0.0.1:8000/api/docs is FastAPI's own page. It keeps a small SQLite database in the
system's temporary directory, or in PRICES_DIRECTORY.
"""

import bide
from examples.shared_pool import api, shop

app = bide.mount({"/": shop.app, "/api": api.app})
