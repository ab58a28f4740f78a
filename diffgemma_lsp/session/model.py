"""What is known of a model: what its engine says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """What the engine says of its model. Until it says anything, no more than holds for each.

    name: what users see; empty as long as nothing is known. can: "fill", and "instruct" if it
    follows instructions. languages: those that it has learned, as LSP names them; None means any.
    min_confidence: what nobody asked for is shown from this confidence on. draws: whether another
    seed may give another answer.
    """

    name: str = ""
    can: tuple[str, ...] = ("fill",)
    languages: tuple[str, ...] | None = None
    min_confidence: float = 0.0
    draws: bool = True

    @classmethod
    def of(cls, info: dict[str, Any]) -> Model:
        """The model that the engine describes so (engine.types.EngineInfo)."""
        languages = None if info.get("languages") is None else tuple(info["languages"])
        rest = {name: info[name] for name in ("min_confidence", "draws") if name in info}
        return cls(info["model"], tuple(info["can"]), languages, **rest)

    @property
    def known(self) -> bool:
        """Whether the engine has said anything: it had its model then."""
        return bool(self.name)

    @property
    def limits(self) -> str | None:
        """Where it suggests nothing unless it is asked, as a line for a person; None if nowhere."""
        if self.languages is None:
            return None
        if not self.languages:
            return f"{self.name} knows no language, so it suggests only when you ask"
        known = ", ".join(self.languages)
        return f"{self.name} knows only {known}, so it suggests elsewhere only when you ask"

    def silent(self, language_id: str) -> str | None:
        """Why it suggests nothing in this language unless it is asked; None if it does."""
        return None if self.languages is None or language_id in self.languages else self.limits
