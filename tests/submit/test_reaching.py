"""On the way to a cluster: which one is meant, which token, and one line for everything that can be wrong with either."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from command_line import CommandLine

from mtids_dist.errors import InputError
from mtids_dist.submit import choose_address, find_token


@contextmanager
def server(status: int, body: str, *, token: str | None = None) -> Iterator[str]:
    """Answers every GET alike; with a token, as Ray does: 401 without one, 403 with another."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get("Authorization")
            code = status if token is None or sent == f"Bearer {token}" else 403 if sent else 401
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def version(ray: str) -> str:
    return json.dumps({"version": "4", "ray_version": ray})


@pytest.mark.parametrize("verb", [["jobs", "list"], ["jobs", "stop", "x"], ["submit", "exec", "true"]])
def test_no_server(cli: CommandLine, work: Path, verb: list[str]) -> None:
    line = cli.refused(*verb, "--address", "127.0.0.1:9")
    assert line == "mtids-dist: --address http://127.0.0.1:9: no Ray dashboard answers; found Connection refused"


def test_no_such_host(cli: CommandLine) -> None:
    assert "http://head.invalid:8265: no Ray dashboard answers" in cli.refused("jobs", "list", "--address", "head.invalid:8265")


@pytest.mark.parametrize("found", ["1.8.0", "2.9.3", "2.59.1", "3.0.0"])
def test_a_ray_that_does_not_match(cli: CommandLine, found: str) -> None:
    with server(200, version(found)) as address:
        line = cli.refused("jobs", "list", "--address", address)
    assert f"Ray does not match; found {found}; allowed: 2.60 or later 2.x" in line


@pytest.mark.parametrize(
    ("status", "body"), [(200, "<html>hello</html>"), (200, "{}"), (200, "[]"), (404, "no"), (502, "gateway")]
)
def test_something_else_than_ray(cli: CommandLine, status: int, body: str) -> None:
    with server(status, body) as address:
        assert "this is no Ray dashboard" in cli.refused("jobs", "list", "--address", address)


def test_tokens(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with server(200, version("2.9.0"), token="right") as address:
        arguments = ("jobs", "list", "--address", address)
        assert "the cluster wants a token; found none; allowed: RAY_AUTH_TOKEN" in cli.refused(*arguments)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        assert "refuses the token; found the one from RAY_AUTH_TOKEN" in cli.refused(*arguments)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
        assert "does not match" in cli.refused(*arguments), "the token was taken"
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert "RAY_AUTH_MODE=disabled" in cli.refused(*arguments)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no-token"))
        assert "no-token: the token can't be read: No such file" in cli.refused(*arguments)
        (tmp_path / "no-token").write_text("right\n")
        assert "does not match" in cli.refused(*arguments), "the file was read"


def test_where_tokens_are_looked_for(tmp_path: Path) -> None:
    home = tmp_path / ".ray" / "auth_token"
    environ = {"HOME": str(tmp_path)}
    assert find_token(environ) is None
    home.parent.mkdir()
    home.write_text("of-home\n")
    (tmp_path / "named").write_text("of-path")
    found = [
        find_token(environ | more) for more in ({}, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}, {"RAY_AUTH_TOKEN": "x"})
    ]
    assert [token.value for token in found if token] == ["of-home", "of-path", "x"]


def test_what_was_typed_wins_and_says_so() -> None:
    environ = {"RAY_ADDRESS": "http://other:8265", "RAY_API_SERVER_ADDRESS": "http://third:8265"}
    typed = choose_address("head:8265/", environ)
    assert typed.url == "http://head:8265"
    assert typed.note == (
        "going to http://head:8265 as --address says, not where "
        "RAY_API_SERVER_ADDRESS=http://third:8265 and RAY_ADDRESS=http://other:8265 points"
    )
    assert choose_address("http://head:8265", {"RAY_ADDRESS": "head:8265"}).note == ""


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8265"),
        ({"RAY_ADDRESS": "http://other:8265"}, "http://other:8265"),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, "http://127.0.0.1:8265"),
        ({"RAY_API_SERVER_ADDRESS": "third:8265"}, "http://third:8265"),
        ({"RAY_ADDRESS": "http://other:8265", "RAY_API_SERVER_ADDRESS": "https://third"}, "https://third"),
    ],
)
def test_what_stands_in_for_an_address(environ: dict[str, str], url: str) -> None:
    address = choose_address(None, environ)
    assert address.url == url
    assert url in address.note


def test_an_address_that_is_not_followed_is_named() -> None:
    assert "RAY_ADDRESS=10.0.0.1:6379 is no dashboard's address" in choose_address(None, {"RAY_ADDRESS": "10.0.0.1:6379"}).note


def test_a_server_of_something_else(cli: CommandLine) -> None:
    def greet(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                listening.accept()[0].sendall(b"\x00\x00\x12\x04\xff\xfe\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=greet, args=(listening,), daemon=True).start()
        line = cli.refused("jobs", "list", "--address", f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert line.isprintable()
    assert "no Ray dashboard answers" in line


@pytest.mark.parametrize("typed", ["ray://head:10001", "auto", "http://", "file:///x", "a b"])
def test_no_dashboards_address(typed: str) -> None:
    with pytest.raises(InputError, match="no address of a Ray dashboard"):
        choose_address(typed, {})


def test_variables_do_not_lead_astray(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, version("2.9.0")) as address:
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
        assert f"{address}: the cluster's Ray does not match" in cli.refused("jobs", "list", "--address", address)
