"""A request to a model that denoises canvases: one after the other, the encoder's answers beside
the first one, and the choice among all.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from engine.attention.token_tree import TokenTree
from engine.choice.beam import Beam, Rivals, goes_on
from engine.choice.rank import AFTER, Judge, rank
from engine.diffusion.denoiser import CanvasDenoiser, WindowDenoiser
from engine.diffusion.loop import Pass, Schedule, denoise
from engine.diffusion.rng import Draws
from engine.run import Run
from engine.text.layout import Layout
from engine.text.typed import Writable
from engine.types import Frame, StopReason


class CanvasRun(Run):
    """A `Run` of canvases."""

    rivals: Rivals | None = None

    def fill(self) -> Generator[Frame | None, None, StopReason]:
        """Denoises canvas after canvas; returns why the last one stopped."""
        reason: StopReason = "unchanged"
        ids, joined = self.prefix, list[int]()
        while self.sheet.pending and not self.late():
            ids = self.fitted([*ids, *joined, *self.sheet.leading()])
            if self.steps and self.rivals is not None and ids != self.prefix:
                self.rivals.tree.keep_prefix()
            yield from self.prefill(ids)
            if self.late():
                break
            reason, layout, last = yield from self._denoise()
            joined = self.sheet.commit(layout, *self.told(layout, last), last=reason == "deadline")
        if not self.sheet.pending and self.rivals is not None:
            yield from self._choose(self.rivals)
        return reason

    def told(self, layout: Layout, event: Pass) -> tuple[list[int], list[float]]:
        """The best guess at each free slot after a pass, and how sure each is."""
        return event.best, event.certainty

    def _denoise(self) -> Generator[Frame | None, None, tuple[StopReason, Layout, Pass]]:
        """Denoises the next canvas; returns why it stopped, its layout and its last pass."""
        engine = self.engine
        layout = self.sheet.lay_out(engine.model.config.canvas_length, engine.banned)
        bound = self.bound()
        schedule = self.schedule(layout)
        draws = Draws(self.request.seed, engine.model.device)
        passes = denoise(bound, engine.process, layout.canvas, schedule, draws, self.steps)
        base = self.steps
        began = time.monotonic()
        for event in passes:
            if event is None:
                try:
                    self.look_up()
                    began = time.monotonic()
                    yield None
                except BaseException:
                    bound.withdraw()
                    raise
                continue
            if self.rivals is not None and bound.tree is self.rivals.tree:
                self.rivals.beam.step()
            seconds = time.monotonic() - began
            engine.timed(seconds)
            self.timings.denoise += seconds
            self.steps, self.forward_passes = event.step, self.forward_passes + 1
            guess = layout.guess(*self.told(layout, event))
            yield self.frame(event.step, base + schedule.planned, guess, event.entropy)
            if event.settled:
                return event.settled, layout, event
            if self.late():
                return "deadline", layout, event
        raise AssertionError("a denoising ends with its last pass")

    def bound(self) -> CanvasDenoiser | WindowDenoiser:
        """The model behind the prefix as it is now; what is read causally begins there, too."""
        cache, length, batch = self.cache, self.length, self.engine.batch
        reads = length > 0
        if reads and self.steps == 0:
            self.rivals = self._rivals()
            if self.rivals is not None:
                return CanvasDenoiser(cache, batch, self.rivals.tree, length)
        if reads and self.sampling.causal_share > 0:
            return CanvasDenoiser(cache, batch, TokenTree(cache, length), length)
        return CanvasDenoiser(cache, batch, None, length)

    def _rivals(self) -> Rivals | None:
        """The encoder answers, too, if there is one hole with text behind it and no draft, and
        time for it."""
        engine, (gap, *others) = self.engine, self.sheet.gaps
        after = self.sheet.after(AFTER)
        told = gap.hole.draft is not None or gap.hole.fixed_length
        if not self.sampling.rerank or others or told or not after:
            return None
        if not self.time_to_choose():
            return None  # too few tokens for answers that end
        most, behind = min(gap.cap, engine.profile.hole), engine.tokenizer.bytes_of(after)
        tree = TokenTree(self.cache, self.length)
        writable = Writable(engine.tokenizer, gap.typed, engine.writable)
        beam = Beam(tree, writable, goes_on(engine.tokenizer, behind), most)
        return Rivals(tree, beam, after)

    def _choose(self, rivals: Rivals) -> Iterator[None]:
        """Lets the text around the hole choose among all answers, the denoiser's one of them."""
        tree, beam = rivals.tree, rivals.beam
        while not beam.done and not self.late():
            self.look_up()
            if spans := tree.spans():
                tree.took((yield from self.run_pass(spans, "denoise")))
            beam.step()
        if not beam.found or self.over():
            return
        gap = self.sheet.gaps[0]
        ids = dict.fromkeys((tuple(gap.done), *(one.ids for one in beam.likeliest)))
        answers = [list(one) for one in ids]
        judge = Judge(tree, answers, rivals.after)
        if spans := tree.spans():
            tree.took((yield from self.run_pass(spans, "denoise")))
        self.ranked = rank(answers, judge.likelihoods())
        if (best := self.ranked[0].ids) != gap.done:
            gap.replace(best)

    def schedule(self, layout: Layout) -> Schedule:
        """How many passes there are, by what the profile and the deadline allow."""
        strength = max(gap.strength for gap, _ in layout.spans)
        most = max(1, round(self.sampling.max_steps * strength))
        left = None if self.deadline is None else self.left()
        return Schedule(self.sampling, self.engine.planned(most, left), strength)
