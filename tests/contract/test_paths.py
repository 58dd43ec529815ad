"""The path of a request, under every host: what was asked for, decoded once."""

from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import answering

PATHS = {
    "/a%20b": "/a b",
    "/a%2Fb": "/a/b",
    "/a%2Fb/%2F/c": "/a/b///c",
    "//evil.example/x": "//evil.example/x",
    "/a//b/": "/a//b/",
    "/100%25": "/100%",
    "/%2541": "/%41",
    "/%252525": "/%2525",
    "/%zz%4%": "/%zz%4%",
    "/%C3%A9/%FF": "/\xc3\xa9/\xff",
    "/a;b=c,d/../e": "/a;b=c,d/../e",
    "/back\\slash": "/back\\slash",
}


def test_a_path_is_decoded_once_and_the_raw_one_kept(serve: Serve) -> None:
    """PEP 3333, environ Variables: PATH_INFO is decoded; RAW_URI is what came."""
    keys = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI")
    served = serve(answering(lambda environ: repr([environ[key] for key in keys])))
    with Failures() as failures:
        for path, info in PATHS.items():
            with failures.of(path):
                told = served.get(f"{path}?q=%2541").text
                same(told, repr(["", info, "q=%2541", f"{path}?q=%2541"]))
