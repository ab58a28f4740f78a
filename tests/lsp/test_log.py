"""What becomes of errors that nobody takes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from diffgemma_lsp.lsp import log

SECRET = "a document's text"


async def heard(caplog: pytest.LogCaptureFixture, *calls: tuple[object, ...]) -> list[str]:
    """What is logged when the loop makes these calls."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log.unhandled)
    with caplog.at_level(logging.DEBUG):
        for call in calls:
            loop.call_soon(*call)  # pyright: ignore[reportArgumentType]
        await asyncio.sleep(0)
    return [record.getMessage() for record in caplog.records]


async def test_one_line_without_what_the_callback_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(body: str) -> None:
        raise ValueError(body)

    (line,) = await heard(caplog, (fails, SECRET))
    assert line.startswith("unhandled: Exception in callback")
    assert "ValueError at test_log.py" in line
    assert SECRET not in line


async def test_a_read_that_was_cancelled_as_its_data_came(caplog: pytest.LogCaptureFixture) -> None:
    future = asyncio.get_running_loop().create_future()
    assert await heard(caplog, (future.cancel,), (future.set_result, None)) == []
    assert future.cancelled()


async def test_a_future_that_our_own_code_sets_twice_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future = asyncio.get_running_loop().create_future()

    def again() -> None:
        future.set_result(SECRET)

    (line,) = await heard(caplog, (again,), (again,))
    assert "InvalidStateError at test_log.py" in line


async def test_without_an_error_there_is_the_message(caplog: pytest.LogCaptureFixture) -> None:
    context = {"message": "Task was destroyed but it is pending!", "task": SECRET}
    log.unhandled(asyncio.get_running_loop(), context)
    assert [record.getMessage() for record in caplog.records] == [
        "unhandled: Task was destroyed but it is pending!: nothing more is known"
    ]


def test_what_nobody_reads_is_left_out_and_counted() -> None:
    free, written = threading.Event(), list[str]()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            free.wait(60)
            written.append(record.getMessage())

    aside = log.Aside(Slow(), most=2)

    def say(line: str) -> None:
        aside.emit(logging.LogRecord("name", logging.INFO, "", 0, line, None, None))

    say("0")
    while aside._lines.qsize():  # pyright: ignore[reportPrivateUsage]
        time.sleep(0.001)
    for number in range(1, 6):
        say(str(number))
    free.set()
    aside.flush()
    assert written == ["0", "1", "2"]
    say("6")
    aside.flush()
    assert written[3:] == ["3 lines were left out: nobody reads them", "6"]
