"""Several engines behind one port: where a request goes, and what comes of one that dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine
from serving import AFTER, BEFORE, PATIENCE_S, serving
from test_app import until

from diffgemma_lsp.cli import main
from diffgemma_lsp.remote_engine import EngineBusy
from diffgemma_lsp.serve import replicas
from diffgemma_lsp.serve.replicas import SPILL, Replicas, Served
from engine.errors import BadRequest, DeadlineExceeded, EngineUnavailable
from engine.paths import running_engines
from engine.types import Frame, Infill, InfillRequest, fill_in_the_middle

pytestmark = pytest.mark.timeout(600)


class Mortal(FakeEngine):
    """Dies when it is told to: before it answers, or behind a frame. refusal: what it says then
    before it answers."""

    def __init__(self, refusal: EngineUnavailable | None = None) -> None:
        super().__init__()
        self.dead = False
        self.refusal = refusal or EngineUnavailable("it went away")

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        if self.dead:
            self.runs += 1
            raise self.refusal
        async for event in super().stream(request):
            yield event
            if self.dead:
                raise EngineUnavailable("it went away while it worked")


def asked(document: str = "a", budget_s: float | None = 60.0, **plan: object) -> InfillRequest:
    """A request about this document, for which the engine does so."""
    before = f"# {document}\n# fake: {json.dumps(plan)}\n" if plan else f"# {document}\n"
    return InfillRequest(fill_in_the_middle(before, "\n"), budget_s=budget_s, title=document)


async def answer(engine: Served, request: InfillRequest) -> Infill:
    *_, last = [event async for event in engine.stream(request)]
    assert isinstance(last, Infill)
    return last


async def test_a_document_stays_with_one_and_all_get_some() -> None:
    engines = [Mortal() for _ in range(4)]
    served = Replicas(engines)
    for _ in range(3):
        for n in range(100):
            await answer(served, asked(f"{n}.py"))
    homes = [{request.title for request in engine.requests} for engine in engines]
    assert sum(map(len, homes)) == 100, "each in one place"
    assert all(10 < len(home) < 45 for home in homes)
    assert [len(engine.requests) for engine in engines] == [3 * len(home) for home in homes]


async def test_where_one_is_away_only_its_documents_move() -> None:
    engines = [Mortal() for _ in range(3)]
    served = Replicas(engines)
    names = [f"{n}.py" for n in range(60)]
    for name in names:
        await answer(served, asked(name))
    before = [{request.title for request in engine.requests} for engine in engines]
    engines[1].dead = True
    for name in names:
        assert (await answer(served, asked(name))).holes
    assert engines[1].runs == len(before[1]) + 1, "it is not asked again at once"
    assert engines[1].warmed_up, "it is started again"
    for place in (0, 2):
        after = {request.title for request in engines[place].requests}
        assert before[place] <= after <= before[place] | before[1]
    await served.aclose()


async def test_one_that_is_back_gets_its_documents_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "REST_S", 0.0)
    engines = [Mortal(), Mortal()]
    served = Replicas(engines)
    await answer(served, asked())
    (home, other) = sorted(engines, key=lambda engine: -engine.runs)
    home.dead = True
    await answer(served, asked())
    home.dead = False
    await answer(served, asked())
    assert (home.runs, other.runs) == (3, 1)


async def test_a_busy_one_is_spared() -> None:
    engines = [Mortal(), Mortal()]
    served = Replicas(engines)
    long = [asyncio.create_task(answer(served, asked(delay=30.0))) for _ in range(SPILL + 2)]
    await until(lambda: sum(engine.runs for engine in engines) == SPILL + 2)
    assert sorted(engine.runs for engine in engines) == [1, SPILL + 1]
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    assert sum(engine.cancelled for engine in engines) == SPILL + 2


async def test_a_run_begins_anew_where_its_replica_dies() -> None:
    engines = [Mortal() for _ in range(3)]
    served = Replicas(engines)
    events = served.stream(asked(frame="seen"))
    first = await anext(events)
    (home,) = (engine for engine in engines if engine.runs)
    home.dead = True
    again, result = await anext(events), await anext(events)
    assert again == first
    assert isinstance(result, Infill)
    await served.aclose()


async def test_what_two_replicas_died_of_is_not_given_to_a_third() -> None:
    engines = [Mortal() for _ in range(3)]
    served = Replicas(engines)
    events = served.stream(asked(frame="seen"))
    for _ in range(2):
        assert isinstance(await anext(events), Frame)
        for engine in engines:
            engine.dead = engine.runs > 0
    with pytest.raises(EngineUnavailable, match="while it worked"):
        await anext(events)
    assert sorted(engine.runs for engine in engines) == [0, 1, 1]
    await served.aclose()


async def test_one_that_is_busy_is_not_away() -> None:
    engines = [Mortal(EngineBusy("too much to do")) for _ in range(2)]
    served = Replicas(engines)
    await answer(served, asked())
    (home, other) = sorted(engines, key=lambda engine: -engine.runs)
    home.dead = True
    await answer(served, asked())
    home.dead = False
    await answer(served, asked())
    assert (home.runs, other.runs) == (3, 1), "it has its documents again at once"
    assert not home.warmed_up
    home.dead = other.dead = True
    with pytest.raises(EngineBusy):
        await answer(served, asked())


async def test_where_all_are_away_the_last_one_says_so() -> None:
    engines = [Mortal(), Mortal()]
    for engine in engines:
        engine.dead = True
    served = Replicas(engines)
    with pytest.raises(EngineUnavailable):
        await answer(served, asked())
    assert [engine.runs for engine in engines] == [1, 1]
    await served.aclose()


async def test_what_is_wrong_with_a_request_is_asked_once() -> None:
    engines = [Mortal(), Mortal()]
    with pytest.raises(BadRequest):
        await answer(Replicas(engines), asked(error="bad_request"))
    assert sum(engine.runs for engine in engines) == 1


async def test_the_next_one_has_the_time_that_is_left() -> None:
    class Slow(Mortal):
        async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
            await asyncio.sleep(0.2)
            async for event in super().stream(request):
                yield event

    first, second = Slow(), Slow()
    first.dead = second.dead = True
    with pytest.raises(DeadlineExceeded):
        await answer(Replicas([first, second]), asked(budget_s=0.1))
    assert first.runs + second.runs == 1


async def test_the_status_is_that_of_the_one_that_is_furthest() -> None:
    first, second = FakeEngine(), FakeEngine()
    served = Replicas([first, second])
    first.says = {"state": "loading"}
    assert (await served.status() or {})["state"] == "ready"
    second.says = None
    assert (await served.status() or {})["state"] == "loading"
    first.says = None
    assert await served.status() is None


@pytest.mark.parametrize("count", ["0", "65"])
def test_a_wrong_number_is_one_line(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--replicas", count]) == 2
    assert "--replicas must lie between 1 and 64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine-url", "http://gpu.example.org"], "must be https, or http to this machine"),
        (["--engine-url", "http://localhost:1", "--replicas", "2"], "leave out --model, --device"),
        (["--engine-url", "http://localhost:1", "--model", "nano"], "leave out --model, --device"),
        (["--engine-token-file", "token"], "--engine-token-file is for --engine-url"),
        (
            ["--engine-url", "http://localhost:1", "--engine-token-file", "/no/such"],
            "the token in /no/such can't be read: No such file or directory",
        ),
    ],
)
def test_engines_elsewhere_that_are_wrong_are_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", *flags]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


# ---- real ones ----


async def test_a_replica_is_killed_under_load(own_engines: dict[str, str]) -> None:
    """No request is lost, not even those that were in it; and it comes back."""
    folder = Path(own_engines["DIFFGEMMA_LSP_RUNTIME_DIR"])
    flags = ("--replicas", "2", "--rate", "100000", "--burst", "1000", "--queue", "100")
    seen: Counter[int] = Counter()

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        body = {"prompt": f"# part {number % 12}\n{BEFORE}", "suffix": AFTER, "seed": number}
        said = await http.post("/v1/completions", json=body)
        seen[said.status_code] += 1
        assert ("choices" in said.json()) == (said.status_code == 200), said.text
        assert ("error" in said.json()) == (said.status_code != 200), said.text

    limits = httpx.Limits(max_connections=None)
    told = r"WARNING replica \d is away: others have its documents\n"
    with serving(own_engines, *flags, told=told) as url:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits) as http:
            await asyncio.gather(*(ask(http, n) for n in range(12)))
            services = running_engines(folder)
            assert len(services) == 2
            load = asyncio.gather(*(ask(http, n) for n in range(100, 148)))
            await until(lambda: seen.total() >= 16)
            killed, pid = services[0], services[0].holder
            os.kill(int(pid), signal.SIGKILL)
            await load
            assert seen == {200: 60}
            await until(lambda: killed.holder not in ("", pid))
            await asyncio.gather(*(ask(http, n) for n in range(200, 212)))
            assert seen == {200: 72}


async def test_machines_are_taken_out_one_after_the_other(
    real_engine: dict[str, str], tmp_path: Path
) -> None:
    """A rolling restart behind a `serve` that has no engine of its own: nobody notices."""
    token = tmp_path / "tokens"
    token.write_text("one-of-them-all-0123\n", encoding="utf-8")
    token.chmod(0o600)
    seen: Counter[int] = Counter()
    alone = {**real_engine, "DIFFGEMMA_LSP_RUNTIME_DIR": str(tmp_path / "none")}

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        body = {"prompt": f"# part {number % 12}\n{BEFORE}", "suffix": AFTER, "seed": number}
        said = await http.post("/v1/completions", json=body)
        seen[said.status_code] += 1

    async def some(http: httpx.AsyncClient, first: int) -> None:
        await asyncio.gather(*(ask(http, n) for n in range(first, first + 24)))

    lent = ("--token-file", str(token), "--rate", "100000", "--burst", "1000", "--queue", "100")
    limits = httpx.Limits(max_connections=None)
    told = r"(WARNING replica \d(: .*| is away: others have its documents)\n)+"
    ended = r"(ERROR Cancel \d+ running task\(s\), timeout graceful shutdown exceeded\n)?"

    def machine(*more: str) -> contextlib.AbstractContextManager[str]:
        return serving(real_engine, *lent, *more, told=ended)

    with contextlib.ExitStack() as machines, contextlib.ExitStack() as others:
        urls = [machines.enter_context(machine())]
        urls.append(others.enter_context(machine()))
        flags = [word for url in urls for word in ("--engine-url", url)]
        flags += ["--engine-token-file", str(token), *lent[2:]]
        with serving(alone, *flags, told=told) as url:
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits) as http:
                await some(http, 0)
                load = asyncio.create_task(some(http, 100))
                await until(lambda: seen.total() >= 28)
                others.close()
                await load
                others.enter_context(
                    serving(real_engine, *lent, "--port", urls[1].rpartition(":")[2])
                )
                await some(http, 200)
                machines.close()
                await some(http, 300)
    assert seen == {200: 96}
    assert running_engines(tmp_path / "none") == []
