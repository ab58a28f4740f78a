"""What `diffgemma-lsp setup` asks: which editors, which model, and whether to write."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.child import run_program
from diffgemma_lsp.commands.models import ask_machine, in_words
from diffgemma_lsp.setup.editors import BY_NAME, EDITORS, Editor
from diffgemma_lsp.setup.place import Place
from engine.known import NAMES, recommended
from engine.models import BEST, SHIPPED, base_folder, models_with_a_base, pulled, read_base
from engine.program import INTERRUPTED

NANO = SHIPPED[0]


def is_terminal() -> bool:
    """Whether there is someone to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def yes(question: str) -> bool:
    """The answer; Enter means yes, and so does nothing else that doesn't begin with a y."""
    answer = _answer(f"{question} [Y/n] ").lower()
    return not answer or answer.startswith("y")


def ask_editors(place: Place) -> Sequence[Editor]:
    """Those that are chosen, of all that there are; those that are here come first.

    Raises UsageError if there is no such editor.
    """
    here = [editor for editor in EDITORS if editor.is_here(place)]
    offered = [*here, *(editor for editor in EDITORS if editor not in here)]
    print("What shall be set up?")
    for number, editor in enumerate(offered, 1):
        print(f"  {number}  {editor.title:<20} {'here' if editor in here else ''}".rstrip())
    first = " ".join(str(number) for number in range(1, len(here) + 1))
    prompt = f"Numbers or names [{first}]: " if here else "Numbers or names: "
    words = (_answer(prompt) or first).replace(",", " ").split()
    if not words:
        raise UsageError("nothing was chosen")
    by_word = BY_NAME | {str(number): editor for number, editor in enumerate(offered, 1)}
    unknown = [word for word in words if word not in by_word]
    if unknown:
        raise UsageError(f"{unknown[0]} is none of them")
    return list(dict.fromkeys(by_word[word] for word in words))


def ask_model() -> str:
    """The model that is chosen: the one that serves by itself, a better one that this machine can
    run, or the one that ships whole. Raises UsageError."""
    base = read_base(BEST)
    offered = {BEST: f"{_size(base.file_bytes, BEST)}: Python and eleven other languages"}
    machine = ask_machine()
    better = recommended(machine.device, machine.memory)
    if better is not None:
        offered[better.name] = f"{_size(better.weights, better.name)}: {better.good_at}"
    offered[NANO] = "ships with the package: Python, a little"
    print("Which model?")
    for number, (name, facts) in enumerate(offered.items(), 1):
        print(f"  {number}  {name:<20} {facts}")
    answer = _answer("Number or name [1]: ") or "1"
    chosen = {str(number): name for number, name in enumerate(offered, 1)}.get(answer, answer)
    if chosen not in offered:
        raise UsageError(f"{chosen} is none of them; --model takes any")
    return chosen


def missing(model: str | None) -> str | None:
    """The model if it has to be pulled; None stands for the one that serves by itself."""
    name = model or BEST
    return None if _is_here(name) else name


def bring(name: str) -> None:
    """Pulls a model. Raises UsageError where it can't be had, but for the one that serves by
    itself, without which nano does."""
    code = run_program("engine.weights.pull", ["--", name])
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code and name != BEST:
        raise UsageError(f"{name} is not here, so nothing was written")
    if code:
        print(f"{NANO} serves until {BEST} can be had: diffgemma-lsp pull")


def _is_here(model: str) -> bool:
    """Raises UsageError if there is no such model anywhere."""
    if model in models_with_a_base():
        return base_folder(model) is not None
    if model in SHIPPED or os.path.isdir(os.path.expanduser(model)):
        return True
    if model not in NAMES and "/" not in model:
        raise UsageError(f"there is no model {model}: diffgemma-lsp models lists them")
    return pulled(model) is not None


def _size(size: int, model: str) -> str:
    return "here" if _is_here(model) else f"{in_words(size)} to load"


def _answer(prompt: str) -> str:
    """A line from the terminal. Raises UsageError where it ends."""
    try:
        return input(prompt).strip()
    except EOFError:
        raise UsageError("nothing was written: the questions have no answer") from None
