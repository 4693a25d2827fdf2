"""Requests that another site's page makes a visitor's browser send are refused."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import HTTPException, WebSocketException
from starlette.requests import HTTPConnection


def same_origin(connection: HTTPConnection) -> None:
    """A dependency of routes and web sockets: refuses those whose Origin isn't the host that they were sent to.

    Requests without an Origin pass: they come from this page's own pictures and links, or from no browser at all.
    """
    origin = connection.headers.get("origin")
    # The browser's own word, which no page can forge. It counts first since a proxy may have renamed the host.
    if origin is None or connection.headers.get("sec-fetch-site") == "same-origin":
        return
    host = connection.headers.get("host", "")
    if host and _host(origin) == host.lower():
        return
    sentence = f"Origin: expected {host or 'a host'}, as the address that was asked, found {origin[:80]}"
    if connection.scope["type"] == "websocket":
        raise WebSocketException(1008, sentence[:120])  # a close frame holds no more
    raise HTTPException(403, sentence)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as half an IPv6 address
        return ""
