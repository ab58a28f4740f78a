"""The engine service as a process: with which options it runs, and how it is started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import engine
from engine.errors import EngineUnavailable
from engine.models import local_model
from engine.paths import EnginePaths


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine, and how long it stays.

    model, device: None means the embedded model and the best device there is. A model is a name, or
        the absolute path of a folder.
    idle_unload_s, idle_exit_s: seconds without work until it frees the model, and until it ends;
        infinity means never. They count for the service that this client starts.
    runtime_dir: where its socket is; None means the system's place for that.
    replica: its number, where several services have the same model and device.
    """

    model: str | None = None
    device: str | None = None
    idle_unload_s: float = 900.0
    idle_exit_s: float = 3600.0
    runtime_dir: Path | None = None
    replica: int = 0


Spawn = Callable[[EngineOptions, EnginePaths], list[str]]


def service_command(options: EngineOptions, paths: EnginePaths) -> list[str]:
    """The command line that starts the service."""
    # -P: no module is taken from the working directory. faulthandler: a crash in native code
    # leaves its place in the log.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "engine.serve.service"]
    command += ["--socket", str(paths.socket)]
    command += ["--idle-unload", str(options.idle_unload_s)]
    command += ["--idle-exit", str(options.idle_exit_s)]
    model = local_model(options.model)
    command += ["--model", model] if model is not None else []
    command += ["--device", options.device] if options.device is not None else []
    return command


FEW_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}
"""oneDNN makes a kernel for each shape that it meets and keeps 1,024: of nano's, 70 MiB. Those of
the passes that run now are few."""

BRIEF_SPINS = {"GOMP_SPINCOUNT": "10000"}
"""How often threads of a CPU look for one another before they sleep. Where other programs are busy
the default of 300,000 makes mini's passes 2 to 8 times slower; elsewhere it gains nothing."""


def environment() -> dict[str, str]:
    """Ours, with a path on which the service finds the same `engine` as we have."""
    root = Path(engine.__file__ or ".").resolve().parent.parent
    own = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    # What is relative would mean another place in another working directory.
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(p)]
    return {**FEW_KERNELS, **BRIEF_SPINS, **os.environ, "PYTHONPATH": os.pathsep.join(own + given)}


class EngineProcess:
    """A service just started, in a session of its own so that it outlives us; its stderr a log."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._past = os.fstat(output).st_size
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineUnavailable(f"the engine can't be started: {error}") from error
        finally:
            os.close(output)
        # Reaps it, whenever that may be.
        threading.Thread(target=self._process.wait, daemon=True).start()

    @property
    def over(self) -> bool:
        return self._process.returncode is not None

    @property
    def failed(self) -> bool:
        """It ended, and not because another one has the lock."""
        return self._process.returncode not in (None, 0)

    def last_words(self) -> str:
        """The last line that it left in its log."""
        try:
            written = self._log.read_bytes()
        except OSError:
            written = b""
        new = written[self._past :] if self._past <= len(written) else written
        lines = [line for line in new.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with code {self._process.returncode}"
