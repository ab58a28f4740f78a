"""What an instruction model is told in front of a canvas, through its own chat template.

The model is to answer with the whole text in which the hole is done as told, so its answer begins
with the text before the hole, ends with what follows it, and only the hole is left to say.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.text.template import TemplateTrouble, around_user
from engine.text.tokenizer import TextTokenizer

log = logging.getLogger(__name__)

LEFT_OUT = "[... left out ...]"
"""Stands in a part of the text for what had no room."""

_THINKS, _THOUGHT = "<|channel>", "<channel|>"
_NO_THOUGHT = f"{_THINKS}thought\n{_THOUGHT}"
"""What DiffusionGemma says before its answer when it does not think: it was tuned so, whether or
not the template of the day writes it."""

_LEAST_PART = 16
"""A part that has room for fewer tokens says nothing; it is left out as a whole."""

_LANGUAGE = re.compile(r"[\w.+#-]{1,40}")


class Chat:
    """A chat template as token ids around a user's text."""

    def __init__(self, before: str, after: str, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer.encode_markup(before)
        self._after = tokenizer.encode_markup(after + _rest_of_thought(after, tokenizer))

    @classmethod
    def open(cls, folder: Path, tokenizer: TextTokenizer) -> Chat | str | None:
        """The template of the checkpoint in `folder`; one line that says why it can't be used; None
        if there is none. A model without a template fills as well as any other."""
        try:
            found = around_user(folder)
        except TemplateTrouble as trouble:
            return str(trouble)
        return None if found is None else cls(*found, tokenizer)

    @classmethod
    def load(cls, folder: Path, tokenizer: TextTokenizer) -> Chat | None:
        """`open`, but a template that can't be used is as good as none, and logged."""
        found = cls.open(folder, tokenizer)
        if isinstance(found, str):
            log.warning("the model fills, but follows no instructions: %s", found)
            return None
        return found

    def ids(
        self, instruction: str, parts: Sequence[str], budget: int, language: str | None = None
    ) -> list[int]:
        """What comes before the text: the task, with the parts of the text that it is about.

        budget: tokens. The instruction is never cut, however few there are. Parts that are too long
        lose their middle, where LEFT_OUT stands then; a part with hardly any room is left out.
        language: as LSP names it, for the fences. Neither the instruction nor the parts are read
        for special tokens.
        """
        return self._ids(lambda shown: _task(instruction, shown), parts, budget, language)

    def _ids(
        self,
        task: Callable[[str], str],
        parts: Sequence[str],
        budget: int,
        language: str | None,
    ) -> list[int]:
        """`ids` of any task. task: what the user's turn says around the parts, as text."""
        encode = self._tokenizer.encode
        fence = _fence(parts)
        named = language if language and _LANGUAGE.fullmatch(language) else ""
        answer = encode(f"{fence}{named}\n")
        around = len(self._before) + len(self._after) + len(answer)
        room = budget - around - len(encode(task("")))
        shown = [part for part in parts if part.strip()]
        told = encode(task(""))
        # Tokens of two texts are not always those of both together: what is over is taken away.
        wish = room
        while shown and wish >= _LEAST_PART:
            cut = self._cut(shown, wish, fence, named)
            if not cut:
                break
            longer = encode(task(cut))
            if len(longer) + around <= budget:
                told = longer
                break
            wish -= max(1, len(longer) + around - budget)
        return [*self._before, *told, *self._after, *answer]

    def fill_ids(self, behind: str, budget: int, title: str = "") -> list[int]:
        """What comes before the text where nothing is said but to fill it: the file's name, if
        there is one, and how it goes on behind the hole. It is no part of the prefix, and changes
        less often than that."""
        return self._ids(lambda shown: _filling(shown, title.strip()), [behind], budget, None)

    def _cut(self, parts: Sequence[str], room: int, fence: str, language: str) -> str:
        """The parts in fences, in about `room` tokens; those that fit into their share are whole,
        and what they don't need goes to the others."""
        frame = len(self._tokenizer.encode(f"{fence}{language}\n\n{fence}\n\n"))
        ids = [self._tokenizer.encode(part) for part in parts]
        left = room - frame * len(parts) - len(self._tokenizer.encode(_ABOUT))
        rooms = [0] * len(parts)
        for done, index in enumerate(sorted(range(len(parts)), key=lambda i: len(ids[i]))):
            rooms[index] = min(len(ids[index]), max(0, left) // (len(parts) - done))
            left -= rooms[index]
        texts = (
            part if len(tokens) <= space else self._middle_out(tokens, space)
            for part, tokens, space in zip(parts, ids, rooms, strict=True)
        )
        return "\n\n".join(f"{fence}{language}\n{text}\n{fence}" for text in texts if text)

    def _middle_out(self, ids: list[int], room: int) -> str:
        """The beginning and the end of a text, as whole lines where it has some; "" if there is
        too little room."""
        keep = room - len(self._tokenizer.encode(f"\n{LEFT_OUT}\n"))
        if keep < _LEAST_PART:
            return ""
        head = self._tokenizer.text_of(ids[: keep - keep // 3])
        tail = self._tokenizer.text_of(ids[len(ids) - keep // 3 :])
        head = head[: head.rfind("\n")] if "\n" in head else head
        tail = tail[tail.find("\n") + 1 :] if "\n" in tail else tail
        return f"{head}\n{LEFT_OUT}\n{tail}"


_ABOUT = "This is a part of a file:\n\n\n\n"


def _task(instruction: str, shown: str) -> str:
    about = f"This is a part of a file:\n\n{shown}\n\n" if shown else ""
    return (
        f"{about}{instruction}\n\n"
        "Answer with the text of the file around this place, changed so, and with nothing else."
    )


def _filling(shown: str, title: str) -> str:
    named = f"The name of the file, as a comment:\n\n{title}\n\n" if title else ""
    behind = f"Behind that it goes on so:\n\n{shown}\n\n" if shown else ""
    return (
        f"A part of a file is left out. {named}{behind}Write the file up to there with that part, "
        "and nothing else."
    )


def _fence(parts: Sequence[str]) -> str:
    """Backticks, more of them than stand together in any part."""
    longest = max((len(run) for part in parts for run in re.findall("`+", part)), default=0)
    return "`" * max(3, longest + 1)


def _rest_of_thought(after: str, tokenizer: TextTokenizer) -> str:
    """What is missing, behind what a template writes, of a thought that is over."""
    if tokenizer.id_of(_THINKS) is None or tokenizer.id_of(_THOUGHT) is None:
        return ""
    opened = after.rfind(_THINKS)
    if opened < 0:
        return _NO_THOUGHT
    return "" if _THOUGHT in after[opened:] else _THOUGHT
