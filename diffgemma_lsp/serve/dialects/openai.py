"""OpenAI's legacy `POST /v1/completions`, with `suffix` or with the marks of some model in the
prompt; also DeepSeek's, at its own paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffgemma_lsp.serve.ask import Ask, Reply, tokens
from diffgemma_lsp.serve.dialects import Dialect, Json
from diffgemma_lsp.serve.dialects import fields as read_field
from diffgemma_lsp.serve.dialects.edits import rewriting
from diffgemma_lsp.serve.dialects.templates import Split, language_in, split
from diffgemma_lsp.syntax.languages import language_id_of
from engine.errors import BadRequest


def read(body: Json) -> Ask:
    """What the body asks for. Raises BadRequest."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:  # pyright: ignore[reportUnknownArgumentType]
        prompt = prompt[0]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be one text")
    suffix = read_field.text(body, "suffix")
    parts = Split(prompt, suffix) if suffix else rewriting(prompt) or split(prompt)
    return Ask(
        parts.prefix,
        # What Continue sends where there is nothing behind the cursor.
        "" if parts.suffix == "<|endoftext|>" else parts.suffix,
        language_id_of(parts.path) or language_in(parts.prefix),
        parts.context,
        read_field.most_tokens(body, "max_tokens"),
        read_field.answers(body, "n"),
        read_field.texts(body, "stop"),
        read_field.seed(body, "seed", "random_seed"),
        stream=read_field.flag(body, "stream"),
        rewrite=parts.rewrite,
    )


def write(ask: Ask, reply: Reply) -> Json:
    """The whole reply."""
    choices = [
        {"index": at, "text": text, "logprobs": None, "finish_reason": reply.ended}
        for at, text in enumerate(reply.texts)
    ]
    return {**head(reply), "choices": choices, "usage": usage(ask, reply)}


def chunks(ask: Ask, reply: Reply) -> Iterator[Json]:
    """A chunk for each answer, and one that ends it."""
    for at, text in enumerate(reply.texts):
        yield {**head(reply), "choices": [_choice(at, text, None)]}
    ends = [_choice(at, "", reply.ended) for at in range(len(reply.texts))]
    yield {**head(reply), "choices": ends, "usage": usage(ask, reply)}


def _choice(at: int, text: str, ended: str | None) -> Json:
    return {"index": at, "text": text, "logprobs": None, "finish_reason": ended}


def head(reply: Reply, kind: str = "text_completion") -> dict[str, Any]:
    """What every object of a reply begins with."""
    return {"id": reply.id, "object": kind, "created": reply.created, "model": reply.model}


def usage(ask: Ask, reply: Reply) -> dict[str, int]:
    """How much was read and written, about."""
    sent, made = tokens(ask.prefix + ask.suffix), sum(map(tokens, reply.texts))
    return {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}


OPENAI = Dialect("openai", read, write, chunks)
