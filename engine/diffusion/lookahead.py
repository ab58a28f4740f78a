"""Denoising from the left, for a model whose decided tokens are read causally and whose masks see
everything.

The slots of a hole begin as masks. In one pass the token behind what is decided comes from a row
that knows all in front of it and behind the hole; the masks guess at the ones further on. What was
guessed surely enough is written at once, and the next pass, which reads it, says whether it stands:
where it would have written something else, that is written, and the guesses behind it are noise
again. So the text is the one that a token a pass would give, in fewer passes ("draft and verify",
arXiv 2211.17192; masks beside next tokens as in set block decoding, arXiv 2509.04185).

A draft takes the place of guesses: its tokens, and its end, stay where the model does not find them
much less likely than its own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Literal

import torch
from torch import Tensor

from engine.attention.batch import Batch
from engine.attention.token_tree import ROOT, TokenTree, Written
from engine.diffusion.rng import Draws
from engine.text.typed import Writable

MASKS = 6
"""Masks that a pass looks ahead with."""

SURE = 0.5
"""A guess of at least this probability is written."""

AHEAD = 24
"""Tokens of a draft that are read in one pass."""

DRAWN = 16
"""The likeliest tokens that one is drawn from."""

LEAST = 0.1
"""A token is drawn only from this share of the likeliest one's probability on."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one pass gave. ids, certainty: what is decided. ahead, hope: guesses behind it, and
    their probabilities. settled: whether the hole has ended ("settled") or is full ("full").
    draft: what of a draft stands behind those and was not read yet."""

    step: int
    ids: list[int]
    certainty: list[float]
    ahead: list[int]
    hope: list[float]
    settled: Literal["settled", "full"] | None
    draft: list[int] = field(default_factory=list[int])


def look_ahead(
    tree: TokenTree,
    batch: Batch,
    writable: Writable,
    end: int | None,
    slots: int,
    draft: list[int] | None = None,
    strength: float = 1.0,
    masks: int = MASKS,
    sure: float = SURE,
    begun: Written | None = None,
    end_cost: float = 0.0,
    draws: Draws | None = None,
) -> Generator[Look | None]:
    """Fills a hole of at most `slots` tokens in a decoder's tree; `end` is the token that ends it
    before (None: nothing does). Yields None when a pass has been asked for, and a `Look` after it.

    begun: an answer's beginning, in the tree, to go on with. draft, strength: what to begin with
    instead, and how readily it is given up, from 0 (never) to 1 (as soon as something else is
    likelier). end_cost: nats by which the end is less likely than the model says. draws: what is
        written is drawn by these from the likeliest tokens; without, the likeliest is written.
    """
    ids = list(begun.ids) if begun else []
    mean = exp(begun.likelihood / len(ids)) if begun and ids else 0.0
    certainty = [mean] * len(ids)
    place, step = begun.place if begun else ROOT, 0
    stays = strength**4  # a draft's token stays with this share of the likeliest one's probability
    # That a draft ends is a part of it.
    rest = [*draft, end] if draft and end is not None else list(draft or [])
    rest = rest[:slots]
    ahead, rest = rest[:AHEAD], rest[AHEAD:]
    drafted = len(ahead)
    hope: list[float] = []
    frontier: list[int] = []
    while True:
        path = tree.path([*frontier, *ahead], place)
        count = max(0, min(masks, slots - len(ids) - len(ahead) - 1)) if not rest else 0
        ticket = batch.post(tree.spans(path[-1] if path else place, count))
        try:
            yield None
            tree.took(ticket())
        finally:
            ticket.withdraw()
        step += 1
        place = path[len(frontier) - 1] if frontier else place
        places = [place, *path[len(frontier) :]]
        logits = tree.model.logits(torch.cat((tree.rows(places), tree.masked)))
        if end is not None and end_cost:
            logits[:, end] -= end_cost
        probs = logits[: len(places)]
        stood, token, sureness = _verify(
            probs, writable, ids, ahead, stays if drafted else 1.0, drafted, end, draws
        )
        ids += ahead[:stood]
        certainty += sureness[:stood]
        place = places[stood]
        all_stood = stood == len(ahead)
        goes_on = all_stood and bool(rest)  # the next pass says whether the draft does
        frontier = [] if goes_on else [token]
        if not goes_on:
            if token == end or len(ids) >= slots:
                yield Look(step, ids, certainty, [], [], "settled" if token == end else "full")
                return
            ids.append(token)
            certainty.append(sureness[-1])
        if drafted:
            rest = (([] if all_stood else _behind(ahead[stood:], token)) + rest)[: slots - len(ids)]
            ahead, rest = rest[:AHEAD], rest[AHEAD:]
            drafted = len(ahead)
            if ahead:
                shown = [one for one in ahead if one != end]
                hope = [0.0] * len(shown)
                behind = [one for one in rest if one != end]
                yield Look(step, list(ids), list(certainty), shown, hope, None, behind)
                continue
        ahead, hope = [], []
        if all_stood and count:
            ahead, hope = _guesses(logits[len(places) :], writable, ids, end, sure)
        yield Look(step, list(ids), list(certainty), list(ahead), list(hope), None)


def _verify(
    logits: Tensor,
    writable: Writable,
    ids: list[int],
    ahead: list[int],
    stays: float,
    drafted: int,
    end: int | None,
    draws: Draws | None,
) -> tuple[int, int, list[float]]:
    """How many of `ahead` stand, the token behind them, and the probability of each of those. An
    end that stands is the token behind.

    logits [n + 1, V]: behind what is decided, and behind each token ahead.
    """
    may_come = torch.stack(
        [writable.next([*ids, *ahead[:count]]) for count in range(len(ahead) + 1)]
    )
    probs = logits.masked_fill(~may_come, float("-inf")).softmax(-1)
    top, best = (each.tolist() for each in probs.max(-1))
    if draws is not None:
        best = _drawn(probs, range(len(ids), len(ids) + len(probs)), draws)
    own = [float(probs[row, token]) for row, token in enumerate(ahead)]
    sureness: list[float] = []
    for row, token in enumerate(ahead):
        keeps = own[row] > 0 and (
            token == best[row] or (row < drafted and own[row] >= stays * top[row] and stays < 1)
        )
        if not keeps:
            return row, best[row], [*sureness, top[row]]
        if token == end:
            return row, token, [*sureness, own[row]]
        sureness.append(own[row])
    return len(ahead), best[-1], [*sureness, top[-1]]


def _drawn(probs: Tensor, slots: Sequence[int], draws: Draws) -> list[int]:
    """One of the likeliest tokens for each of the slots, by their probabilities [n, V]: a slot has
    its own draw, in whatever pass it is decided."""
    top, tokens = probs.topk(min(DRAWN, probs.shape[-1]), dim=-1)
    reach = top.masked_fill(top < LEAST * top[:, :1], 0.0).cumsum(-1)
    at = draws.uniform(0, slots, Draws.TOKEN).to(reach).unsqueeze(1) * reach[:, -1:]
    chosen = torch.searchsorted(reach, at, right=True).clamp_(max=tokens.shape[1] - 1)
    return tokens.gather(1, chosen).flatten().tolist()


def _guesses(
    logits: Tensor, writable: Writable, ids: list[int], end: int | None, sure: float
) -> tuple[list[int], list[float]]:
    """What the masks [m, V] say of the slots behind `ids`, up to the first doubt or the end."""
    probs = logits.softmax(-1)
    top, best = (each.tolist() for each in probs.max(-1))
    ahead: list[int] = []
    for certainty, token in zip(top, best, strict=True):
        possible = bool(writable.next([*ids, *ahead])[token])
        if certainty < sure or token == end or not possible:
            break
        ahead.append(token)
    return ahead, top[: len(ahead)]


def _behind(draft: list[int], token: int) -> list[int]:
    """Where a draft goes on once `token` stands in place of its first one: behind that token if it
    comes soon, so that something was left out, else behind the first."""
    near = draft[:4]
    return draft[near.index(token) + 1 :] if token in near else draft[1:]
