"""A request that writes nothing: how likely is each of a few texts in the hole.

A decoder that sees both sides says it of a text and its end; of a model without one, and where the
profile gives it a say, the encoder says how well a text goes on from what stands before the hole,
and what stands behind the hole from the text (engine.choice.rank). All texts are read in one pass,
what they begin with once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from engine.attention.token_tree import TokenTree
from engine.choice.rank import AFTER, Judge, Likelihood
from engine.errors import BadRequest
from engine.left_run import decoder_tree
from engine.run import Run
from engine.text.gap import Gap
from engine.types import Frame, StopReason

Ids = Sequence[list[int]]


class ChoiceRun(Run):
    """A `Run` that weighs the request's choices."""

    def fill(self) -> Generator[Frame | None, None, StopReason]:
        """Puts the likeliest choice into the hole. Raises BadRequest for a model that reads nothing
        causally."""
        if self.engine.profile.window:
            raise BadRequest(f"{self.engine.profile.name} can't weigh texts: it only fills")
        yield from self.prefill(self.fitted([*self.prefix, *self.sheet.leading()]))
        gap = self.sheet.next_gap
        texts = [self.sheet.ids_of(gap, text) for text in self.request.choices]
        self.scores = yield from self._scores(gap, texts)
        gap.settle(texts[self.scores.index(max(self.scores))], [])
        self.sheet.finish(gap)
        return "settled"

    def _scores(self, gap: Gap, texts: Ids) -> Generator[None, None, tuple[float, ...]]:
        engine = self.engine
        written, weights = [0.0] * len(texts), engine.profile.weights
        if engine.mask_id is not None:
            gap.cap = max(map(len, texts)) + 1
            end = self.sheet.slack
            assert end is not None, "a model that decides from the left has a token that ends"
            heard = yield from self._heard(decoder_tree(self, gap), texts, [end])
            written = [one.ended for one in heard]
            if not weights.judged:
                return tuple(written)
        # To a model a last line has an end, too.
        after = self.sheet.behind(gap, AFTER) or engine.tokenizer.encode("\n")
        heard = yield from self._heard(TokenTree(self.cache, self.length), texts, after)
        pairs = zip(heard, written, strict=True)
        return tuple(replace(one, written=own).total(weights) for one, own in pairs)

    def _heard(
        self, tree: TokenTree, texts: Ids, after: list[int]
    ) -> Generator[None, None, list[Likelihood]]:
        """What a tree says of the texts, each with `after` behind it."""
        judge = Judge(tree, texts, after)
        self.look_up()
        if spans := tree.spans():  # an empty text may have nothing to read
            tree.took((yield from self.run_pass(spans, "judge")))
            self.steps += 1
        return judge.likelihoods()
