"""What a client's methods take by name, for applications of both interfaces, and what they say."""

import inspect
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest

import bide
from bide.testing import Client, LiveServer, RedirectError, WebSocketRefused
from bide.testing.options import ClientOptions
from tests.served import Environ

pytestmark = pytest.mark.usefixtures("all_ends")

FORM = "application/x-www-form-urlencoded"


def wsgi(environ: Environ, start_response: Any) -> list[bytes]:
    """Answer what has come, as JSON; below ``/to/CODE`` redirect there."""
    path = environ["PATH_INFO"]
    if path.startswith("/to/"):
        start_response(f"{path[4:7]} Elsewhere", [("Location", "/there")])
        return []
    start_response("200 OK", [])
    body = environ["wsgi.input"].read()
    return [_told(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], environ, body)]


def _told(method: str, path: str, query: str, environ: Environ, body: bytes) -> bytes:
    keys = ("CONTENT_TYPE", "HTTP_X_ONE", "REMOTE_USER")
    told = {"method": method, "path": path, "query": query, "body": body.decode()}
    return json.dumps(told | {key: environ.get(key, "") for key in keys}).encode()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer the same."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path, headers = scope["path"], {name: value.decode() for name, value in scope["headers"]}
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    content = b""
    if path.startswith("/to/"):
        start |= {"status": int(path[4:7]), "headers": [(b"location", b"/there")]}
    else:
        environ = {
            "CONTENT_TYPE": headers.get(b"content-type", ""),
            "HTTP_X_ONE": headers.get(b"x-one", ""),
        }
        content = _told(scope["method"], path, scope["query_string"].decode(), environ, body)
    await send(start)
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(params=["wsgi", "asgi", "mounts"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """One client for each kind of application."""
    applications: dict[str, Any] = {
        "wsgi": wsgi,
        "asgi": asgi,
        "mounts": bide.mount({"/": wsgi, "/live": asgi}),
    }
    with Client(applications[request.param]) as client:
        yield client


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({"a": "b c", "n": 1}, "a=b+c&n=1"),
        ({"a": [1, 2]}, "a=1&a=2"),
        ([("a", 1), ("a", "é")], "a=1&a=%C3%A9"),
        ("a=1&b=%20", "a=1&b=%20"),
        ({}, ""),
        (None, ""),
    ],
    ids=["mapping", "several", "pairs", "text", "empty", "none"],
)
@pytest.mark.parametrize("name", ["params", "query"])
def test_params_are_the_query(client: Client, name: str, params: Any, query: str) -> None:
    """Escaped, and added to the query of the path."""
    options: dict[str, Any] = {name: params}
    assert client.get("/", **options).json()["query"] == query
    both = client.get("/?x=1#fragment", **options).json()["query"]
    assert both == ("x=1&" + query).rstrip("&")


@pytest.mark.parametrize(
    ("data", "kind", "body"),
    [
        ({"name": "Ada", "n": [1, 2]}, FORM, "name=Ada&n=1&n=2"),
        ([("name", "Ada"), ("n", 1)], FORM, "name=Ada&n=1"),
        ({}, FORM, ""),
        (b"bytes", "", "bytes"),
        (bytearray(b"bytes"), "", "bytes"),
        ("té", "", "té"),
        ([b"pie", b"ces"], "", "pieces"),
        ((each for each in (b"pie", b"ces")), "", "pieces"),
        ([], "", ""),
    ],
    ids=[
        "mapping",
        "pairs",
        "empty form",
        "bytes",
        "array",
        "text",
        "list",
        "generator",
        "nothing",
    ],
)
def test_data_is_a_form_or_a_body(data: Any, kind: str, body: str) -> None:
    """A form has its content type; what is sent as it is has none."""
    with Client(wsgi) as client:
        answer = client.post("/", data=data).json()
    assert (answer["CONTENT_TYPE"], answer["body"]) == (kind, body)


def test_data_is_the_same_for_every_kind_of_application(client: Client) -> None:
    """A form, and a content type that the test says itself."""
    answer = client.post("/", data={"a": "b"}, headers={"X-One": "1"}).json()
    assert (answer["body"], answer["CONTENT_TYPE"], answer["HTTP_X_ONE"]) == ("a=b", FORM, "1")
    answer = client.post("/", data="<a/>", headers={"Content-Type": "text/xml"}).json()
    assert (answer["body"], answer["CONTENT_TYPE"]) == ("<a/>", "text/xml")


def test_the_status_code_has_both_names(client: Client) -> None:
    """Of a response that is complete, and of one on its way."""
    assert client.get("/").status_code == client.get("/").status == 200
    with client.stream("GET", "/to/303") as response:
        assert response.status_code == 303


@pytest.mark.parametrize(("code", "method"), [(302, "GET"), (307, "POST")])
def test_a_request_and_a_stream_follow_redirections(client: Client, code: int, method: str) -> None:
    """When they are asked to; what became a GET has no body and no content type."""
    path = f"/to/{code}"
    kind = {"Content-Type": "text/plain", "X-One": "1"}
    followed = client.post(path, data=b"x", headers=kind, follow_redirects=True)
    with client.stream("POST", path, data=b"x", headers=kind, follow_redirects=True) as stream:
        answers = [followed.json(), stream.json()]
    for answer in answers:
        assert (answer["method"], answer["path"]) == (method, "/there")
        assert answer["HTTP_X_ONE"] == "1"
        body = ("x", "text/plain") if method == "POST" else ("", "")
        assert (answer["body"], answer["CONTENT_TYPE"]) == body
    with client.stream("POST", path, data=b"x") as stream:
        assert stream.status_code == code
    with pytest.raises(RedirectError, match="iterable"):
        client.post("/to/307", data=iter([b"once"]), follow_redirects=True)


def test_a_followed_redirection_keeps_what_the_request_was_given() -> None:
    """The environ, also of a POST that becomes a GET."""
    with Client(wsgi, follow_redirects=True) as client:
        answer = client.post("/to/303", data=b"x", environ={"REMOTE_USER": "ada"}).json()
        assert (answer["method"], answer["REMOTE_USER"]) == ("GET", "ada")
        with client.stream("GET", "/to/303") as stream:  # the client's default is not for streams
            assert stream.status_code == 303


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"colour": 1}, TypeError, r"X\(\) got an unexpected keyword argument 'colour'$"),
    ({"query_string": ""}, TypeError, r"X\(\) got an .* 'query_string'; use params$"),
    ({"params": 3}, TypeError, r"X\(\) takes params as a mapping or pairs, not 3$"),
    ({"query": ["a"]}, TypeError, r"X\(\) takes query as a mapping or pairs, not \['a'\]$"),
    ({"params": {}, "query": {}}, ValueError, r"X\(\) takes one of params and query, not .*"),
    ({"headers": {"X": 1}}, TypeError, r"X\(\) takes headers of text, not 'X': 1$"),
    ({"headers": ["X: 1"]}, TypeError, r"X\(\) takes headers as a mapping or pairs, not "),
    ({"headers": {"X": "\n"}}, ValueError, r"X\(\): the header 'X': '\\n' cannot be sent$"),
    ({"timeout": "1"}, TypeError, r"X\(\) takes timeout in seconds, not '1'$"),
]
WRONG_BODIES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"content": b""}, TypeError, r"X\(\) got an .* 'content'; use data$"),
    ({"data": 3}, TypeError, r"X\(\) takes data as bytes, text, a mapping or an .*, not int$"),
    ({"body": {}}, TypeError, r"X\(\) takes body as bytes, text or an iterable .*, not dict$"),
    ({"form": b"a"}, TypeError, r"X\(\) takes form as a mapping or pairs, not b'a'$"),
    ({"data": {"f": io.BytesIO()}}, TypeError, r"X\(\) cannot send the file in data\['f'\]"),
    ({"data": b"", "json": 1}, ValueError, r"X\(\) takes one of .*, not data and json$"),
]
METHODS: dict[str, Callable[..., Any]] = {
    each: getattr(Client, each) for each in ("get", "head", "post", "put", "patch", "delete")
} | {
    "options": Client.options,
    "request": lambda client, path, **options: client.request("POST", path, **options),
    "stream": lambda client, path, **options: client.stream("POST", path, **options),
}


@pytest.mark.parametrize("name", [*METHODS, "websocket"])
def test_an_error_names_the_method_that_was_called(name: str) -> None:
    """Nothing of what lies below it, and nothing is asked of the application."""
    method: Any = METHODS.get(name, Client.websocket)
    wrong = WRONG if name == "websocket" else WRONG + WRONG_BODIES
    called: list[Environ] = []
    with Client(lambda environ, _: called.append(environ)) as client:
        for options, error, message in wrong:
            with pytest.raises(error, match="^" + message.replace("X", name, 1)):
                method(client, "/", **options)
        with pytest.raises(ValueError, match=rf"^{name}\(\): 'no-slash' is not a path"):
            method(client, "no-slash")
        with pytest.raises(TypeError, match=rf"^{name}\(\) takes a path or a URL, not 3$"):
            method(client, 3)
    assert called == []


def test_a_websocket_takes_params_and_no_body() -> None:
    """And is refused a body by name."""

    def view(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("403 " + environ["QUERY_STRING"], [])
        return []

    wrong: dict[str, Any] = {"data": b""}
    with Client(view) as client:
        with pytest.raises(WebSocketRefused) as refused:
            client.websocket("/", params={"room": 1})
        assert refused.value.response.status_code == 403
        assert refused.value.response.reason == "room=1"
        with pytest.raises(TypeError, match=r"^websocket\(\) got an .* argument 'data'$"):
            client.websocket("/", **wrong)


def test_a_client_that_is_not_open_says_its_class() -> None:
    """The one that was made, also of a class that is derived from it."""

    class ShopClient(Client):
        pass

    with pytest.raises(bide.BideError, match=r"with ShopClient\(...\) as client"):
        ShopClient(wsgi).get("/")
    wrong: dict[str, Any] = {"headers": 3}
    with pytest.raises(TypeError, match=r"^ShopClient\(\) takes headers as a mapping or pairs"):
        ShopClient(wsgi, **wrong)


def test_the_types_of_a_clients_options_are_those_of_its_signature() -> None:
    """So that a client of Django's is checked as any."""
    hints = get_type_hints(Client.__init__)
    named = {
        each.name: hints[each.name]
        for each in inspect.signature(Client.__init__).parameters.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert named == get_type_hints(ClientOptions)


def test_a_live_server_refuses_what_is_no_setting() -> None:
    """By the setting's name, as the server does."""
    wrong: dict[str, Any] = {"thread": 2}
    with pytest.raises(TypeError, match="there is no setting 'thread'; did you mean threads"):
        LiveServer(wsgi, **wrong)
