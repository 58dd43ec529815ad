"""Whether an installed Bide has a form, and answers: `python tests/packaging/answers.py [FORM]`.

The form is what `bide.native.FORM` says: `compiled`, unless another is given. It needs nothing but
the wheel. The build of a release runs it in an environment of its own.
"""

from __future__ import annotations

import sys
import urllib.request
from typing import Any

from bide.native import FORM
from bide.testing import LiveServer


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]


if __name__ == "__main__":
    expected = sys.argv[1] if len(sys.argv) > 1 else "compiled"
    assert expected == FORM, f"{FORM!r} is installed, and not {expected!r}"
    with LiveServer(application) as server:
        answer = urllib.request.urlopen(server.url).read()
    assert answer == b"answered", answer
    print(f"{FORM}; it answers")
