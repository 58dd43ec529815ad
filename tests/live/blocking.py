"""A site whose requests wait, block, or fork, for servers that are looked at meanwhile."""

SOURCE = """
import asyncio, os, sys, threading, bide

async def never():
    await asyncio.get_running_loop().create_future()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/wait"):
        bide.wait(never())
    elif path == "/block":
        threading.Event().wait()
    elif path == "/fork":
        if not os.fork():
            print("forked", os.getpid(), file=sys.stderr, flush=True)
            threading.Event().wait()
    start_response("200 OK", [])
    return [b"done"]

@bide.capable("async")
def on_loop(environ, start_response):
    return app(environ, start_response)
"""
"""The module: ``app`` runs in threads, ``on_loop`` on the event loop."""
