"""How sure a model is of what is shown, where that was measured."""

from __future__ import annotations


def measured(confidence: float | None, text: str) -> float | None:
    """The confidence of an answer as it is told: None of several lines. It was measured of lines
    and ends of lines, as the share that is right to the letter, which hardly any text of several
    lines is, good ones included. text: what the model wrote."""
    return None if "\n" in text.strip() else confidence


def doubt(
    confidence: float | None, least: float | None, invoked: bool, finished: bool = True
) -> str | None:
    """Why an answer is not shown of which the model is less sure than the user wants it to be; None
    if it is shown. Where that was not measured (None), what the user asked for is shown; what comes
    by itself must be known to be worth it. finished: False if there was no time to measure it."""
    if not least or (invoked if confidence is None else confidence >= least):
        return None
    if confidence is not None:
        return f"the model was only {confidence:.0%} sure"
    if not finished:
        return "the time was up before it was known how sure the model is: a larger budget helps"
    return "the model does not say how sure it is of this: min_confidence 0 shows it"
