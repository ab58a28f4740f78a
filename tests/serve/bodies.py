"""What each client sends where a hole has BEFORE and AFTER around it: the path and the body."""

from __future__ import annotations

from typing import Any

from serving import AFTER, BEFORE

HEAD, LINE = BEFORE.splitlines()
HEAD += "\n"

SENT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama.vim": (
        "/infill",
        {
            "id_slot": 0,
            "input_prefix": HEAD,
            "prompt": LINE,
            "input_suffix": AFTER,
            "input_extra": [{"filename": "one.py", "text": "x = 1\n", "time": [1, 2]}],
            "n_predict": 128,
            "stop": [],
            "n_indent": 4,
            "top_k": 40,
            "samplers": ["top_k", "infill"],
            "stream": False,
            "cache_prompt": True,
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": 250,
            "response_fields": ["content", "timings/prompt_n", "tokens_cached", "truncated"],
            "model": "",
        },
    ),
    "minuet": (
        "/v1/completions",
        {"model": "nano", "prompt": BEFORE, "suffix": AFTER, "stream": True, "max_tokens": 56},
    ),
    "Zed, Qwen's marks": (
        "/v1/completions",
        {
            "model": "qwen",
            "prompt": f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
            "max_tokens": 32,
            "temperature": None,
            "stop": ["<|endoftext|>", "<|file_sep|>"],
        },
    ),
    "Zed, CodeLlama's marks": (
        "/v1/completions",
        {"model": "m", "prompt": f"<PRE> {BEFORE} <SUF>{AFTER} <MID>", "max_tokens": 32},
    ),
    "Zed, Ollama": (
        "/api/generate",
        {
            "model": "starcoder2",
            "prompt": f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>",
            "raw": True,
            "stream": False,
            "options": {"num_predict": 32, "temperature": 0.2, "stop": ["<|endoftext|>"]},
        },
    ),
    "twinny, CodeLlama's marks": (
        "/completion",
        {"prompt": f"<PRE> {BEFORE} <SUF>{AFTER} <MID>", "stream": True, "n_predict": 32},
    ),
    "twinny, LM Studio": (
        "/v1/completions",
        {
            "prompt": f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>",
            "stream": True,
            "max_tokens": 32,
            "temperature": 0.2,
        },
    ),
    "twinny, Ollama": (
        "/api/generate",
        {
            "model": "deepseek",
            "prompt": f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>",
            "stream": True,
            "options": {"num_predict": 32, "temperature": 0.2},
        },
    ),
    "Continue, Codestral's marks": (
        "/v1/completions",
        {"model": "codestral", "prompt": f"[SUFFIX]{AFTER}[PREFIX]{BEFORE}", "stream": True},
    ),
    "Continue, DeepSeek": ("/beta/completions", {"prompt": BEFORE, "suffix": AFTER}),
    "lsp-ai, Mistral": (
        "/v1/fim/completions",
        {"model": "x", "prompt": BEFORE, "suffix": AFTER, "random_seed": 3},
    ),
    "tabby-agent": (
        "/v1/completions",
        {"language": "python", "segments": {"prefix": BEFORE, "suffix": AFTER, "filepath": "a.py"}},
    ),
}
