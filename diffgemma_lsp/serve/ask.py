"""What a client asks for and gets, whatever dialect it says that in."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.types import Snippet

LONGEST = 256
"""The most tokens that anybody may ask for."""

MOST_ANSWERS = 10


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A part of the text that the client wants back as it will be after the next edit.

    start, end: of the part, in characters from the beginning of the prefix.
    edits: what was changed last in this file, the newest last: some lines as they were, and the
        same as they are now, without the last line end.
    cursor: whether the client says where that is; if so, between prefix and suffix.
    lead, tail: what stands around the part in an answer.
    unchanged: the answer where nothing is to be changed; None: the part as it stands.
    """

    start: int
    end: int
    edits: tuple[tuple[str, str], ...] = ()
    cursor: bool = True
    lead: str = ""
    tail: str = ""
    unchanged: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What belongs between two texts.

    prefix, suffix: what stands before and behind the hole, with any line ends.
    language_id: as LSP names it; "" if nobody said.
    context: pieces of other files, the most useful first.
    max_tokens: None leaves it to the server. answers: how many different ones are wanted.
    stop: texts at the first of which the answer ends.
    budget_ms: the time that the client gives; None if it does not say.
    stream: whether it wants the answer as a stream.
    warm: it wants no answer: what is here is what it will soon ask about.
    fields: of the full reply, those that it wants; empty means all.
    rewrite: what it wants is this part of the two texts, with an edit in it or a fill.
    """

    prefix: str
    suffix: str = ""
    language_id: str = ""
    context: tuple[Snippet, ...] = ()
    max_tokens: int | None = None
    answers: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0
    budget_ms: int | None = None
    stream: bool = False
    warm: bool = False
    fields: tuple[str, ...] = ()
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it.

    texts: the answers, at least one, which is "" where there is nothing to show.
    reason: why that is so. cut: whether the answer stopped for want of room.
    ms: milliseconds by phase, as the engine says them; passes: how many it took.
    id, created: of the reply; seconds since 1970.
    """

    texts: tuple[str, ...]
    model: str
    reason: str | None = None
    cut: bool = False
    ms: dict[str, float] = field(default_factory=dict[str, float])
    passes: int = 0
    context_tokens: int = 0
    id: str = ""
    created: int = 0

    @property
    def ended(self) -> str:
        """Why it ended, as OpenAI names that."""
        return "length" if self.cut else "stop"


def tokens(text: str) -> int:
    """About how many tokens a text has: this side of the socket has no tokenizer, and clients that
    insist on a number only show it. Four characters to a token, as is usual of code."""
    return -(-len(text) // 4)
