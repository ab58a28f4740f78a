"""From a template to canvases, and from canvases to text.

A template becomes token work: fixed ids and gaps, in reading order. What fits is laid out on one
canvas: gaps as free slots, the text between them clamped, and behind the last gap a clamped head of
what follows. When a canvas is done, what is settled moves to the prefix and the rest goes on: holes
that lie far apart take consecutive canvases, and a gap that filled up without slack commits its
first half and slides on.

Fixed text never comes back through the tokenizer: what is returned is built from the hole's own
tokens and the template's own strings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch
from torch import Tensor

from engine.profile import Profile
from engine.text.body import in_an_empty_body
from engine.text.canvas import Canvas
from engine.text.gap import Gap
from engine.text.tokenizer import TextTokenizer
from engine.types import Fixed, Hole, Piece, Segment, Template

SLIDE_STRENGTH = 0.5
"""How much of a canvas' second half may change when it becomes the next canvas' draft."""

_LEAST_SLOTS = 8
"""A further gap joins a canvas only if there is room for so many of its slots."""

_SUFFIX_CHARS = 16
"""Characters of the suffix that are encoded for each slot of a canvas: more than enough."""


Work = list[list[int] | Gap]


@dataclass(frozen=True, slots=True)
class Layout:
    """One canvas and what it holds. spans: gaps and their slots. items: how many entries of the
    work lie on the canvas up to its last gap; what follows on the canvas is a clamped head."""

    canvas: Canvas
    spans: list[tuple[Gap, slice]]
    items: int

    def guess(
        self, best: list[int], certainty: list[float]
    ) -> dict[int, tuple[list[int], list[float]]]:
        """What was guessed at each free slot, parted by gap (by its identity)."""
        parts: dict[int, tuple[list[int], list[float]]] = {}
        offset = 0
        for gap, span in self.spans:
            end = offset + span.stop - span.start
            parts[id(gap)] = (best[offset:end], certainty[offset:end])
            offset = end
        return parts


class Sheet:
    """A template as token work for one model. prefix_text: what stands in front of it all."""

    def __init__(self, template: Template, tokenizer: TextTokenizer, profile: Profile) -> None:
        self.tokenizer, self.profile = tokenizer, profile
        self.template = _tidy(template)
        self.slack = _id_of(tokenizer, profile.slack)
        self.newline = _newline(self.template)
        self.gaps: list[Gap] = []
        self.work: Work = []
        *inner, last = self.template
        before = tail = ""
        closed = False
        for segment, following in zip(inner, self.template[1:], strict=True):
            if isinstance(segment, Hole):
                hole, tail = self._bare(segment)
                after = following.text if isinstance(following, Fixed) else ""
                body = hole.draft is None and in_an_empty_body(before, _unix(after))
                before, typed = self._heal(before, hole)
                self._add_fixed(before)
                before = ""
                self.gaps.append(self._gap(hole, typed))
                self.gaps[-1].tail, self.gaps[-1].body = tail, body
                closed = self.gaps[-1].closes = self._closes(hole, _unix(after))
                self.work.append(self.gaps[-1])
            else:
                before = _unix(tail + segment.text)[closed:]
                tail, closed = "", False
        behind = tail + (last.text if isinstance(last, Fixed) else "")
        self._add_suffix(behind[behind.index("\n") + 1 :] if closed else behind)
        # A draft of strength 0 is fixed text.
        self.work = [self._draft_if_kept(item) for item in self.work]

    def leading(self) -> list[int]:
        """Takes the fixed ids off the front of the work: they belong to the prefix now."""
        ids: list[int] = []
        while self.work and not isinstance(self.work[0], Gap):
            ids += self.work[0]
            del self.work[0]
        return ids

    @property
    def pending(self) -> bool:
        """Whether a gap is still to be filled."""
        return any(isinstance(item, Gap) for item in self.work)

    def lay_out(self, most: int, banned: Tensor) -> Layout:
        """The next canvas, of at most `most` slots; the work has to begin with a gap.

        banned [V] is what is added to all logits.
        """
        suffix = min(self.profile.suffix, most // 2)
        room = most - suffix
        rows: list[int] = []
        spans: list[tuple[Gap, slice]] = []
        items = 0
        for index, item in enumerate(self.work):
            left = room - len(rows)
            if not isinstance(item, Gap):
                rows += item
                continue
            if spans and left < min(item.slots, _LEAST_SLOTS):
                break
            width = max(1, min(item.slots, item.cap - len(item.done), left))
            spans.append((item, slice(len(rows), len(rows) + width)))
            rows += self._start(item, width)
            items = index + 1
        del rows[spans[-1][1].stop :]
        rows += self._head(items, max(self.profile.canvas - len(rows), suffix))
        return Layout(self._canvas(rows[:most], spans, banned), spans, items)

    def commit(
        self, layout: Layout, best: list[int], certainty: list[float], last: bool = False
    ) -> list[int]:
        """Takes over a finished canvas; returns the ids that join the prefix.

        best, certainty: the guess at each free slot. Stops behind the first half of a gap that
        filled up and has tokens left: what comes after it is laid out anew. last: nothing will
        be laid out any more, so that a gap takes over what it has.
        """
        joined: list[int] = []
        guess = layout.guess(best, certainty)
        for index, item in enumerate(self.work[: layout.items]):
            if not isinstance(item, Gap):
                joined += item
                continue
            slots, sure = guess[id(item)]
            width = len(slots)
            ids = self.text_ids(slots)
            full = len(ids) == width
            rest = item.rest(width) if full else []
            open_ended = self.slack is not None or item.hole.fixed_length
            if last:
                ids = self.text_ids(ids + rest)
            elif full and len(item.done) + width < item.cap and (rest or open_ended):
                half = max(1, width // 2)
                item.settle(ids[:half], sure)
                item.draft = ids[half:] + rest
                item.slots = max(width if open_ended else 0, len(item.draft))
                item.strength = min(item.strength, SLIDE_STRENGTH)
                self.work = self.work[index:]
                return joined + ids[:half]
            item.settle(ids, sure)
            item.ended = None if full else sure[len(ids)]
            item.draft = None
            item.capped = full and self.slack is not None and not item.hole.fixed_length
            joined += ids
        self.work = self.work[layout.items :]
        return joined

    @property
    def next_gap(self) -> Gap:
        """The first one that is still to be filled; the work has to begin with it."""
        gap = self.work[0]
        assert isinstance(gap, Gap)
        return gap

    def finish(self, gap: Gap) -> list[int]:
        """The first gap is done; returns the ids that join the prefix."""
        assert self.work[0] is gap
        del self.work[0]
        return gap.done

    def behind(self, gap: Gap, most: int, over: bool = False) -> list[int]:
        """The first ids behind a gap, up to the next one; none behind the text's end. over: on
        behind the next ones, too, as if there were none."""
        at = next(i for i, item in enumerate(self.work) if item is gap)
        ids: list[int] = []
        for item in self.work[at + 1 :]:
            if len(ids) >= most:
                break
            if not isinstance(item, Gap):
                ids += item
            elif not over:
                break
        end = _id_of(self.tokenizer, self.profile.end)
        return (ids[: ids.index(end)] if end in ids else ids)[:most]

    def text_ids(self, ids: list[int]) -> list[int]:
        """The ids in front of the first slack."""
        return ids[: ids.index(self.slack)] if self.slack in ids else ids

    def after(self, most: int) -> list[int]:
        """The first ids behind the last gap; none behind the text's end."""
        ids = list(chain.from_iterable(item for item in self.work if not isinstance(item, Gap)))
        end = _id_of(self.tokenizer, self.profile.end)
        return (ids[: ids.index(end)] if end in ids else ids)[:most]

    def give_up(self) -> None:
        """Ends the gaps that no canvas reached: they keep the draft that they have."""
        for item in self.work:
            if isinstance(item, Gap):
                item.settle(self.text_ids(item.draft or []), [])
        self.work = []

    def pieces(self, gap: Gap, ids: list[int], certainty: list[float]) -> tuple[Piece, ...]:
        """A gap's settled tokens and the current guess `ids` behind them, as text.

        Tokens that no pass gave a certainty, those of a draft, have none.
        """
        everything = gap.done + self.text_ids(ids)
        texts = self.tokenizer.pieces_of(everything, len(gap.typed))
        if gap.closes and texts:
            texts[-1] = texts[-1].removesuffix("\n")
        sure = chain(gap.certainty, certainty, repeat(0.0))
        shown = tuple(
            Piece(self._newlines(text), min(1.0, one))
            for text, one in zip(texts, sure, strict=False)
            if text
        )
        return (*shown, Piece(gap.tail, 1.0)) if gap.tail else shown

    def texts(self) -> tuple[str, ...]:
        """What each hole of the template holds."""
        return tuple(self._text(gap) for gap in self.gaps)

    def text_of(self, gap: Gap, ids: list[int]) -> str:
        """What a gap would hold with these ids."""
        text = self.tokenizer.text_of(ids, len(gap.typed))
        return self._newlines(text.removesuffix("\n") if gap.closes else text) + gap.tail

    def ids_of(self, gap: Gap, text: str) -> list[int]:
        """The ids with which a gap holds `text`; the inverse of `text_of`."""
        return self._encode_draft(text + "\n" * gap.closes, gap.typed)

    def assembled(self) -> str:
        """All that stands from the first hole's start to the last hole's end."""
        texts = iter(self.texts())
        return "".join(
            segment.text if isinstance(segment, Fixed) else next(texts)
            for segment in self.template[1:-1]
        )

    def _heal(self, before: str, hole: Hole) -> tuple[str, bytes]:
        """What stays in front of a hole, and the typed bytes that its first token extends."""
        if hole.strength == 0:
            return before, b""
        heal = self.tokenizer.heal_blank if self.profile.blanks else self.tokenizer.heal
        stays, typed = heal(before)
        if hole.draft is not None and not self.profile.blanks:
            first = self._encode_draft(hole.draft, typed)[:1]
            if not self.tokenizer.bytes_of(first).startswith(typed):
                return before, b""
        return stays, typed

    def _draft_if_kept(self, item: list[int] | Gap) -> list[int] | Gap:
        if isinstance(item, Gap) and item.strength == 0:
            return self._encode_draft(item.hole.draft or "", b"")
        return item

    def _add_fixed(self, text: str) -> None:
        if not self.work:
            self.prefix_text = text
        else:
            self.work.append(self.tokenizer.encode(text))

    def _bare(self, hole: Hole) -> tuple[Hole, str]:
        """A hole without the line ends that its draft ends in, and those, for vocabularies that
        join line ends with what follows them."""
        if hole.draft is None or not self.profile.blanks:
            return hole, ""
        bare = hole.draft.rstrip()
        tail = hole.draft[len(bare) :]
        return (replace(hole, draft=bare), tail) if bare and "\n" in tail else (hole, "")

    def _closes(self, hole: Hole, after: str) -> bool:
        """Whether a hole is filled with the line end that begins the text `after` it."""
        told = hole.draft is not None or hole.fixed_length
        return self.profile.lines and not told and after.startswith("\n")

    def _add_suffix(self, text: str) -> None:
        if not text and self.profile.end is not None:
            # To the model a last line has an end, too: where nothing at all stands behind a hole,
            # there is little that an answer could be likely before.
            text = "\n"
        head = text[: self.profile.canvas * _SUFFIX_CHARS]
        ids = self.tokenizer.encode(_unix(head))
        end = _id_of(self.tokenizer, self.profile.end)
        close = _id_of(self.tokenizer, self.profile.close)
        if len(head) < len(text):
            del ids[-1:]  # the cut may have gone through a word
        elif end is not None:
            ids += [end] * self.profile.canvas
        elif close is not None:
            ids.append(close)
        self.work.append(ids)

    def _gap(self, hole: Hole, typed: bytes) -> Gap:
        if hole.draft is None:
            cap = hole.max_tokens or self.profile.longest
            slots = cap if hole.fixed_length else min(cap, self.profile.hole)
            return Gap(hole, typed, cap, None, 1.0, slots)
        draft = self._encode_draft(hole.draft, typed)
        cap = hole.max_tokens or max(self.profile.longest, 2 * len(draft))
        if self.slack is not None:
            draft += [self.slack] * max(8, len(draft) // 4)
        draft = draft[:cap]
        return Gap(hole, typed, cap, draft, hole.strength, max(1, len(draft)))

    def _encode_draft(self, draft: str, typed: bytes) -> list[int]:
        return self.tokenizer.encode(typed.decode() + _unix(draft))

    def _start(self, gap: Gap, width: int) -> list[int]:
        """What a gap's slots hold before they are noised: its draft, and anything behind it."""
        draft = (gap.draft or [])[:width]
        return draft + [0] * (width - len(draft))

    def _head(self, items: int, count: int) -> list[int]:
        """About `count` clamped ids of what follows, up to the next gap."""
        head: list[int] = []
        for item in self.work[items:]:
            if isinstance(item, Gap) or len(head) >= count:
                break
            head += item
        return head[:count]

    def _canvas(self, rows: list[int], spans: list[tuple[Gap, slice]], banned: Tensor) -> Canvas:
        device = banned.device
        free = torch.zeros(len(rows), dtype=torch.bool, device=device)
        held, strength = free.clone(), torch.ones(len(rows), device=device)
        first: dict[int, Tensor] = {}
        for gap, span in spans:
            free[span] = True
            held[span.start : min(span.stop, span.start + len(gap.draft or []))] = True
            strength[span] = gap.strength
            if gap.typed and not gap.done:
                allowed = self.tokenizer.starting_with(gap.typed)
                first[span.start] = torch.tensor(allowed, device=device)
        ids = torch.tensor(rows, device=device)
        holes = [span for _, span in spans]
        fixed = [span for gap, span in spans if gap.hole.fixed_length]
        return Canvas(ids, free, holes, held, strength, banned, self.slack, first, fixed)

    def _text(self, gap: Gap) -> str:
        draft = gap.hole.draft
        if draft is not None and (
            gap.hole.strength == 0 or gap.done == self._encode_draft(draft, gap.typed)
        ):
            return draft + gap.tail
        return self.text_of(gap, gap.done)

    def _newlines(self, text: str) -> str:
        return text if self.newline == "\n" else text.replace("\n", self.newline)


def _tidy(template: Template) -> Template:
    """The template with a Fixed, perhaps an empty one, at either end, and never two in a row."""
    tidy: list[Segment] = [Fixed("")]
    for segment in (*template, Fixed("")):
        last = tidy[-1]
        if isinstance(segment, Fixed) and isinstance(last, Fixed):
            tidy[-1] = Fixed(last.text + segment.text)
        else:
            tidy.append(segment)
    return tuple(tidy)


def _newline(template: Template) -> str:
    """The line end that most lines of the fixed text have; models are trained on \\n alone."""
    texts = [segment.text for segment in template if isinstance(segment, Fixed)]
    windows = sum(text.count("\r\n") for text in texts)
    return "\r\n" if windows * 2 > sum(text.count("\n") for text in texts) else "\n"


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _id_of(tokenizer: TextTokenizer, name: str | None) -> int | None:
    return None if name is None else tokenizer.id_of(name)
