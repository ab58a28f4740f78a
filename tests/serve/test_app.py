"""The routes over a real TCP connection, with an engine that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fake_engine import FakeEngine
from starlette.datastructures import Headers

from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.serve.guard import Guard, Refused, Tokens
from diffgemma_lsp.serve.run import ServeOptions, listen, serve, tokens_for

PATIENCE_S = 60.0
TOKEN = "a-token-of-some-length"


@asynccontextmanager
async def served(
    engine: FakeEngine | None = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with such options."""
    chosen = ServeOptions(**{"port": 0, "budget_ms": 600_000, "name": "fake", **options})
    listening = listen(chosen)
    client = cast("EngineClient", engine or FakeEngine())
    task = asyncio.create_task(serve(chosen, client, tokens_for(chosen), listening))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
            yield http
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def planned(**plan: Any) -> dict[str, Any]:
    """A body for which the engine does so."""
    return {"prompt": f"# fake: {json.dumps(plan)}\nx = ", "suffix": "\n", "max_tokens": 8}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def metric(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def token_file(tmp_path: Path, text: str = f"# ours\n{TOKEN}\n", mode: int = 0o600) -> Path:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)
    return file


# ---- who may ask ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:8012"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"host": "localhost:8012"}, 200),
        ({"host": "[::1]:8012"}, 200),
        ({}, 200),
    ],
)
async def test_loopback_serves_no_foreign_page(headers: dict[str, str], status: int) -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        found = await http.post("/v1/completions", json=planned(text="1"), headers=headers)
        assert found.status_code == status
        assert engine.runs == (status == 200)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"x-api-key": "# ours"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}", "host": "gpu.example"}, 200),
        ({"x-api-key": TOKEN}, 200),
    ],
)
async def test_a_token_is_needed_where_there_are_some(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with served(token_file=token_file(tmp_path)) as http:
        for path in ("/v1/models", "/props", "/metrics", "/api/tags"):
            assert (await http.get(path, headers=headers)).status_code == status
        assert (await http.get("/health", headers=headers)).status_code == 200


def test_elsewhere_than_on_loopback_there_must_be_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--token-file"):
        tokens_for(ServeOptions(host="0.0.0.0"))
    found = tokens_for(ServeOptions(host="0.0.0.0", token_file=token_file(tmp_path)))
    assert found.which(TOKEN) == 0


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [(TOKEN, 0o644, "chmod 600"), ("", 0o600, "16 characters"), ("short", 0o600, "16 characters")],
)
def test_a_token_file_must_be_private_and_its_tokens_long(
    tmp_path: Path, text: str, mode: int, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Tokens.read(token_file(tmp_path, text, mode))


# ---- how much ----


def test_the_rate_is_each_client_s_own() -> None:
    now = [0.0]
    guard = Guard(Tokens(), 60, 6, clock=lambda: now[0])
    here = Headers({"host": "127.0.0.1"})

    def admits(client: str, most: int) -> None:
        for _ in range(most):
            guard.admit(here, client)
        with pytest.raises(Refused, match="too many") as refused:
            guard.admit(here, client)
        assert (refused.value.status, refused.value.wait_s) == (429, 1)

    admits("a", 6)  # at once
    admits("b", 6)
    now[0] += 3
    admits("a", 3)
    now[0] += 1000
    admits("a", 6)


async def test_too_many_in_a_minute_are_told_when_to_come_again() -> None:
    async with served(per_minute=1, burst=1) as http:
        assert (await http.get("/v1/models")).status_code == 200
        refused = await http.get("/v1/models")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")


async def test_too_many_at_once_are_told_so_and_the_others_answered() -> None:
    engine = FakeEngine()
    async with served(engine, most_runs=1) as http:
        first = asyncio.create_task(http.post("/v1/completions", json=planned(delay=3600)))
        await until(lambda: engine.runs == 1)
        refused = await http.post("/v1/completions", json=planned(text="other"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "too many" in refused.json()["error"]["message"]
        first.cancel()
        await until(lambda: engine.cancelled == 1)
        assert (await http.post("/v1/completions", json=planned(text="1"))).status_code == 200


async def test_a_body_has_a_limit_whether_its_length_is_told_or_not() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(5 << 10):
            yield b" " * 1024

    async with served() as http:
        told = await http.post("/infill", content=b" " * (5 << 20))
        assert told.status_code == 413
        assert (await http.post("/infill", content=endless())).status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", b"{", 400),
        ("/v1/completions", b"[]", 400),
        ("/v1/completions", b"\xff", 400),
        ("/v1/completions", b"[" * 100_000, 400),
        ("/v1/completions", b'{"prompt": ["a", "b"]}', 400),
        ("/infill", b'{"prompt": 1}', 400),
        ("/api/generate", b'{"prompt": 1}', 400),
        ("/stop", b"{}", 404),
        ("/load", b"{}", 404),
        ("/unload", b"{}", 404),
        ("/../stop", b"{}", 404),
    ],
)
async def test_what_is_wrong_is_said(path: str, body: bytes, status: int) -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        found = await http.post(path, content=body)
        assert found.status_code == status
        if status == 400:
            error = found.json()["error"]
            assert isinstance(error if path.startswith("/api/") else error["message"], str)
        assert engine.runs == 0
        assert engine.loaded


# ---- what comes back ----


async def test_an_error_of_the_engine_is_a_reply_and_no_end() -> None:
    async with served() as http:
        late = await http.post("/v1/completions", json=planned(error="deadline_exceeded"))
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        broken = await http.post("/v1/completions", json=planned(bug="secret text"))
        assert broken.status_code == 500
        assert "secret" not in broken.text
        assert (await http.post("/v1/completions", json=planned(text="1"))).status_code == 200


async def test_the_server_keeps_the_deadline_of_an_engine_that_does_not() -> None:
    async with served() as http:
        body = {"input_prefix": planned(delay=3600, deaf=True, frame="1 + 1 ")["prompt"]}
        body |= {"input_suffix": "\n", "t_max_predict_ms": 100}
        found = await http.post("/infill", json=body)
        assert (found.status_code, found.json()["content"]) == (200, "1 + 1")
        assert found.json()["stop_type"] == "limit"


async def test_the_same_at_the_same_time_share_a_run_and_get_its_answers() -> None:
    body = planned(text="1", others=[["2", 0.5], ["3", 0.4]], delay=1.0)
    engine = FakeEngine()
    async with served(engine) as http:
        found = await asyncio.gather(*(http.post("/v1/completions", json=body) for _ in range(4)))
        texts = [one.json()["choices"][0]["text"] for one in found]
        assert sorted(texts) == ["1", "1", "2", "3"]
        assert engine.runs == 1
        assert await metric(http, "diffgemma_shared_total") == 3
        several = (await http.post("/v1/completions", json={**body, "n": 2})).json()
        assert [one["text"] for one in several["choices"]] == ["1", "2"]
        assert engine.runs == 2


async def test_nobody_gets_the_answer_to_another_one_s_text() -> None:
    async with served(FakeEngine(jitter_ms=50), most_runs=64) as http:

        async def asked(number: int) -> str:
            body = {"prompt": f"number_{number} = ", "suffix": "\n"}
            found = await http.post("/v1/completions", json=body)
            return found.json()["choices"][0]["text"]

        alone = [await asked(number) for number in range(40)]
        assert len({*alone}) == 40
        assert await asyncio.gather(*map(asked, range(40))) == alone


async def test_who_goes_away_ends_its_run_and_nobody_else_s() -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        alone = asyncio.create_task(http.post("/v1/completions", json=planned(delay=3600)))
        await until(lambda: engine.runs == 1)
        alone.cancel()
        await until(lambda: engine.cancelled == 1)

        body = planned(delay=2.0, text="1")
        one, other = (
            asyncio.create_task(http.post("/v1/completions", json=body)) for _ in range(2)
        )
        while await metric(http, "diffgemma_shared_total") < 1:
            await asyncio.sleep(0.01)
        one.cancel()
        assert (await other).json()["choices"][0]["text"] == "1"
        assert (engine.runs, engine.cancelled) == (2, 1)
        while await metric(http, "diffgemma_cancelled_total") < 2:
            await asyncio.sleep(0.01)


async def test_an_answer_is_polished_and_ends_at_a_stop() -> None:
    async with served() as http:
        body = planned(text="f(1)  \n\n")
        found = await http.post("/v1/completions", json={**body, "stop": ["("]})
        assert found.json()["choices"][0]["text"] == "f"
        nothing = await http.post("/v1/completions", json=planned(text="  "))
        assert nothing.json()["choices"][0]["text"] == ""
        assert "nothing to add" in nothing.headers["x-diffgemma-reason"]


async def test_no_run_for_a_language_in_which_nothing_comes_by_itself() -> None:
    engine = FakeEngine()
    engine.languages = ("python",)
    extra = [{"filename": "app.js", "text": "x = 1"}]
    body = {"input_prefix": "x = ", "input_suffix": "", "input_extra": extra}
    async with served(engine, budget_ms=1_500) as http:
        for seed in (1, 2):  # before the first run nothing is known of the model
            found = await http.post("/infill", json={**body, "seed": seed})
            assert found.json()["content"] == ""
            assert "only python" in found.headers["x-diffgemma-reason"]
            assert engine.runs == 1


async def test_lone_surrogates_are_no_end() -> None:
    async with served() as http:
        body = b'{"prompt": "x = \\ud800", "suffix": "\\udfff"}'
        assert (await http.post("/v1/completions", content=body)).status_code == 200


async def test_a_warm_up_is_read_once_and_answered() -> None:
    engine = FakeEngine()
    body = {"input_prefix": "", "prompt": "", "input_suffix": "", "n_predict": 0}
    extra = {"input_extra": [{"filename": "a.py", "text": "x = 1\n"}]}
    async with served(engine) as http:
        assert (await http.post("/infill", json=body)).status_code == 200
        assert engine.runs == 0
        assert (await http.post("/infill", json=body | extra)).status_code == 200
        assert engine.runs == 1
        assert [one.path for one in engine.requests[0].context] == ["a.py"]


async def test_the_state_is_told() -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "fake"
        engine.says = {"state": "loading"}
        loading = await http.get("/health")
        assert (loading.status_code, loading.json()["error"]["message"]) == (503, "Loading model")
        assert engine.warmed_up


async def test_metrics_count_and_tell_no_text() -> None:
    async with served() as http:
        await http.post("/v1/completions", json=planned(text="secret"))
        await http.post("/infill", json={"input_prefix": "secret", "input_suffix": 1})
        await http.get("/v1/models", headers={"host": "evil.example"})
        text = (await http.get("/metrics")).text
        assert 'diffgemma_requests_total{api="openai",status="200"} 1.0' in text
        assert 'diffgemma_requests_total{api="llama.cpp",status="400"} 1.0' in text
        assert 'diffgemma_refused_total{status="403"} 1.0' in text
        assert "secret" not in text
        assert "evil" not in text
