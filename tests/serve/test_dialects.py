"""The dialects as pure functions: bodies as clients send them, replies as they read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bodies import SENT
from hypothesis import given
from hypothesis import strategies as st
from serving import AFTER, BEFORE

from diffgemma_lsp.serve.app import FILLS
from diffgemma_lsp.serve.ask import LONGEST, Ask, Reply
from diffgemma_lsp.serve.dialects import Dialect
from diffgemma_lsp.serve.dialects.templates import Split, split
from engine.errors import BadRequest
from engine.types import Snippet

REPLY = Reply(("a + b", "b + a"), "nano", ms={"total": 20.0, "prefill": 5.0}, passes=4, id="x")


def dialect(path: str, body: dict[str, Any]) -> Dialect:
    return next(one for one in FILLS[path] if one.speaks(body))


def read(path: str, body: dict[str, Any]) -> Ask:
    return dialect(path, body).read(body)


def streamed(path: str, body: dict[str, Any], reply: Reply = REPLY) -> list[dict[str, Any]]:
    """The objects of a stream."""
    spoken = dialect(path, body)
    lines = "".join(spoken.lines(spoken.read(body), reply)).split("\n")
    return [
        json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line
    ]


@pytest.mark.parametrize("client", SENT)
def test_each_client_s_body_says_the_same(client: str) -> None:
    ask = read(*SENT[client])
    assert (ask.prefix, ask.suffix) == (BEFORE, AFTER)


def test_what_llama_vim_says_beside_the_hole() -> None:
    ask = read(*SENT["llama.vim"])
    assert (ask.max_tokens, ask.budget_ms, ask.stop, ask.warm) == (128, 750, (), False)
    assert (ask.context, ask.language_id) == ((Snippet("one.py", "x = 1\n"),), "python")


def test_llama_vim_reads_one_line_with_flat_fields() -> None:
    path, body = SENT["llama.vim"]
    written = dialect(path, body).write(read(path, body), REPLY)
    assert set(written) == {"content", "timings/prompt_n", "tokens_cached", "truncated"}
    assert written["content"] == "a + b"
    unknown = {**body, "response_fields": ["content", "no/such", "content/of"]}
    assert dialect(path, unknown).write(read(path, unknown), REPLY) == {"content": "a + b"}


def test_llama_vscode_gets_an_array_of_answers_and_n_ctx() -> None:
    path, body = SENT["llama.vim"]
    body = {**body, "n_cmpl": 3, "response_fields": []}
    written = dialect(path, body).write(read(path, body), REPLY)
    assert [one["content"] for one in written] == ["a + b", "b + a"]
    assert "n_ctx" in written[0]["generation_settings"]


def test_a_warm_up_asks_for_nothing() -> None:
    body = {"input_prefix": "", "prompt": "", "input_suffix": "", "n_predict": 0}
    assert read("/infill", body).warm
    assert read("/api/generate", {"model": "nano"}).warm  # loads the model, in Ollama's words


def test_all_that_zed_requires_is_there() -> None:
    path, body = SENT["Zed, Qwen's marks"]
    written = dialect(path, body).write(read(path, body), REPLY)
    assert {"id", "object", "created", "model", "choices", "usage"} <= set(written)
    assert set(written["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert [choice["text"] for choice in written["choices"]] == ["a + b", "b + a"]


@pytest.mark.parametrize(
    ("client", "where"),
    [
        ("minuet", lambda one: one["choices"][0]["text"]),
        ("lsp-ai, Mistral", lambda one: one["choices"][0]["delta"]["content"]),
        ("twinny, Ollama", lambda one: one["response"]),
        ("twinny, CodeLlama's marks", lambda one: one["content"]),
    ],
)
def test_a_stream_adds_up_to_the_answer(client: str, where: Any) -> None:
    path, body = SENT[client]
    one = Reply(("a + b",), "nano")
    assert "".join(map(where, streamed(path, body, one))) == "a + b"


def test_a_stream_says_that_it_ends() -> None:
    assert streamed(*SENT["minuet"])[-1]["choices"][0]["finish_reason"] == "stop"
    assert streamed(*SENT["twinny, Ollama"])[-1]["done"] is True
    path, body = SENT["minuet"]
    spoken = dialect(path, body)
    assert [*spoken.lines(spoken.read(body), REPLY)][-1] == "data: [DONE]\n\n"


def test_marked_prompts_bring_other_files() -> None:
    marked = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
    qwen = f"<|repo_name|>r\n<|file_sep|>one.py\nx = 1\n<|file_sep|>two.py\n{marked}"
    expected = Split(BEFORE, AFTER, (Snippet("one.py", "x = 1"),), "two.py")
    assert split(qwen) == expected
    inside = f"[SUFFIX]{AFTER}[PREFIX]+++++ one.py\nx = 1\n\n+++++ two.py\n{BEFORE}"
    assert split(inside) == expected


def test_minuet_names_the_language_in_a_comment() -> None:
    head = "# language: python\n# indentation: use 4 spaces for a tab\n"
    assert read("/v1/completions", {"prompt": head + BEFORE}).language_id == "python"


UNMARKED = st.text().filter(
    lambda text: not any(one in text for one in ("fim", "FIX", "PRE", "SUF"))
)


@given(UNMARKED, UNMARKED)
def test_texts_without_marks_come_back_from_between_them(prefix: str, suffix: str) -> None:
    for first, second, last in (
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ):
        found = split(f"{first}{prefix}{second}{suffix}{last}")
        assert (found.prefix, found.suffix) == (prefix, suffix)


@given(st.text())
def test_what_has_no_marks_or_too_many_is_text(prompt: str) -> None:
    assert split(prompt).prefix == prompt
    twice = f"<fim_prefix>{prompt}<fim_prefix><fim_suffix><fim_middle>"
    assert split(twice) == Split(twice, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = sorted({name for _, body in SENT.values() for name in body} | {"n", "n_cmpl", "seed"})


@given(st.sampled_from(sorted(SENT)), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
def test_a_field_of_any_kind_is_read_or_refused(client: str, wrong: dict[str, Any]) -> None:
    path, body = SENT[client]
    body = {**body, **wrong}
    try:
        ask = read(path, body)
    except BadRequest:
        return
    assert isinstance(ask.prefix, str)
    assert isinstance(ask.suffix, str)
    assert ask.max_tokens is None or 1 <= ask.max_tokens <= LONGEST
    assert ask.answers >= 1
    assert 0 <= ask.seed < 2**63
    json.dumps([dialect(path, body).write(ask, REPLY), *streamed(path, body)])
