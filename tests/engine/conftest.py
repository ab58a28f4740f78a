"""What tests of the engine share as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scheduling import PATIENCE_S, FakeEngine

from engine.serve.scheduler import Scheduler


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
