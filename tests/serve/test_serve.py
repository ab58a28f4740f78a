"""`diffgemma-lsp serve` as a program, with nano, and real clients in front of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import mistralai.client
import ollama
import openai
import pytest
from bodies import SENT
from serving import AFTER, BEFORE, COMMAND, PATIENCE_S, configured

pytestmark = pytest.mark.timeout(600)

MARKED = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"


@pytest.mark.parametrize("client", ["openai", "ollama", "mistralai"])
def test_the_lines_of_the_readme(url: str, client: str, capsys: pytest.CaptureFixture[str]) -> None:
    body = {"prompt": BEFORE, "suffix": AFTER}
    found = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S).json()
    names = {"openai": openai, "ollama": ollama, "Mistral": mistralai.client.Mistral}
    code = configured(f"`{client}` (Python)", url)
    exec(code, {**names, "before": BEFORE, "after": AFTER})
    assert capsys.readouterr().out == found["choices"][0]["text"] + "\n"


def test_openai(url: str, answer: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=PATIENCE_S)
    create = client.completions.create
    plain = create(model="nano", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    assert plain.choices[0].text == answer
    stream = create(model="nano", prompt=BEFORE, suffix=AFTER, max_tokens=32, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer
    marked = create(model="nano", prompt=MARKED, max_tokens=32)
    assert marked.choices[0].text == answer
    several = create(model="nano", prompt=BEFORE, suffix=AFTER, max_tokens=32, n=3)
    texts = [choice.text for choice in several.choices]
    assert texts[0] == answer
    assert len(texts) == len({*texts}) == 3
    assert [model.id for model in client.models.list()] == ["nano"]


def test_ollama(url: str, answer: str) -> None:
    client = ollama.Client(url, timeout=PATIENCE_S)
    assert "insert" in (client.show("nano").capabilities or [])
    assert [model.model for model in client.list().models] == ["nano"]
    options = {"num_predict": 32}
    assert client.generate("nano", BEFORE, AFTER, options=options).response == answer
    stream = client.generate("nano", BEFORE, AFTER, options=options, stream=True)
    assert "".join(part.response for part in stream) == answer
    with pytest.raises(ollama.ResponseError, match="prompt must be a text"):
        client._request(ollama.GenerateResponse, "POST", "/api/generate", json={"prompt": 1})


def test_mistral(url: str, answer: str) -> None:
    client = mistralai.client.Mistral(
        api_key="none", server_url=url, timeout_ms=int(PATIENCE_S * 1000)
    )
    plain = client.fim.complete(model="nano", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    message = plain.choices[0].message
    assert message is not None
    assert message.content == answer
    stream = client.fim.stream(model="nano", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    assert "".join(str(event.data.choices[0].delta.content) for event in stream) == answer


def test_llama_cpp(url: str, answer: str) -> None:
    fields = ["content", "timings/prompt_n", "tokens_cached"]
    head, line = BEFORE.rsplit("\n", 1)
    body = {"input_prefix": head + "\n", "prompt": line, "input_suffix": AFTER}
    body |= {"n_predict": 32, "response_fields": fields}
    found = httpx.post(f"{url}/infill", json=body, timeout=PATIENCE_S)
    assert found.text.startswith('{"content":"')  # llama.vim finds it in no other form
    assert sorted(json.loads(found.text)) == sorted(fields)
    assert found.json()["content"] == answer
    # llama.vscode asks for several, reads all of each, and shows them one after the other.
    body |= {"n_cmpl": 3, "response_fields": []}
    several = httpx.post(f"{url}/infill", json=body, timeout=PATIENCE_S).json()
    assert several[0]["content"] == answer
    assert len({one["content"] for one in several}) == len(several) == 3
    assert all(one["generation_settings"]["n_ctx"] > 0 for one in several)
    assert httpx.get(f"{url}/props").json()["default_generation_settings"]["n_ctx"] > 0


def test_tabby(url: str) -> None:
    # Nothing of it says how long an answer may be, so it is another one than the others'.
    segments = {"prefix": BEFORE, "suffix": AFTER, "filepath": "add.py"}
    body = {"language": "python", "segments": segments}
    found = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S).json()
    assert found["choices"][0]["text"].strip()
    assert httpx.get(f"{url}/v1/health").json()["model"] == "nano"


@pytest.mark.parametrize(
    ("client", "where"),
    [
        ("Zed, Qwen's marks", lambda one: one["choices"][0]["text"]),
        ("Zed, CodeLlama's marks", lambda one: one["choices"][0]["text"]),
        ("Zed, Ollama", lambda one: one["response"]),
        ("twinny, CodeLlama's marks", lambda one: one["content"]),
        ("twinny, LM Studio", lambda one: one["choices"][0]["text"]),
        ("twinny, Ollama", lambda one: one["response"]),
    ],
)
def test_clients_that_run_nowhere_but_in_an_editor(
    url: str, answer: str, client: str, where: Callable[[Any], str]
) -> None:
    """What they send, and the text that they would take from the reply, streamed or not."""
    path, body = SENT[client]
    found = httpx.post(f"{url}{path}", json=body, timeout=PATIENCE_S)
    assert found.status_code == 200
    lines = [line.removeprefix("data: ") for line in found.text.splitlines() if line]
    texts = [where(json.loads(line)) for line in lines if line != "[DONE]"]
    assert len(texts) > 1 if body.get("stream") else len(texts) == 1
    assert "".join(texts) == answer


def test_a_port_that_is_taken_is_said_in_one_line(url: str, real_engine: dict[str, str]) -> None:
    port = url.rsplit(":", 1)[1]
    taken = subprocess.run(
        [*COMMAND, "--port", port], env=real_engine, capture_output=True, text=True, check=False
    )
    assert taken.returncode == 2
    assert "already in use; --port takes another" in taken.stderr
    assert taken.stderr.count("\n") == 1


def test_an_address_of_others_takes_tokens(real_engine: dict[str, str]) -> None:
    open_to_all = [*COMMAND, "--host", "0.0.0.0", "--port", "0"]
    refused = subprocess.run(
        open_to_all, env=real_engine, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "--token-file" in refused.stderr
