"""The applications that are served. None of them knows by which server.

They differ only where waiting does: blocking (for servers with threads, and for those that patch
`time.sleep`), with `bide.wait`, and as a coroutine.
"""
