"""What benches of a whole session share: a client whose engine is a real one, and its places."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lsp")]

from in_process import InProcessClient  # noqa: E402
from lsp_client import position  # noqa: E402

from diffgemma_lsp.commands.streaming import follow  # noqa: E402
from diffgemma_lsp.engine_client import EngineClient  # noqa: E402
from diffgemma_lsp.engine_process import EngineOptions  # noqa: E402
from engine.evaluation.holes import Source  # noqa: E402
from engine.evaluation.metrics import Estimate, interval, percentile  # noqa: E402
from engine.types import InfillRequest, fill_in_the_middle  # noqa: E402


@asynccontextmanager
async def session(
    model: str | None, folders: Sequence[Path], **options: Any
) -> AsyncIterator[InProcessClient]:
    """A client of a server in this process, with an engine service of its own that has its model
    loaded; `options` are the initializationOptions."""
    with tempfile.TemporaryDirectory(prefix="bench") as home:
        own = EngineOptions(model=model, runtime_dir=Path(home) / "run")
        engine, again = EngineClient(own), EngineClient(own)
        try:
            await follow(engine, InfillRequest(fill_in_the_middle("x = ", "\n", 8)))
            client = InProcessClient()
            client.connect(lambda settings: engine)
            uris = [folder.resolve().as_uri() for folder in folders]
            await client.initialize(folders=uris, **options)
            yield client
            await client.request("shutdown")  # which closes its engine's client
        finally:
            await again.stop()
            await again.aclose()


def uri_of(source: Source, folders: Sequence[Path]) -> str:
    """Where a source lies."""
    (folder,) = (one for one in folders if source.name.startswith(f"{one.name}/"))
    return (folder.resolve().parent / source.name).as_uri()


def position_of(text: str, offset: int) -> dict[str, int]:
    """A place of a text as the protocol has it."""
    before = text[:offset]
    line = before.rpartition("\n")[2]
    return position(before.count("\n"), len(line.encode("utf-16-le")) // 2)


def share(found: Estimate) -> str:
    """A share with its interval, for people."""
    return f"{found.value:.0%} ({interval(found.low, found.high, '.0%')})" if found.n else "–"


def as_json(found: Estimate) -> dict[str, float]:
    """A share with its interval, for programs."""
    return {"n": found.n, "share": found.value, "low": found.low, "high": found.high}


def seconds(times: Sequence[float]) -> dict[str, float]:
    """Percentiles of durations."""
    return {name: round(percentile(times, at), 3) for name, at in (("p50", 0.5), ("p95", 0.95))}
