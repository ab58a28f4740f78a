"""Which files may be shown to a model, and reading them.

Left out are secrets, by their names and by what is in them; what git ignores, by the
rules of the repository and by the user's own; what lies outside the workspace, wherever a link
leads; and what is no text or very large. All of this touches the disk and runs in threads.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from diffgemma_lsp.context.secrets import holds_a_secret

LARGEST = 256 * 1024
"""Bytes; a larger file is data, or made by a program."""

_SECRET_NAMES = re.compile(
    r"""
    \.env.* | .*\.env | \.netrc | _netrc | \.npmrc | \.yarnrc.* | \.pypirc | \.pgpass | \.my\.cnf
    | .*\.(pem|key|p8|p12|pfx|pkcs12|jks|keystore|kdbx|ppk|gpg|asc|ovpn|kubeconfig|secrets?|token)
    | id_(rsa|dsa|ecdsa|ed25519).* | .*_(rsa|ed25519) | authorized_keys | known_hosts | kubeconfig
    | credentials.* | .*credentials\.json | client_secret.* | service[-_]account.*\.json
    | secrets?(\..*)? | (api[-_]?)?(keys?|tokens?|passw(or)?ds?)(\.(txt|json|csv|ya?ml|ini))?
    | \.?(ansible[-_])?vault[-_]pass.* | \.\w+_history | local\.settings\.json
    | .*\.tfvars(\.json)? | .*\.tfstate.*
    | \.htpasswd | \.git-credentials | \.dockercfg | \.s3cfg | \.boto | \.vault.*
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SECRET_FOLDERS = frozenset(
    (".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".git", ".password-store")
)

_OF_ONE_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX")

GIT_S = 5.0
"""So long git may take to say where its rules are."""

_EXCLUDE = ("rev-parse", "--git-path", "info/exclude")
_USERS_OWN = ("config", "--type=path", "--get", "core.excludesFile")

_FOREIGN_FOLDERS = frozenset(("__pycache__", "node_modules", "site-packages"))
"""Where what others wrote lies, whether git ignores it or not."""


class Stamp(NamedTuple):
    """What changes when a file does: its modification time in nanoseconds, size and number."""

    mtime_ns: int
    size: int
    inode: int


class _Rule(NamedTuple):
    """One line of a .gitignore: what it is about, and whether that is ignored or, with "!", not."""

    pattern: re.Pattern[str]
    ignores: bool


def is_secret(path: Path) -> bool:
    """Whether a file's name, or a folder that it is in, says that nobody else should read it."""
    folders = (part.lower() for part in path.parts[:-1])
    return not _SECRET_FOLDERS.isdisjoint(folders) or bool(_SECRET_NAMES.fullmatch(path.name))


class Files:
    """What may be read below the workspace folders. Keeps the rules that it has seen."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [folder for each in folders if (folder := real_path(each)) is not None]
        self._rules_of: dict[Path, tuple[Stamp | None, Sequence[_Rule]]] = {}
        self._beside: dict[Path, list[Path]] = {}

    def may_show(self, path: Path) -> bool:
        """Whether the text of an open document may be shown; it may lie anywhere."""
        real = real_path(path) or path
        if is_secret(path) or is_secret(real):
            return False
        return not any(self._ignored(each) for each in {path, real})

    def may_read(self, path: Path) -> bool:
        """Whether a file may be read; it has to lie in a workspace folder, links resolved."""
        real = real_path(path)
        return real is not None and self.folder_of(real) is not None and self.may_show(path)

    def read(self, path: Path) -> tuple[str, Stamp] | None:
        """The text of a file that may be read, with what tells whether it has changed since."""
        real = real_path(path)
        if real is None or not self.may_read(path):
            return None
        try:
            with open(real, "rb", opener=_as_it_is) as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST:
                    return None
                data = file.read(LARGEST + 1)
        except OSError:
            return None
        if len(data) > LARGEST or b"\0" in data:
            return None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None
        return None if holds_a_secret(text) else (text, _stamp(info))

    def walk(self, suffixes: tuple[str, ...]) -> Iterator[Path]:
        """The files with these suffixes below the folders that may be read, in a fixed order.

        What is ignored, hidden or installed by others is not entered.
        """
        for folder in self.folders:
            for top, below, names in os.walk(folder):
                here = Path(top)
                below[:] = sorted(name for name in below if self._may_enter(here / name))
                files = (here / name for name in sorted(names) if name.endswith(suffixes))
                yield from (file for file in files if self.may_read(file))

    def shown_name(self, path: Path) -> str:
        """A file as people call it: its path in the workspace folder, else its name alone."""
        folder = self.folder_of(path)
        return path.name if folder is None else path.relative_to(folder).as_posix()

    def folder_of(self, path: Path) -> Path | None:
        """The innermost workspace folder that a path lies in."""
        inside = [folder for folder in self.folders if path.is_relative_to(folder)]
        return max(inside, key=lambda folder: len(folder.parts), default=None)

    def _may_enter(self, folder: Path) -> bool:
        """Whether a folder below a workspace folder can have files of the user's own."""
        foreign = folder.name.startswith(".") or folder.name in _FOREIGN_FOLDERS
        if foreign or (folder / "pyvenv.cfg").exists():
            return False
        return not self._ignored(folder, is_folder=True)

    def _ignored(self, path: Path, is_folder: bool = False) -> bool:
        """Whether git would leave the file or folder out: it, or a folder that it is in."""
        folder = self.folder_of(path)
        if folder is None:
            return False
        top = next((p for p in (folder, *folder.parents) if os.path.exists(p / ".git")), folder)
        way = [top, *_steps(top, path)]
        return any(
            self._ruled_out(way[at], way[:at], is_folder=is_folder or at < len(way) - 1)
            for at in range(1, len(way))
        )

    def _ruled_out(self, path: Path, above: Sequence[Path], is_folder: bool) -> bool:
        """What the rules say of a file or folder alone; the nearest that say anything decide."""
        rules = [(folder, folder / ".gitignore") for folder in reversed(above)]
        rules += [(above[0], file) for file in self._rules_beside(above[0])]
        for folder, file in rules:
            name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
            for rule in self._rules(file):
                if _is_about(rule.pattern, name):
                    return rule.ignores
        return False

    def _rules_beside(self, top: Path) -> list[Path]:
        """Where a repository's rules are that are not among its own files. Git is asked once."""
        if top not in self._beside:
            own, users = ask_git(top, _EXCLUDE), ask_git(top, _USERS_OWN)
            if users is None:
                home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
                users = f"{home}/git/ignore"
            self._beside[top] = [top / (own or ".git/info/exclude"), top / users]
        return self._beside[top]

    def _rules(self, path: Path) -> Sequence[_Rule]:
        """The rules in a file, the last first, read again if it has changed."""
        stamp = stamp_of(path)
        known = self._rules_of.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, [] if stamp is None else _read_rules(path))
            self._rules_of[path] = known
        return known[1]


def ask_git(folder: Path, words: Sequence[str]) -> str | None:
    """What git says of a folder; None if there is no git, or it has nothing to say."""
    # An editor that git itself has started has variables that name another repository.
    env = {name: value for name, value in os.environ.items() if name not in _OF_ONE_REPOSITORY}
    command = ["git", "-C", str(folder), *words]
    try:
        asked = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return None if asked.returncode else os.fsdecode(asked.stdout).rstrip("\n")


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None if there is none."""
    try:
        return _stamp(path.stat())
    except (OSError, ValueError):
        return None


def _stamp(info: os.stat_result) -> Stamp:
    return Stamp(info.st_mtime_ns, info.st_size, info.st_ino)


def _steps(top: Path, path: Path) -> Iterator[Path]:
    """Every folder on the way from `top`, without it, to the path, and the path."""
    for part in path.relative_to(top).parts:
        top /= part
        yield top


def _read_rules(path: Path) -> list[_Rule]:
    # Imported when it is needed, in the thread that needs it: it compiles expressions.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        text = path.read_bytes()[:LARGEST].decode("utf-8", errors="replace")
    except OSError:
        return []
    rules: list[_Rule] = []
    for line in reversed(text.splitlines()):
        if line.rstrip().endswith("/**"):
            line = line.rstrip() + "/*"  # the same to git, but here it would mean the folder, too
        try:
            rule = GitIgnoreSpecPattern(line)
        except ValueError:  # git passes over a rule that makes no sense, too
            continue
        if rule.include is not None:  # else it is a comment
            rules.append(_Rule(cast("re.Pattern[str]", rule.regex), rule.include))
    return rules


def _is_about(rule: re.Pattern[str], name: str) -> bool:
    """Whether a rule is about this very name. It also matches what lies below the one that it is
    about, and tells so by a named group that ends before the name does."""
    return any(
        match.lastgroup is None or match.end(match.lastgroup) == len(name)
        for match in rule.finditer(name)
    )


def real_path(path: Path) -> Path | None:
    """The path with all links resolved; None if it leads nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


def _as_it_is(path: str, flags: int) -> int:
    """Opens a file, not what a link has come to lead to, nor a pipe that someone has to write."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
