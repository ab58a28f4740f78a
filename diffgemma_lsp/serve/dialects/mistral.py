"""`POST /v1/fim/completions`, which is two things: Mistral's reply is a chat completion,
Inception's a text completion. Ours has the fields of both, and each client reads its own."""

from __future__ import annotations

from collections.abc import Iterator

from diffgemma_lsp.serve.ask import Ask, Reply
from diffgemma_lsp.serve.dialects import Dialect, Json
from diffgemma_lsp.serve.dialects.openai import head, read, usage


def write(ask: Ask, reply: Reply) -> Json:
    """The whole reply."""
    choices = [
        {
            "index": at,
            "message": {"role": "assistant", "content": text},
            "text": text,
            "finish_reason": reply.ended,
        }
        for at, text in enumerate(reply.texts)
    ]
    kind = "chat.completion"
    return {**head(reply, kind), "choices": choices, "usage": usage(ask, reply)}


def chunks(ask: Ask, reply: Reply) -> Iterator[Json]:
    """A chunk for each answer, and one that ends it."""
    kind = "chat.completion.chunk"
    for at, text in enumerate(reply.texts):
        yield {**head(reply, kind), "choices": [_choice(at, text, None)]}
    ends = [_choice(at, "", reply.ended) for at in range(len(reply.texts))]
    yield {**head(reply, kind), "choices": ends, "usage": usage(ask, reply)}


def _choice(at: int, text: str, ended: str | None) -> Json:
    delta = {"role": "assistant", "content": text}
    return {"index": at, "delta": delta, "text": text, "finish_reason": ended}


MISTRAL = Dialect("mistral", read, write, chunks)
