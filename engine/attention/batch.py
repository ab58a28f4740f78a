"""The next pass: spans of all requests that are ready for one run in it side by side.

A request posts its spans and looks up the result at its next turn. Whoever asks first runs the pass
for all that were posted, so that requests that take turns share passes and join and leave at every
one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.attention.graphs import Graphs
from engine.attention.span import Span, forward
from engine.backbones.base import Backbone


class Ticket:
    """Spans that wait for the next pass. Call it for their hidden rows, [n, d] each."""

    def __init__(self, batch: Batch, spans: Sequence[Span]) -> None:
        self._batch, self.spans = batch, spans
        self._rows: list[Tensor] | None = None
        self._error: Exception | None = None

    def __call__(self) -> list[Tensor]:
        """The hidden rows of each span. Raises what the pass raised for these spans."""
        if self._rows is None and self._error is None:
            self._batch.run()
        if self._error is not None:
            raise self._error
        assert self._rows is not None
        return self._rows

    def settle(self, rows: list[Tensor]) -> None:
        """Takes what the pass gave."""
        self._rows = rows

    def fail(self, error: Exception) -> None:
        """Takes what the pass raised."""
        self._error = error

    def withdraw(self) -> None:
        """The request is gone: its spans leave the next pass."""
        self._batch.withdraw(self)


MANY = 64
"""From so many rows on, a pass is worth several threads on a CPU."""


class Batch:
    """Collects tickets and runs them. passes: how many there were.

    threads: of torch, for passes of few rows and of many; None leaves them as they are. Few rows
    take microseconds an operation, and threads that wait for each other at each of them are slower
    than one; a prefix takes milliseconds.
    """

    def __init__(self, model: Backbone, threads: tuple[int, int] | None = None) -> None:
        self._model, self.threads = model, threads
        self.graphs = Graphs(model) if model.device.type == "cuda" else None
        self._waiting: list[Ticket] = []
        self.passes = 0

    def post(self, spans: Sequence[Span]) -> Ticket:
        """Queues spans for the next pass. Two tickets may not write to the same rows."""
        ticket = Ticket(self, spans)
        self._waiting.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Takes a ticket out, if it still waits."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    @property
    def recorded(self) -> int:
        """How many graphs were recorded: what a pass with one takes says nothing of the others."""
        return 0 if self.graphs is None else self.graphs.recorded

    def shed(self) -> None:
        """Gives up what only makes passes faster."""
        if self.graphs is not None:
            self.graphs.shed()

    def run(self) -> None:
        """Runs all that wait in one pass. If that fails for several, each is run alone, so that
        one request that is too large for the memory doesn't take the others with it."""
        tickets, self._waiting = self._waiting, []
        try:
            self._pass(tickets)
        except Exception as error:
            if len(tickets) == 1:
                tickets[0].fail(error)
                return
            for ticket in tickets:
                try:
                    self._pass([ticket])
                except Exception as own:
                    ticket.fail(own)

    @torch.inference_mode()
    def _pass(self, tickets: list[Ticket]) -> None:
        spans = [span for ticket in tickets for span in ticket.spans]
        if self.threads is not None:
            torch.set_num_threads(self.threads[sum(map(len, spans)) >= MANY])
        rows = self.graphs(spans) if self.graphs else forward(self._model, spans)
        self.passes += 1
        for ticket in tickets:
            count = len(ticket.spans)
            ticket.settle(rows[:count])
            rows = rows[count:]
