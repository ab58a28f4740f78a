"""A request to a model that decides from the left: hole after hole, each with the text behind it in
view; several answers are searched for, and the encoder has a say in which is best.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from math import exp

from engine.attention.token_tree import Hole, TokenTree, Written
from engine.choice.ahead import Ahead
from engine.choice.rank import Judge, Likelihood, rank
from engine.choice.search import Search
from engine.diffusion.lookahead import look_ahead
from engine.diffusion.rng import Draws
from engine.profile import Weights
from engine.run import CHOOSING, Run
from engine.text.layout import Gap
from engine.text.typed import Writable
from engine.types import Frame, StopReason

SLOTS = (16, 24, 32, 48, 64, 96, 128)
"""How many slots a hole has whose length is open."""

SEARCHED = 48
"""Up to so many tokens answers are searched for; only the likeliest goes on behind."""

JUDGED = 3
"""So many answers, the likeliest, are judged by the text behind the hole."""

AFTER = 16
"""By so many tokens of it."""


class LeftRun(Run):
    """A `Run` of holes that are decided from the left."""

    def fill(self) -> Generator[Frame | None, None, StopReason]:
        """Fills hole after hole, each with the text behind it in view."""
        reason: StopReason = "unchanged"
        ids, joined = self.prefix, list[int]()
        while self.sheet.pending and not self.late():
            ids = self.fitted([*ids, *joined, *self.sheet.leading()])
            yield from self.prefill(ids)
            if self.late():
                break
            gap = self.sheet.next_gap
            reason = yield from self._fill_gap(gap)
            joined = self.sheet.finish(gap)
        return reason

    def _fill_gap(self, gap: Gap) -> Generator[Frame | None, None, StopReason]:
        """Searches for answers, and goes on with the likeliest one if it has no end yet; what has a
        draft or a fixed length is decided at once."""
        tree = decoder_tree(self, gap)
        if gap.hole.draft is None and not gap.hole.fixed_length:
            search = yield from self._search(gap, tree, min(gap.cap, SEARCHED))
            best, cut = search.best, search.cut
            if cut is None or (search.found and cut.likelihood <= best.likelihood):
                ended = best in search.found
                yield from self._chosen(gap, search.likeliest if ended else [best])
                return "settled" if ended or search.done else "deadline"
            if gap.cap <= SEARCHED or self.late():
                yield from self._chosen(gap, [cut])
                gap.capped = True
                return "settled"
            begun = cut
        else:
            begun = None
        ids, sure, ended = yield from self._look_ahead(gap, tree, begun)
        gap.settle(ids, sure)
        gap.draft = None
        return "settled" if ended else "deadline"

    def _draws(self, gap: Gap) -> Draws | None:
        """What a rewrite draws by, where another one is asked for: the first is the likeliest."""
        if gap.draft is None or not self.request.seed:
            return None
        return Draws(self.request.seed, self.engine.model.device)

    def _end_cost(self, gap: Gap) -> float:
        return self.engine.profile.end_cost if gap.body else 0.0

    def _look_ahead(
        self, gap: Gap, tree: TokenTree, begun: Written | None
    ) -> Generator[Frame | None, None, tuple[list[int], list[float], bool]]:
        """Decides a hole that may be long, or has a draft, several tokens a pass. Returns the ids,
        how sure each is, and whether the hole has ended by itself."""
        engine = self.engine
        end = None if gap.hole.fixed_length else self.sheet.slack
        allowed = engine.text_only if end is None else engine.writable
        writable = Writable(engine.tokenizer, gap.typed, allowed)
        draft = None if gap.draft is None else self.sheet.text_ids(gap.draft)
        passes = look_ahead(
            tree,
            engine.batch,
            writable,
            end,
            gap.cap,
            draft,
            gap.strength,
            begun=begun,
            end_cost=self._end_cost(gap),
            draws=self._draws(gap),
        )
        began = time.monotonic()
        for look in passes:
            if look is None:
                try:
                    self.look_up()
                    began = time.monotonic()
                    yield None
                except BaseException:
                    passes.close()
                    raise
                continue
            seconds = time.monotonic() - began
            engine.timed(seconds)
            self.timings.denoise += seconds
            self.steps, self.forward_passes = self.steps + 1, self.forward_passes + 1
            guess = [*look.ids, *look.ahead], [*look.certainty, *look.hope]
            if gap.draft is not None:
                gap.draft = [*guess[0], *look.draft]
            yield self.frame(self.steps, gap.cap, {id(gap): guess}, 0.0)
            if look.settled or self.late():
                gap.capped = look.settled == "full" and end is not None
                # Where the time is up, a draft goes on as it was.
                rest = [] if look.settled else gap.rest(len(guess[0]))
                return [*guess[0], *rest], guess[1], look.settled is not None
        raise AssertionError("looking ahead ends with its last pass")

    def _search(
        self, gap: Gap, tree: TokenTree, most: int
    ) -> Generator[Frame | None, None, Search]:
        """Answers of at most `most` tokens, with both sides in view."""
        end = self.sheet.slack
        assert end is not None
        writable = Writable(self.engine.tokenizer, gap.typed, self.engine.writable)
        before, after = self.cache.ids[: self.length], self.sheet.behind(gap, AFTER)
        ahead = Ahead(writable, before, after, end)
        search = Search(tree, writable, end, most, ahead, end_cost=self._end_cost(gap))
        while not search.done and not self.late():
            self.look_up()
            # The first pass reads the text behind the hole, too.
            phase = "denoise" if self.steps else "judge"
            search.took((yield from self.run_pass(search.spans(), phase)))
            self.steps += 1
            best = search.best
            sure = [exp(best.likelihood / max(1, len(best.ids)))] * len(best.ids)
            yield self.frame(self.steps, most, {id(gap): (list(best.ids), sure)}, 0.0)
        return search

    def _chosen(self, gap: Gap, found: Sequence[Written]) -> Generator[None, None, None]:
        """Settles a hole on the best answer. Of the likeliest ones the encoder says how well the
        text behind the hole goes with them, if there is time to hear it."""
        found = sorted(found, key=lambda one: one.likelihood, reverse=True)[:JUDGED]
        answers = [list(one.ids) for one in found]
        weights = self.engine.profile.weights
        cost = self._end_cost(gap)  # which is for the search, not for how sure it is
        likelihoods = [Likelihood(0.0, 0.0, one.likelihood + cost) for one in found]
        after = self.sheet.behind(gap, AFTER)
        enough = self.deadline is None or self.left() > CHOOSING * self.engine.pass_seconds
        if weights.judged and after and len(answers) > 1 and enough:
            tree = TokenTree(self.cache, self.length)
            judge = Judge(tree, answers, after)
            tree.took((yield from self.run_pass(tree.spans(), "judge")))
            likelihoods = [
                replace(read, written=one.written)
                for read, one in zip(judge.likelihoods(), likelihoods, strict=True)
            ]
        else:
            weights = Weights(written=1.0, before=0.0, after=0.0)
        ranked = rank(answers, likelihoods, weights)
        if len(self.sheet.gaps) == 1:
            self.ranked = ranked
        best = ranked[0]
        gap.done, gap.certainty, gap.ended = [], [], best.confidence
        gap.settle(best.ids, [best.confidence] * len(best.ids))


def decoder_tree(run: Run, gap: Gap) -> TokenTree:
    """A tree for what stands in a gap, behind the run's prefix and with what follows in view."""
    engine = run.engine
    assert engine.mask_id is not None
    slots = next((size for size in SLOTS if size >= gap.cap), gap.cap)
    after = run.sheet.behind(gap, engine.profile.suffix, over=True)
    hole = Hole(slots, after, engine.mask_id, engine.marks)
    return TokenTree(run.cache, run.length, hole=hole)
