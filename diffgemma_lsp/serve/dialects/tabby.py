"""Tabby's `POST /v1/completions`, which has segments where OpenAI's has a prompt."""

from __future__ import annotations

from collections.abc import Iterator

from diffgemma_lsp.serve.ask import Ask, Reply
from diffgemma_lsp.serve.dialects import Dialect, Json
from diffgemma_lsp.serve.dialects import fields as read_field
from diffgemma_lsp.syntax.languages import language_id_of
from engine.errors import BadRequest

_OTHERS = (
    "declarations",
    "relevant_snippets_from_changed_files",
    "relevant_snippets_from_recently_opened_files",
)


def read(body: Json) -> Ask:
    """What the body asks for. Raises BadRequest."""
    segments = read_field.within(body, "segments")
    if read_field.text(body, "mode", "standard") != "standard":
        raise BadRequest("mode must be standard: next edits are not offered here")
    path = read_field.text(segments, "filepath")
    context = [
        snippet
        for name in _OTHERS
        for snippet in read_field.snippets(segments, name, "filepath", "body")
    ]
    return Ask(
        read_field.text(segments, "prefix", None),
        read_field.text(segments, "suffix"),
        read_field.text(body, "language") or language_id_of(path),
        tuple(context),
        seed=read_field.seed(body, "seed"),
    )


def write(ask: Ask, reply: Reply) -> Json:
    """The whole reply."""
    choices = [{"index": at, "text": text} for at, text in enumerate(reply.texts)]
    return {"id": reply.id, "choices": choices, "mode": "standard"}


def chunks(ask: Ask, reply: Reply) -> Iterator[Json]:
    """Nobody streams it."""
    yield write(ask, reply)


TABBY = Dialect("tabby", read, write, chunks, speaks=lambda body: "segments" in body)
