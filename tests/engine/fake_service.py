"""The engine service with a fake engine, as a process of its own: what the border tests start.

Takes the service's own arguments. A request's first Fixed is a script for the fake, such as
"passes=5 delay=0.01"; with "lose=2" the device fails in the second pass. What the fake does goes
to the file events.txt beside the socket, one line each: "load", "pass <seed>", "left <seed>". A
file named "broken" there makes loading fail.
FAKE_VERSION makes the service claim another package version, FAKE_PROTOCOL another protocol;
FAKE_FAILED_EXIT_S has one without a model end sooner, FAKE_REPLACED_EXIT_S one that is out of date.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engine.serve.service
from engine import paths
from engine.errors import ModelError
from engine.serve import lifecycle
from engine.types import EngineInfo, Fixed, Frame, Infill, InfillRequest, Piece

INFO = EngineInfo("fake", "cpu", "float32", 1, 16, 128, ("fill",))


class FakeEngine:
    info = INFO

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        first = request.template[0]
        assert isinstance(first, Fixed)
        script = dict(word.split("=") for word in first.text.split() if "=" in word)
        passes, delay = int(script.get("passes", 3)), float(script.get("delay", 0.005))
        size = int(script.get("size", 1))
        deadline = deadline or time.monotonic() + 3600
        try:
            yield None
            for step in range(1, passes + 1):
                time.sleep(delay)
                self.note(f"pass {request.seed}")
                if "fail" in script:
                    raise ValueError(f"a secret of the document: {first.text}")
                if script.get("lose") == str(step):
                    raise RuntimeError(f"CUDA error: device-side assert triggered {first.text}")
                if script.get("die") == str(step):
                    os.kill(os.getpid(), 9)
                yield Frame(step, passes, ((Piece(f"{step:x>{size}}", 0.5),),), 0.1)
                if time.monotonic() > deadline:
                    break
            reason = "settled" if step == passes else "deadline"
            yield Infill("done", ("done",), step, step, reason, 1.0, {"budget": deadline})
        finally:
            self.note(f"left {request.seed}")


def main() -> int:
    folder = Path(sys.argv[sys.argv.index("--socket") + 1]).parent
    if claimed := os.environ.get("FAKE_VERSION"):
        paths.package_version = lambda: claimed
        engine.serve.service.package_version = lambda: claimed
    if protocol := os.environ.get("FAKE_PROTOCOL"):
        paths.PROTOCOL = engine.serve.service.PROTOCOL = int(protocol)

    if patience := os.environ.get("FAKE_FAILED_EXIT_S"):
        lifecycle.FAILED_EXIT_S = float(patience)
    if patience := os.environ.get("FAKE_REPLACED_EXIT_S"):
        lifecycle.REPLACED_EXIT_S = float(patience)

    def note(line: str) -> None:
        with open(folder / "events.txt", "a") as events:
            events.write(line + "\n")

    def load(options: object) -> Callable[[Callable[[str, float], None]], FakeEngine]:
        def work(progress: Callable[[str, float], None]) -> FakeEngine:
            note("load")
            for step in range(4):
                progress("reading", step / 4)
                time.sleep(float(os.environ.get("FAKE_LOAD_S", "0")) / 4)
            if (folder / "broken").exists():
                raise ModelError("there is no model here: name one that exists")
            return FakeEngine(note)

        return work

    engine.serve.service._real_engine = load  # the rest of the process is the real one
    return engine.serve.service.main()


if __name__ == "__main__":
    raise SystemExit(main())
