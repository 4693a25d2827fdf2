"""Other sites' pages can't make a visitor's browser do anything here."""

from __future__ import annotations

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from apps.viewer.guard import same_origin


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(dependencies=[Depends(same_origin)])

    @app.post("/")
    def do() -> str:
        return "done"

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")

    return TestClient(app, base_url="http://here:7860")


FINE = [
    {},
    {"Origin": "http://here:7860"},
    {"Origin": "http://HERE:7860"},
    {"Origin": "https://here:7860"},
    {"Origin": "https://proxy.example", "Sec-Fetch-Site": "same-origin"},
]
ELSEWHERE = [
    {"Origin": "http://elsewhere"},
    {"Origin": "http://here"},
    {"Origin": "http://here:7861"},
    {"Origin": "http://here:7860.elsewhere"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://[here:7860"},
    {"Origin": "http://elsewhere", "Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FINE, ids=str)
def test_this_page_may(headers: dict[str, str], client: TestClient) -> None:
    assert client.post("/", headers=headers).json() == "done"
    with client.websocket_connect("/live", headers={"Host": "here:7860", **headers}) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_other_pages_may_not(headers: dict[str, str], client: TestClient) -> None:
    answer = client.post("/", headers=headers)
    assert answer.status_code == 403 and "Origin: expected here:7860" in answer.json()["detail"]
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/live", headers={"Host": "here:7860", **headers}) as socket,
    ):
        socket.receive_text()
