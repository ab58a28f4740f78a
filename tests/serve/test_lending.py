"""An engine on another machine gives what the one here gives, and no torch is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from lsp_client import LspClient, did_open, position
from test_app import metric, served, token_file, until

from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from diffgemma_lsp.remote_engine import PATH, EngineBusy, RemoteEngine, read_token
from diffgemma_lsp.serve.lending import TOLD
from engine.errors import BadRequest, EngineUnavailable
from engine.types import Frame, Infill, InfillRequest, SamplingParams, fill_in_the_middle

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 300.0
BEFORE, AFTER = "def add(first, second):\n    return ", "\n\n\nprint(add(1, 2))\n"


def planned(**plan: Any) -> InfillRequest:
    """A request for which the fake engine does so."""
    return InfillRequest(fill_in_the_middle(f"# fake: {json.dumps(plan)}\nx = ", "\n"), budget_s=60)


async def answer(engine: EngineClient | RemoteEngine, request: InfillRequest) -> Infill:
    frames: list[Frame | Infill] = [event async for event in engine.stream(request)]
    last = frames[-1]
    assert isinstance(last, Infill)
    assert all(isinstance(frame, Frame) for frame in frames[:-1])
    return last


@asynccontextmanager
async def lent(
    engine: FakeEngine | None = None, token: str | None = None, **options: Any
) -> AsyncIterator[RemoteEngine]:
    async with served(engine, **options) as http:
        remote = RemoteEngine(str(http.base_url), token)
        yield remote
        await remote.aclose()


# ---- one that does what the test says ----


async def test_frames_and_the_answer_come_as_they_are_made() -> None:
    async with lent() as remote:
        events = [event async for event in remote.stream(planned(text="y", frame="z"))]
    assert [type(event) for event in events] == [Frame, Infill]
    assert isinstance(events[-1], Infill)
    assert events[-1].text == "y"


async def test_who_leaves_ends_the_run_there() -> None:
    engine = FakeEngine()
    async with lent(engine) as remote:
        async with contextlib.aclosing(remote.stream(planned(delay=60, frame="z"))) as events:
            assert isinstance(await anext(events), Frame)
        await until(lambda: engine.cancelled == 1)


async def test_an_error_of_the_engine_is_the_same_error_here() -> None:
    async with lent() as remote:
        with pytest.raises(BadRequest):
            await answer(remote, planned(error="bad_request"))


async def test_there_are_so_many_runs_and_no_more() -> None:
    engine = FakeEngine()
    async with lent(engine, most_runs=2) as remote:
        runs = [asyncio.create_task(answer(remote, planned(delay=60))) for _ in range(2)]
        await until(lambda: engine.runs == 2)
        with pytest.raises(EngineBusy, match="too many requests at once"):
            await answer(remote, planned(text="y"))
        for run in runs:
            run.cancel()
        await until(lambda: engine.cancelled == 2)
        assert (await answer(remote, planned(text="y"))).text == "y"


async def test_what_is_refused_is_counted_so() -> None:
    async with served() as http:
        refused = await http.post(f"{PATH}/infill", json={})
        assert refused.status_code == 503, "of another version"
        assert await metric(http, 'diffgemma_requests_total{api="engine",status="503"}') == 1


async def test_its_owner_tells_only_what_clients_need() -> None:
    engine = FakeEngine()
    engine.says = {"state": "ready", "pid": 1, "memory_bytes": 2, "model": "/home/me/model"}
    async with lent(engine) as remote:
        status = await remote.status()
        assert status is not None
        assert status["state"] == "ready"
        assert status.keys() <= set(TOLD)
        engine.says = None
        assert await remote.status() is None
    assert not {"pid", "memory_bytes", "model"} & set(TOLD)


async def test_without_the_token_nobody_is_served(tmp_path: Path) -> None:
    file = token_file(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.write_text("some-other-token-entirely\n")
    wrong.chmod(0o600)
    async with served(token_file=file) as http:
        url = str(http.base_url)
        for given in (None, str(wrong)):
            remote = RemoteEngine(url, given)
            for attempt in (remote.warm_up(), answer(remote, planned(text="y"))):
                with pytest.raises(EngineUnavailable, match="engine_token_file"):
                    await attempt
            await remote.aclose()
        remote = RemoteEngine(url, str(file))
        assert (await answer(remote, planned(text="y"))).text == "y"
        await remote.aclose()


async def test_another_version_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffgemma_lsp.remote_engine.identity", lambda: "1/0.0.1")
    async with lent() as remote:
        with pytest.raises(EngineUnavailable, match="does not serve this"):
            await answer(remote, planned(text="y"))


async def test_what_is_no_engine_is_named() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    remote = RemoteEngine(url)
    for attempt in (remote.status(), answer(remote, planned())):
        with pytest.raises(EngineUnavailable, match="does not speak as an engine does"):
            await attempt
    server.close()
    await server.wait_closed()
    with pytest.raises(EngineUnavailable, match=f"{url} can't be reached"):
        await answer(remote, planned())
    await remote.aclose()


@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        ("one-token-of-some-length", 0o644, "chmod 600"),
        ("", 0o600, "one token"),
        ("a\nb\n", 0o600, "one token"),
        ("tökén\n", 0o600, "one token"),
    ],
)
def test_a_token_is_one_line_of_a_private_file(
    tmp_path: Path, text: str, mode: int, complaint: str
) -> None:
    with pytest.raises(EngineUnavailable, match=complaint):
        read_token(str(token_file(tmp_path, text, mode)))
    with pytest.raises(EngineUnavailable, match="can't be read"):
        read_token(str(tmp_path / "nothing"))


# ---- through TLS, and a network that fails ----


@asynccontextmanager
async def behind_tls(port: int, folder: Path, most_bytes: int) -> AsyncIterator[int]:
    """A proxy that speaks TLS, delays each piece, and cuts after so many bytes of an answer."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    command = [*make, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        with contextlib.suppress(OSError):
            while most > 0 and (piece := await reader.read(min(most, 4096))):
                await asyncio.sleep(0.01)
                writer.write(piece)
                await writer.drain()
                most -= len(piece)
        writer.transport.abort() if most <= 0 else writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, back, 1 << 30), relay(there, writer, most_bytes))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("most_bytes", [1 << 30, 300])
async def test_through_tls_with_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    async with (
        served() as http,
        behind_tls(http.base_url.port or 0, tmp_path, most_bytes) as port,
    ):
        url = f"https://localhost:{port}"
        stranger = RemoteEngine(url)
        with pytest.raises(EngineUnavailable, match="can't be reached"):
            await answer(stranger, planned(text="y"))
        await stranger.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        remote = RemoteEngine(url)
        long = planned(text="y" * 500)
        if most_bytes == 300:
            with pytest.raises(EngineUnavailable):
                await answer(remote, long)
        else:
            assert (await answer(remote, long)).text == "y" * 500
        await remote.aclose()


# ---- the real one ----


async def test_it_gives_what_the_engine_here_gives(
    url: str, real_engine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DIFFGEMMA_LSP_RUNTIME_DIR", "PYTHONPATH"):
        monkeypatch.setenv(name, real_engine[name])
    here, there = EngineClient(EngineOptions(model="nano")), RemoteEngine(url)
    for seed in range(2):
        params = SamplingParams(max_steps=8)
        template = fill_in_the_middle(BEFORE, AFTER, 16)
        request = InfillRequest(template, params, budget_s=PATIENCE_S, seed=seed)
        one, other = await answer(here, request), await answer(there, request)
        assert (one.holes, one.confidence) == (other.holes, other.confidence)
    status = await there.status()
    assert status is not None
    assert status["info"]["model"] == "nano"
    await here.aclose()
    await there.aclose()


async def test_a_server_without_torch_fills(url: str, tmp_path: Path) -> None:
    """The language server as a program, with nothing here that could run a model."""
    for missing in ("torch", "transformers", "safetensors", "tokenizers"):
        (tmp_path / f"{missing}.py").write_text("raise ImportError('it is not installed')\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    env |= {"DIFFGEMMA_LSP_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path)}
    client = LspClient()
    await client.start(sys.executable, "-m", "diffgemma_lsp", env=env)
    await client.initialize(engine_url=url, invoked_budget_ms=200_000)
    client.send(did_open("file:///a.py", BEFORE + AFTER))
    asked = {"textDocument": {"uri": "file:///a.py"}, "position": position(1, 11)}
    items = await client.request(
        "textDocument/inlineCompletion", {**asked, "context": {"triggerKind": 1}}
    )
    assert items
    assert items[0]["insertText"].strip()
    assert (await client.request("diffgemma/status", {}))["model"] == "nano"
    assert not (tmp_path / "run").exists()
    assert await client.finish() == 0
