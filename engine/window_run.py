"""A request to a model that reads a window in which everything sees everything, such as Dream.

Nothing of a prefix can be kept, so that each pass reads all of the window: the end of the text in
front of a hole, the hole, the beginning of the text behind it. What is decided is final. A hole
whose length is open has slack (what DreamOn calls a deletion), or its length is looked for before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.span import Span
from engine.canvas_run import CanvasRun
from engine.diffusion.denoiser import WindowDenoiser, window_span
from engine.diffusion.loop import Pass, Schedule
from engine.diffusion.samplers import entropies
from engine.text.gap import Gap
from engine.text.layout import Layout
from engine.types import Frame, StopReason

LENGTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Lengths that a hole without slack may have, beside the profile's."""

AROUND = 128
"""Tokens on either side of a hole that are read to choose its length: all lengths are read in one
pass, as so many windows."""


class WindowRun(CanvasRun):
    """A `Run` of canvases that are read with all that stands around them."""

    front: Sequence[int] = ()

    def fill(self) -> Generator[Frame | None, None, StopReason]:
        """Finds the lengths of holes that can't end by themselves, and denoises."""
        if self.sheet.slack is None:
            for gap in self.sheet.gaps:
                if gap.draft is None and not gap.hole.fixed_length and gap.cap > 1:
                    yield from self._find_length(gap)
        return (yield from super().fill())

    def prefill(self, ids: list[int]) -> Iterator[None]:
        """Nothing is read ahead: the window is read in each pass."""
        self.front = ids
        yield from ()

    def bound(self) -> WindowDenoiser:
        """The model with what stands in front of the canvas."""
        engine = self.engine
        return WindowDenoiser(
            engine.model, engine.batch, self.front, self.sheet.slack, engine.profile.shifted
        )

    def schedule(self, layout: Layout) -> Schedule:
        """At most a pass for each free slot: each decides one."""
        schedule = super().schedule(layout)
        most = max(1, min(schedule.planned, int(layout.canvas.free.sum())))
        return Schedule(schedule.sampling, most, schedule.strength)

    def told(self, layout: Layout, event: Pass) -> tuple[list[int], list[float]]:
        """Slack may stand anywhere in a hole, where a slot was taken out; here it comes last."""
        best, certainty = super().told(layout, event)
        slack, start = self.sheet.slack, 0
        for _, span in layout.spans:
            stop = start + span.stop - span.start
            order = sorted(range(start, stop), key=lambda i: best[i] == slack)
            best[start:stop] = [best[i] for i in order]
            certainty[start:stop] = [certainty[i] for i in order]
            start = stop
        return best, certainty

    def _find_length(self, gap: Gap) -> Generator[None, None, None]:
        """Gives a hole the length at which a first pass gains most by the text around it: mean
        entropy of its masks there, less that of as many masks with nothing around them.

        Surer for being short are holes anywhere, which the second term takes away (as the bias that
        CAL, arXiv 2602.00476, divides by; here it is measured).
        """
        self.look_up()
        before, behind = self._around(gap)
        lengths = sorted({*(n for n in LENGTHS if n <= gap.cap), min(gap.slots, gap.cap)})
        windows = [self._window(before, n, behind) for n in lengths]
        bare = [n for n in lengths if n not in self.engine.bare_entropy]
        windows += [self._window(before[:1], n, behind[len(behind) :]) for n in bare]
        rows = yield from self.run_pass([self._span(window) for window in windows], "judge")
        means = [
            self._mean_entropy(window, hidden) for window, hidden in zip(windows, rows, strict=True)
        ]
        self.engine.bare_entropy |= dict(zip(bare, means[len(lengths) :], strict=True))
        gains = [
            self.engine.bare_entropy[n] - mean
            for n, mean in zip(lengths, means[: len(lengths)], strict=True)
        ]
        gap.slots = lengths[gains.index(max(gains))]

    def _around(self, gap: Gap) -> tuple[list[int], list[int]]:
        """The ids in front of a hole, with what begins the text, and those behind it."""
        at = next(i for i, item in enumerate(self.sheet.work) if item is gap)
        own = self.prefix[self.head :]
        for item in self.sheet.work[:at]:
            own = [*own, *(item.done if isinstance(item, Gap) else item)]
        behind = self.sheet.behind(gap, AROUND, over=True)
        return [*self.prefix[: self.head], *own[-AROUND:]], behind

    def _window(self, before: list[int], length: int, behind: list[int]) -> Tensor:
        assert self.engine.mask_id is not None
        ids = [*before, *[self.engine.mask_id] * length, *behind]
        return torch.tensor(ids, device=self.engine.model.device)

    def _span(self, window: Tensor) -> Span:
        model = self.engine.model
        return window_span(window, KVBuffer(model.kv, model.dtype, model.device, growth=1))

    def _mean_entropy(self, window: Tensor, hidden: Tensor) -> float:
        """In nats, over the masks of a window."""
        shift = int(self.engine.profile.shifted)
        rows = (window == self.engine.mask_id).nonzero().squeeze(-1)
        logits = self.engine.model.logits(hidden[(rows - shift).clamp(min=0)]) + self.engine.banned
        return float(entropies(logits.softmax(-1)).mean())
