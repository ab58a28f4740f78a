"""What all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# The models of tests are tiny: two threads that wait for each other at every operation are slower
# than one, and on a busy machine ten times slower. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a card, kernels are interpreted. Read when triton is loaded.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# In the background of a script Ctrl-C is ignored, and what tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


# What serves where nothing is said is nano, whatever models the user has fetched; a test that wants
# mini asks for its base. Pictures show what a user sees.
# Several processes that share the tests begin with what the first one has set.
_USERS_MODELS = os.environ.setdefault("USERS_MODELS", os.environ.get("DIFFGEMMA_MODELS", ""))
if os.environ.get("PICTURES"):
    from engine.models import models_folder

    # Editors get a home of their own.
    os.environ["DIFFGEMMA_MODELS"] = str(models_folder())
else:
    os.environ["DIFFGEMMA_MODELS"] = str(ROOT / ".cache" / "no-models")


# What tests accept is nothing that the user has accepted.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="diffgemma-state-")


def _without_surrogates(found: Any) -> Any:
    """A report's data, each lone surrogate written as its escape."""
    match found:
        case str():
            return found.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _without_surrogates(value) for key, value in found.items()}
        case list():
            return [_without_surrogates(value) for value in found]
        case tuple():
            return tuple(_without_surrogates(value) for value in found)
        case _:
            return found


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Several processes send their reports as UTF-8, and what a test logs may be no such text."""
    return _without_surrogates((yield))


@pytest.fixture
def mini_base(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with mini's base; tests that need it are skipped where nobody has pulled it."""
    from engine.models import base_folder

    if _USERS_MODELS:
        monkeypatch.setenv("DIFFGEMMA_MODELS", _USERS_MODELS)
    else:
        monkeypatch.delenv("DIFFGEMMA_MODELS")
    folder = base_folder("mini")
    if folder is None:
        pytest.skip("mini's base is not here: diffgemma-lsp pull")
    return folder


@contextmanager
def _services_apart() -> Generator[dict[str, str]]:
    """The environment of engine services apart from the user's own, which end with it."""
    # Not below pytest's own directory: a socket's path must be short.
    folder = tempfile.mkdtemp(prefix="dgtest-")
    env = {**os.environ, "DIFFGEMMA_LSP_RUNTIME_DIR": folder, "PYTHONPATH": str(ROOT)}
    # Threads that spin while they wait for one another are ten times slower on a busy machine.
    env.setdefault("OMP_WAIT_POLICY", "passive")
    yield env
    stop = [sys.executable, "-m", "diffgemma_lsp", "engine", "stop", "--all"]
    subprocess.run(stop, env=env, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def real_engine() -> Iterator[dict[str, str]]:
    """The environment of an engine service with nano. Whoever needs it first starts it; it ends
    with the tests."""
    with _services_apart() as env:
        yield env


@pytest.fixture
def own_engines() -> Iterator[dict[str, str]]:
    """The environment of services of one test alone."""
    with _services_apart() as env:
        yield env
