"""Continuations of a prefix that share their beginnings.

Every token is read once, and sees the prefix and the tokens above it (tree attention: Miao et al.,
arXiv 2305.09781). So many continuations are gone on with in one pass, alone or beside a canvas,
what was read for one is there for all, and no keys and values are ever moved.

An encoder's tree knows the prefix alone. A decoder's tree also sees what stands behind the hole,
and may end in masks, which see all above them and each other: what they say is a guess at the
tokens behind the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.lead import Lead, Marks, lead
from engine.attention.prefix_cache import PrefixCache
from engine.attention.span import Span, forward

ROOT = -1
"""The place of the prefix' last token, below which the first tokens stand."""


@dataclass(frozen=True, slots=True)
class Hole:
    """What a decoder's tree grows in: so many slots, and the ids behind them. mask: its token.
    marks: see engine.attention.lead."""

    slots: int
    after: Sequence[int]
    mask: int
    marks: Marks | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A continuation of the prefix. likelihood: log p in nats of the tokens, and of the end once it
    has ended. place: of its last token in the tree."""

    ids: tuple[int, ...] = ()
    likelihood: float = 0.0
    place: int = ROOT


class TokenTree:
    """A tree behind the first `length` tokens of a prefix (None: all), which stays as it is.

    Places count from 0 in the order in which tokens are added. What is added is read by the pass
    that runs `spans`, whose rows go to `took`; only then its row is known.
    hole: for a decoder's tree. Without, it is the encoder's; the prefix' last row must be known.
    """

    def __init__(
        self,
        prefix: PrefixCache,
        length: int | None = None,
        room: int = 256,
        hole: Hole | None = None,
    ) -> None:
        self.model, self._prefix, self._hole = prefix.model, prefix, hole
        self._start = len(prefix.ids) if length is None else length
        self._lead: Lead | None = None
        if hole is not None:
            last = prefix.ids[self._start - 1]
            self._lead = lead(hole.after, hole.slots, last, hole.marks)
        self._buffer = KVBuffer(self.model.kv, self.model.dtype, self.model.device, room)
        self._places: dict[tuple[int, int], int] = {}
        self._ids: list[int] = []
        self._parents: list[int] = []
        self._rows: list[Tensor] = []  # of the root and all places that were read
        self._masked: Tensor | None = None
        self._above = torch.zeros(0, 0, dtype=torch.bool, device=self.model.device)
        self._asked: tuple[int, int] = (0, 0)
        if hole is None:
            root = prefix.row(self._start)
            assert root is not None
            self._rows.append(root[0])

    @property
    def pending(self) -> bool:
        """Whether there is something to read."""
        return len(self._ids) + 1 > len(self._rows)

    @property
    def masked(self) -> Tensor:
        """Hidden rows [m, d] of the masks that the last pass ended in."""
        assert self._masked is not None
        return self._masked

    def keep_prefix(self) -> None:
        """The prefix' cache will go on otherwise: from now on the tree reads a copy."""
        self._prefix = self._prefix.fork(self._start)
        self._rows = [row.clone() for row in self._rows]

    def add(self, token: int, parent: int = ROOT) -> int:
        """The place of `token` below the one at `parent`; a new one if it is not there yet."""
        place = self._places.setdefault((parent, token), len(self._ids))
        if place == len(self._ids):
            self._ids.append(token)
            self._parents.append(parent)
        return place

    def place(self, token: int, parent: int = ROOT) -> int | None:
        """The place of `token` below the one at `parent`; None if it was not added."""
        return self._places.get((parent, token))

    def path(self, ids: Iterable[int], parent: int = ROOT) -> list[int]:
        """The places of tokens that stand one below the other."""
        places: list[int] = []
        for token in ids:
            parent = self.add(token, parent)
            places.append(parent)
        return places

    def rows(self, places: Sequence[int]) -> Tensor:
        """Hidden rows [n, d] of what was read."""
        return torch.stack([self._rows[place + 1] for place in places])

    def log_probs(self, places: Sequence[int]) -> Tensor:
        """What may come below each of them: log-probabilities [n, V] in nats."""
        return self.model.logits(self.rows(places)).log_softmax(-1)

    def spans(self, below: int | None = None, masks: int = 0) -> list[Span]:
        """What reads all that was added; nothing if nothing was. masks: so many masks below the
        place `below` (a decoder's tree), of which `masked` has the rows then."""
        if not self.pending and not masks:
            return []
        known, total = max(0, len(self._rows) - 1), len(self._ids)
        above = self._grown(known, total)
        depths = above.sum(1)
        ids = self._ids[known:]
        if self._hole is None or self._lead is None:
            self._asked = (total - known, 0)
            places = self._start + depths - 1
            return [self._span("encoder", ids, places[known:], known, above[known:], places)]

        front, head = self._lead, len(self._lead)
        start, fresh = self._start + front.first, not self._rows
        places = start + depths - 1
        sees = torch.cat((above.new_ones(total, head), above), dim=1)
        if masks:
            depth = 0 if below in (None, ROOT) else int(depths[below])
            row = above.new_zeros(masks, head + total + masks)
            row[:, :head] = True
            if below is not None and below != ROOT:
                row[:, head : head + total] = above[below]
            row[:, head + total :] = True
            sees = torch.cat((torch.nn.functional.pad(sees, (0, masks)), row))
            ids = [*ids, *[self._hole.mask] * masks]
            behind = torch.arange(masks, device=above.device)
            places = torch.cat((places, start + depth + behind))
        if fresh:
            own = torch.from_numpy(front.sees()).to(above.device)
            own = torch.nn.functional.pad(own, (0, sees.shape[1] - head))
            sees = torch.cat((own, sees))
            ids = [*front.ids, *ids]
        offsets = torch.tensor(front.offsets, device=above.device)
        places = torch.cat((self._start + offsets, places))
        at = 0 if fresh else head + known
        self._asked = (total - known + (1 if fresh else 0), masks)
        return [self._span("decoder", ids, places[at:], at, sees[-len(ids) :], places)]

    def took(self, rows: Sequence[Tensor]) -> None:
        """What the pass gave for `spans`."""
        new, masks = self._asked
        for one in rows:
            end = len(one) - masks
            self._rows += one[end - new : end].unbind()
            self._masked = one[end:]

    def encode(self) -> None:
        """Reads what was added, now."""
        if spans := self.spans():
            self.took(forward(self.model, spans))

    def _grown(self, known: int, total: int) -> Tensor:
        """Bool [total, total]: which places stand above each one, itself included."""
        above = self._above.new_zeros(total, total)
        above[: len(self._above), : len(self._above)] = self._above
        for place in range(len(self._above), total):
            parent = self._parents[place]
            if parent != ROOT:
                above[place] = above[parent]
            above[place, place] = True
        self._above = above
        return above

    def _span(
        self,
        role: str,
        ids: Sequence[int],
        positions: Tensor,
        at: int,
        sees: Tensor,
        places: Tensor,
    ) -> Span:
        return Span(
            "decoder" if role == "decoder" else "encoder",
            torch.tensor(list(ids), device=positions.device),
            positions,
            self._buffer,
            at,
            sees=sees,
            places=places,
            prefix=self._prefix.buffer,
            seen=self._start - (0 if self._lead is None else self._lead.unseen),
        )
