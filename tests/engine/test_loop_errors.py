"""What the service does about errors in its event loop that nobody took."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from engine.serve.failures import of_the_loop

SECRET = "a document's text"

PROGRAM = """
import asyncio
from engine.serve.failures import of_the_loop

def fails():
    raise MemoryError

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(of_the_loop)
    loop.call_soon(fails)
    await asyncio.sleep(30)

asyncio.run(main())
"""


def test_without_memory_the_process_ends_with_a_line() -> None:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert run.returncode == 1
    assert run.stderr == "there is no memory left to go on with: the service ends\n"


async def test_other_errors_are_a_line_without_what_the_callback_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(body: str) -> None:
        raise ValueError(body)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(of_the_loop)
    with caplog.at_level(logging.DEBUG):
        loop.call_soon(fails, SECRET)
        await asyncio.sleep(0)
    (line,) = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert line.startswith("unhandled: Exception in callback")
    assert "ValueError at test_loop_errors.py" in line
    assert SECRET not in line
