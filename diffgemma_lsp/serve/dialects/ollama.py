"""Ollama's `POST /api/generate`, and what its clients ask about models first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from diffgemma_lsp.serve.ask import Ask, Reply, tokens
from diffgemma_lsp.serve.dialects import LINES, Dialect, Json
from diffgemma_lsp.serve.dialects import fields as read_field
from diffgemma_lsp.serve.dialects.edits import rewriting
from diffgemma_lsp.serve.dialects.templates import Split, language_in, split
from diffgemma_lsp.syntax.languages import language_id_of

VERSION = "0.12.0"
"""Of the API that is spoken here; clients look whether it is new enough."""


def read(body: Json) -> Ask:
    """What the body asks for. Raises BadRequest. A request without a prompt loads the model."""
    prompt, suffix = read_field.text(body, "prompt"), read_field.text(body, "suffix")
    options = read_field.within(body, "options")
    parts = Split(prompt, suffix) if suffix else rewriting(prompt) or split(prompt)
    return Ask(
        parts.prefix,
        parts.suffix,
        language_id_of(parts.path) or language_in(parts.prefix),
        parts.context,
        read_field.most_tokens(options, "num_predict"),
        stop=read_field.texts(options, "stop"),
        seed=read_field.seed(options, "seed"),
        stream=read_field.flag(body, "stream", True),
        warm=not prompt and not suffix,
        rewrite=parts.rewrite,
    )


def write(ask: Ask, reply: Reply) -> Json:
    """The whole reply."""
    return {**_head(reply), "response": reply.texts[0], **_end(ask, reply)}


def chunks(ask: Ask, reply: Reply) -> Iterator[Json]:
    """The answer, and the object that ends it."""
    if reply.texts[0]:
        yield {**_head(reply), "response": reply.texts[0], "done": False}
    yield {**_head(reply), "response": "", **_end(ask, reply)}


def show(model: str, context_tokens: int) -> Json:
    """What `/api/show` says: its template has a suffix, so clients send one."""
    return {
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}{{ .Suffix }}",
        "details": _details(),
        "model_info": {
            "general.architecture": "diffgemma",
            "diffgemma.context_length": context_tokens,
        },
        "capabilities": ["completion", "insert"],
    }


def tags(model: str) -> Json:
    """What `/api/tags` says."""
    entry = {"name": model, "model": model, "modified_at": _time(0), "size": 0, "digest": ""}
    return {"models": [{**entry, "details": _details()}]}


def _details() -> Json:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": "diffgemma",
        "families": ["diffgemma"],
        "parameter_size": "",
        "quantization_level": "",
    }


def _head(reply: Reply) -> Json:
    return {"model": reply.model, "created_at": _time(reply.created)}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _end(ask: Ask, reply: Reply) -> Json:
    total, read_ms = reply.ms.get("total", 0.0), reply.ms.get("prefill", 0.0)
    return {
        "done": True,
        "done_reason": "load" if ask.warm else reply.ended,
        "total_duration": int(total * 1e6),
        "prompt_eval_count": tokens(ask.prefix + ask.suffix),
        "prompt_eval_duration": int(read_ms * 1e6),
        "eval_count": tokens(reply.texts[0]),
        "eval_duration": int(max(0.0, total - read_ms) * 1e6),
    }


OLLAMA = Dialect("ollama", read, write, chunks, media=LINES)
