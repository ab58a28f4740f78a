"""Whether a text holds a secret: a private key, or a token of a form that gives it away.

Costs milliseconds for the largest text that is shown at all: the event loop asks.
"""

from __future__ import annotations

import re
from itertools import pairwise

_FORMS = re.compile(
    r"""
    -----BEGIN[ ](?:[A-Z0-9]{1,16}[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
    | PuTTY-User-Key-File- | AGE-SECRET-KEY-1[A-Z0-9]{20}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                            # Amazon
    | \bgh[pousr]_[A-Za-z0-9]{36} | \bgithub_pat_\w{22}        # GitHub
    | \bglpat-[\w-]{20}                                        # GitLab
    | \bxox[abeoprs]-[A-Za-z0-9-]{10}                          # Slack
    | \bAIza[\w-]{35}                                          # Google
    | \bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}                    # model providers
    | \b[sr]k_live_[A-Za-z0-9]{16}                             # Stripe
    | \bhf_[A-Za-z0-9]{30} | \bnpm_[A-Za-z0-9]{36} | \bpypi-AgE[\w-]{20}
    | \beyJ[\w-]{10,512}\.eyJ[\w-]{10,512}\.[\w-]{10}          # a signed token (JWT)
    """,
    re.VERBOSE,
)
_MARKS = (
    *("PRIVATE KEY", "PuTTY-User", "AGE-SECRET", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_"),
    *("ghr_", "github_pat_", "glpat-", "xox", "AIza", "sk-", "k_live_", "hf_", "npm_", "pypi-AgE"),
    "eyJ",
)
"""One of them is in every form: a plain search for each is faster than one for a choice."""

_VALUE = re.compile(r"""[:=][ \t]*[rbuf]?["']?([^\s"'#,;(){}\[\]:=]{20,512})""")
_NAME = re.compile(
    r"""(?:key|token|secret|passw(?:or)?d|credentials?)["']?[ \t]*"""
    r"""(?::[ \t]*\w{1,32}[ \t]*)?\Z""",
    re.IGNORECASE,
)
_LONGEST_NAME = 80


def holds_a_secret(text: str) -> bool:
    """Whether nobody else should read this text. Names and places of files are looked at
    elsewhere (`visibility.py`)."""
    if any(mark in text for mark in _MARKS) and _FORMS.search(text) is not None:
        return True
    return any(
        _is_random(value[1])
        and _NAME.search(text[max(0, value.start() - _LONGEST_NAME) : value.start()])
        for value in _VALUE.finditer(text)
    )


def _is_random(value: str) -> bool:
    """Whether letters and digits change places as often as in what a program made, and never in
    what a person wrote."""
    digits = [char.isdigit() for char in value if char.isalnum()]
    return sum(one != other for one, other in pairwise(digits)) >= 5
