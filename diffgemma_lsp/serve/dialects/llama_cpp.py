"""llama.cpp's `POST /infill` (llama.vim, llama.vscode) and `POST /completion` (twinny)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diffgemma_lsp.serve.ask import Ask, Reply, tokens
from diffgemma_lsp.serve.dialects import Dialect, Json
from diffgemma_lsp.serve.dialects import fields as read_field
from diffgemma_lsp.serve.dialects.openai import read as read_prompt
from diffgemma_lsp.syntax.languages import language_id_of


def read(body: Json) -> Ask:
    """What the body asks for. Raises BadRequest."""
    prefix = read_field.text(body, "input_prefix", None) + read_field.text(body, "prompt")
    others = read_field.snippets(body, "input_extra", "filename", "text")
    # The file's own name is not in it; pieces of files of one language come from its neighbours.
    languages = {language_id_of(other.path) for other in others}
    given = read_field.number(body, "n_predict")
    times = [read_field.number(body, name) for name in ("t_max_prompt_ms", "t_max_predict_ms")]
    return Ask(
        prefix,
        read_field.text(body, "input_suffix", None),
        languages.pop() if len(languages) == 1 else "",
        others[::-1],  # the newest comes last
        read_field.most_tokens(body, "n_predict"),
        read_field.answers(body, "n_cmpl", "n"),
        read_field.texts(body, "stop"),
        read_field.seed(body, "seed"),
        sum(time for time in times if time is not None and time > 0) or None,
        read_field.flag(body, "stream"),
        warm=given == 0,
        fields=read_field.texts(body, "response_fields"),
    )


def read_completion(body: Json) -> Ask:
    """The same of `/completion`, whose prompt has the marks of some model."""
    ask = read_prompt(body)
    return replace(
        ask,
        max_tokens=read_field.most_tokens(body, "n_predict", "max_tokens"),
        warm=read_field.number(body, "n_predict") == 0,
    )


def write(ask: Ask, reply: Reply) -> Any:
    """One object, or one for each answer where several were asked for."""
    found = [_object(ask, reply, text) for text in reply.texts]
    return found if ask.answers > 1 else found[0]


def chunks(ask: Ask, reply: Reply) -> Iterator[Json]:
    """The answer, and the object that ends it."""
    yield {"content": reply.texts[0], "stop": False}
    yield _object(ask, reply, "")


def _object(ask: Ask, reply: Reply, text: str) -> Json:
    sent, made = tokens(ask.prefix + ask.suffix), tokens(text)
    total, read_ms = reply.ms.get("total", 0.0), reply.ms.get("prefill", 0.0)
    write_ms = max(0.0, total - read_ms)
    whole: Json = {
        "content": text,
        "tokens": [],
        "stop": True,
        "stop_type": "limit" if reply.cut else "eos",
        "stopping_word": "",
        "model": reply.model,
        # llama.vscode reads n_ctx of it without looking whether it is there.
        "generation_settings": {"n_ctx": reply.context_tokens},
        "timings": {
            **_timings("prompt", sent, read_ms),
            **_timings("predicted", made, write_ms),
        },
        "tokens_cached": 0,
        "tokens_evaluated": sent,
        "tokens_predicted": made,
        "truncated": False,
    }
    if not ask.fields:
        return whole
    return {name: _at(whole, name) for name in ask.fields if _at(whole, name) is not None}


def _timings(name: str, count: int, ms: float) -> Json:
    return {
        f"{name}_n": count,
        f"{name}_ms": round(ms, 3),
        f"{name}_per_token_ms": round(ms / count, 3) if count else 0.0,
        f"{name}_per_second": round(1000 * count / ms, 3) if ms else 0.0,
    }


def _at(whole: Json, path: str) -> Any:
    """What a/b names; None if there is none."""
    found: Any = whole
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return found  # pyright: ignore[reportUnknownVariableType]


LLAMA_CPP = Dialect("llama.cpp", read, write, chunks, done="")
COMPLETION = Dialect("llama.cpp", read_completion, write, chunks, done="")
