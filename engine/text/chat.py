"""What an instruction model is told in front of a canvas, through its own chat template.

The model is to answer with the whole text in which the hole is done as told, so its answer begins
with the text before the hole, ends with what follows it, and only the hole is left to say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import ModelError
from engine.text.tokenizer import TextTokenizer

_HERE = "\ue000content\ue000"
"""Stands for the user's text while the template is filled in. Private use: no template has it."""


class Chat:
    """A chat template as token ids around a user's text."""

    def __init__(self, before: str, after: str, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer.encode_markup(before)
        self._after = tokenizer.encode_markup(after)

    @classmethod
    def load(cls, folder: Path, tokenizer: TextTokenizer) -> Chat | None:
        """The template of the checkpoint in `folder`, None if it has none. Raises ModelError."""
        source = _source(folder)
        if source is None:
            return None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            text = environment.from_string(source).render(
                messages=[{"role": "user", "content": _HERE}],
                add_generation_prompt=True,
                bos_token="",
                raise_exception=_raise,  # what templates call when they can't go on
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ModelError(f"the chat template in {folder} can't be used: {error}") from error
        before, here, after = text.partition(_HERE)
        if not here:
            raise ModelError(f"the chat template in {folder} leaves out what the user says")
        return cls(before, after, tokenizer)

    def ids(self, instruction: str, parts: Sequence[str], budget: int) -> list[int]:
        """What comes before the text: the task, with the parts of the text that it is about.

        Of parts that are too long for `budget` tokens, the end is left out. Neither the
        instruction nor the parts are read for special tokens.
        """
        told = self._tokenizer.encode(_task(instruction, parts))
        room = max(0, budget - len(self._before) - len(self._after))
        return [*self._before, *told[:room], *self._after, *self._tokenizer.encode("```\n")]


def _task(instruction: str, parts: Sequence[str]) -> str:
    shown = "\n\n".join(f"```\n{part}\n```" for part in parts if part.strip())
    about = f"This is a part of a file:\n\n{shown}\n\n" if shown else ""
    return (
        f"{about}{instruction}\n\n"
        "Answer with the text of the file around this place, changed so, and with nothing else."
    )


def _source(folder: Path) -> str | None:
    template = folder / "chat_template.jinja"
    config = folder / "tokenizer_config.json"
    try:
        if template.is_file():
            return template.read_text(encoding="utf-8")
        if config.is_file():
            data: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
            found = data.get("chat_template")
            return found if isinstance(found, str) else None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"the chat template in {folder} can't be read: {error}") from error
    return None


def _raise(message: str) -> None:
    raise TemplateError(message)
