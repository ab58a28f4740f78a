"""A checkpoint's chat template, filled in as transformers does it, but with its errors told.

A template is a program from the hub: it runs in jinja's sandbox, and whatever it does wrong is a
reason not to use it, never a reason not to load the model.
Reference: transformers.utils.chat_template_utils (`_compile_jinja_template`).
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.ext import loopcontrols as LoopControls
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Json = dict[str, Any]

_HERE = "\ue000content\ue000"
"""Stands for the user's text while the template is filled in. Private use: no template has it."""

_SPECIAL = ("eos_token", "pad_token", "unk_token")


class TemplateTrouble(Exception):
    """Why a chat template can't be used, as one line."""


class Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, which marks what a model said, for training. Here
    it says nothing."""

    tags: ClassVar[set[str]] = {"generation"}  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the tags, as if they were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def around_user(folder: Path) -> tuple[str, str] | None:
    """What the template in `folder` puts before and behind what a user says, up to where the model
    begins to speak; None if there is no template. The beginning of a sequence is left out: whoever
    puts the prompt together has it already.

    Raises TemplateTrouble.
    """
    config = _tokenizer_config(folder)
    source = _source(folder, config)
    if source is None:
        return None
    special = {name: _text_of(config.get(name)) for name in _SPECIAL}
    # Templates of models that see pictures may take nothing but lists of parts.
    shapes: list[object] = [_HERE, [{"type": "text", "text": _HERE}]]
    trouble = ""
    for content in shapes:
        try:
            text = _render(source, content, special)
        except Exception as error:  # a template is a program, and may fail as any other
            trouble = trouble or f"it can't be used: {_line(error)}"
            continue
        before, here, after = text.partition(_HERE)
        if here and _HERE not in after:
            return before, after
        trouble = trouble or "it does not say once what the user says"
    raise TemplateTrouble(f"the chat template in {folder}: {trouble}")


def _render(source: str, content: object, special: dict[str, str]) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControls]
    )
    environment.filters["tojson"] = _to_json
    names = cast("dict[str, Any]", environment.globals)
    names["raise_exception"] = _raise  # what templates call when they can't go on
    names["strftime_now"] = _now
    return environment.from_string(source).render(
        messages=[{"role": "user", "content": content}],
        add_generation_prompt=True,
        enable_thinking=False,
        bos_token="",
        **special,
    )


def _source(folder: Path, config: Json) -> str | None:
    path = folder / "chat_template.jinja"
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TemplateTrouble(f"{path} can't be read: {_line(error)}") from error
    found: Any = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one["name"]: one["template"] for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _tokenizer_config(folder: Path) -> Json:
    path = folder / "tokenizer_config.json"
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise TemplateTrouble(f"{path} can't be read: {_line(error)}") from error
    return data if isinstance(data, dict) else {}


def _text_of(token: Any) -> str:
    """A special token as tokenizer_config.json has it: a text, or an object with one."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
    # jinja's own would escape what HTML must not have.
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
