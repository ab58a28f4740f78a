"""`diffgemma-lsp serve` as a service of the user: a unit of systemd, or an agent of launchd."""

from __future__ import annotations

import plistlib
import re

from diffgemma_lsp.setup.edits import OwnFile, signature
from diffgemma_lsp.setup.place import Place, Setup

_LABEL = "org.diffgemma.lsp"
_UNIT = "diffgemma-lsp.service"
_SYSTEMD = signature("service", "#")
_LAUNCHD = signature("service", "").strip()

# The engine that it starts is the editors', too, and outlives it.
_CONTENT = """\
[Unit]
Description=diffgemma-lsp: fill-in-the-middle over HTTP, for this machine alone

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=process
NoNewPrivileges=true

[Install]
WantedBy=default.target
"""


def is_here(place: Place) -> bool:
    """Nobody is offered it who doesn't ask for it."""
    return False


def setup(place: Place) -> Setup:
    """It listens where `serve` does when nothing is said: on the loopback address."""
    words = [place.program, "serve", *(["--model", place.other_model] if place.other_model else [])]
    if place.on_mac:
        return _agent(place, words)
    command = " ".join(map(_quoted, words))
    path = place.config / "systemd" / "user" / _UNIT
    edit = OwnFile(_SYSTEMD + _CONTENT.format(command=command), _SYSTEMD)
    reload = "systemctl --user daemon-reload"
    return Setup(
        {path: edit},
        then=(f"To start it, now and with each login: {reload} && {_systemctl('enable')}",),
        afterwards=(f"If it still runs: {_systemctl('disable')}; {reload}",),
    )


def _agent(place: Place, words: list[str]) -> Setup:
    path = place.home / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    content = plistlib.dumps(
        {
            "Label": _LABEL,
            "ProgramArguments": words,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "AbandonProcessGroup": True,
            "ProcessType": "Interactive",
        }
    ).decode()
    first, rest = content.split("\n", 1)
    content = f"{first}\n<!-- {_LAUNCHD} -->\n{rest}"
    return Setup(
        {path: OwnFile(content, _LAUNCHD)},
        then=(f'To start it, now and with each login: launchctl bootstrap gui/$UID "{path}"',),
        afterwards=(f"If it still runs: launchctl bootout gui/$UID/{_LABEL}",),
    )


def _systemctl(verb: str) -> str:
    return f"systemctl --user {verb} --now {_UNIT}"


def _quoted(word: str) -> str:
    """A word of ExecStart, where %, $ and quotes have a meaning."""
    if re.fullmatch(r"[\w./+-]+", word, re.ASCII):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
