"""A decoder's tree gives each path the rows that a dense mask over all of it gives."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.attention.span import forward
from engine.attention.token_tree import ROOT, Hole, TokenTree
from engine.backbones.dense import Dense
from tests.cases import cases
from tests.engine.tiny import END, MASK, tiny_dense

MODELS = [tiny_dense(seed) for seed in range(3)]

tokens = st.integers(0, END - 1)
texts = st.lists(tokens, max_size=12)
node = st.tuples(st.integers(0, 3), st.integers(0, 99))
"""A token, of few so that some are there already, and which place (or the root) is above it."""


def plainly(q: Tensor, keys: Tensor, values: Tensor, sees: Tensor) -> Tensor:
    """Attention of q [1, T, H, D] over keys and values [1, S, K, D] that `sees` [T, S] shows."""
    groups = q.shape[2] // keys.shape[2]
    keys, values = (t.repeat_interleave(groups, dim=2) for t in (keys, values))
    scores = torch.einsum("bthd,bshd->bhts", q, keys).masked_fill(~sees, -torch.inf)
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), values)


def by_a_dense_mask(
    model: Dense, prefix: list[int], hole: Hole, path: list[int], masks: int
) -> Tensor:
    """Hidden rows [1 + path + masks, d] of what the first slot is read from, a path, and masks.

    What the decoder reads, in this order: what is behind the hole and the prefix' last token (or
    what is behind the hole between its marks), path, masks.
    """
    marked = hole.marks is not None
    n, s, p = len(prefix) - (not marked), len(hole.after) + marked, len(path)
    known: list[tuple[Tensor, Tensor]] = []

    def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        known.append((k, v))
        return plainly(q, k, v, torch.ones(n, n, dtype=torch.bool).tril())

    if n:
        model.encode(torch.tensor([prefix[:n]]), torch.arange(n), causal)
    front = [*hole.after, prefix[-1]]
    if hole.marks is not None:
        front = [hole.marks[0], *hole.after, hole.marks[1]]
    ids = torch.tensor([[*front, *path, *[hole.mask] * masks]])
    total = ids.shape[1]
    sees = torch.zeros(total, n + total, dtype=torch.bool)
    sees[:, :n] = True  # the prefix but for its last token
    sees[:, n:] = torch.ones(total, total, dtype=torch.bool).tril()  # all in front of it
    sees[:, n + s] |= not marked  # the prefix' last token is seen by what is behind the hole, too
    sees[s + 1 + p :, n + s + 1 + p :] = True  # masks see each other
    end = len(prefix)
    behind = range(end + hole.slots, end + hole.slots + s)
    places = [*behind, *range(n, end + p + masks)]
    positions = torch.tensor([*range(end, end + s + 1 + p + masks)] if marked else places)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if n:
            k, v = (torch.cat(pair, dim=1) for pair in zip(known[layer], (k, v), strict=True))
        return plainly(q, k, v, sees)

    return model.decode(ids, positions, attend)[0, s:]


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@cases(150)
@given(
    which=st.integers(0, len(MODELS) - 1),
    prefix=st.lists(tokens, min_size=1, max_size=30),
    more=texts,
    after=texts,
    slots=st.integers(1, 40),
    calls=st.lists(st.tuples(st.lists(node, max_size=5), st.integers(0, 4)), max_size=4),
    room=st.sampled_from([1, 64]),
    marks=st.sampled_from([None, (1, 2)]),
)
def test_every_row_is_that_of_a_dense_mask(
    which: int,
    prefix: list[int],
    more: list[int],
    after: list[int],
    slots: int,
    calls: list[tuple[list[tuple[int, int]], int]],
    room: int,
    marks: tuple[int, int] | None,
) -> None:
    model = MODELS[which]
    cache = PrefixCache(model)
    cache.extend([*prefix, *more])  # the tree grows behind a beginning of it
    hole = Hole(slots, after, MASK, marks)
    tree = TokenTree(cache, len(prefix), room=room, hole=hole)
    paths: dict[int, list[int]] = {ROOT: []}
    for added, masks in calls:
        for token, choice in added:
            parent = list(paths)[choice % len(paths)]
            paths.setdefault(tree.add(token, parent), [*paths[parent], token])
        below = list(paths)[-1]
        spans = tree.spans(below, masks)
        if not spans:
            continue
        tree.took(forward(model, spans))
        assert not tree.pending
        if masks:
            same(tree.masked, by_a_dense_mask(model, prefix, hole, paths[below], masks)[-masks:])
        for place, path in paths.items():
            wanted = by_a_dense_mask(model, prefix, hole, path, 0)
            same(tree.rows([place])[0], wanted[-1])
            same(tree.rows([ROOT])[0], wanted[0])
    assert len({tuple(path) for path in paths.values()}) == len(paths), "each path is there once"
    assert cache.ids == [*prefix, *more]


@torch.inference_mode()
def test_what_stands_behind_the_hole_changes_what_is_written() -> None:
    model = MODELS[0]
    cache = PrefixCache(model)
    cache.extend([2, 50, 60])
    rows: list[Tensor] = []
    for after in ([70, 80], [81, 71], []):
        tree = TokenTree(cache, hole=Hole(16, after, MASK))
        tree.encode()
        rows.append(tree.rows([ROOT]))
    assert float((rows[0] - rows[1]).abs().max()) > 1e-2
    assert float((rows[0] - rows[2]).abs().max()) > 1e-2
