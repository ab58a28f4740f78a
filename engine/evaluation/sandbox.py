"""Runs a Python program that nobody has read: in a child process, with limits, cut off.

Three fences, one inside the other:

    the system    bubblewrap, else Linux namespaces, where there are any: no network, no other
                  processes, and with bubblewrap a file system that can only be read
    the kernel    limits on processor time, memory, and the size of written files (none)
    the child     an audit hook that refuses to change files, to start processes, to load native
                  libraries and to open sockets

A fence that the system does not have is missing from `Sandbox.isolation`, which says what there is.
The hook is against accidents; whoever wants to get out of Python can.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "timeout"]

_PASSED = 77
"""What the child exits with behind the last line of the program; the program can't by accident."""

_LAST_WORDS = 2000  # bytes that are kept of what went wrong

# Runs in the child. The program comes on stdin, the limits as an argument.
_CHILD = r"""
import io, json, os, sys
cpu, memory, linux = json.loads(sys.argv[1])
program = sys.stdin.buffer.read().decode()
sys.stdin, sys.stderr = io.StringIO(), sys.stdout
try:
    import resource
except ImportError:
    resource = None
if resource is not None:
    names = ["RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_CORE"] + ["RLIMIT_AS"] * linux
    for name, value in zip(names, (cpu, 0, 0, memory)):
        resource.setrlimit(getattr(resource, name), (value, value))
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = {
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.link",
    "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.symlink",
    "os.system", "os.truncate", "os.utime", "pty.spawn", "signal.pthread_kill", "subprocess.Popen",
}
def hook(event, arguments):
    if event == "open":
        if not isinstance(arguments[2], int) or not arguments[2] & CHANGES:
            return
    elif event not in REFUSED and not event.startswith(("socket.", "ctypes.", "shutil.")):
        return
    raise PermissionError(f"{event} is not allowed here")
sys.addaudithook(hook)
try:
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
except BaseException as error:
    os.write(2, f"{type(error).__name__}: {error}".encode(errors="replace")[:LAST_WORDS])
    os._exit(1)
os._exit(PASSED)
""".replace("LAST_WORDS", str(_LAST_WORDS)).replace("PASSED", str(_PASSED))

_BUBBLEWRAP = (
    *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"),
    *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--chdir", "/", "--"),
)
_NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid"),
    *("--fork", "--kill-child", "--"),
)
_SYSTEMS = (
    ("bubblewrap (no network, read-only files, own processes)", _BUBBLEWRAP),
    ("namespaces (no network, own processes)", _NAMESPACES),
    ("none of the system's", ()),
)


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. error: what was raised."""

    outcome: Outcome
    error: str = ""


class Sandbox:
    """A place for programs. isolation: the fences that this system has, in words.

    timeout_s: seconds that a program may take, of the clock as of the processor. memory_mib: of
    address space, MiB; only Linux keeps to it.
    """

    def __init__(self, timeout_s: float = 10.0, memory_mib: int = 1024) -> None:
        self.timeout_s, self.memory_mib = timeout_s, memory_mib
        self.isolation, self._prefix = self._choose()

    def run(self, program: str) -> Result:
        """Runs a program to its end, or until its time is up. It passes if nothing is raised."""
        return self._run(program, self._prefix)

    def _choose(self) -> tuple[str, tuple[str, ...]]:
        for name, prefix in _SYSTEMS:
            if prefix and shutil.which(prefix[0]) is None:
                continue
            if self._run("", prefix).outcome == "passed":
                return f"{name}; limits on time, memory and files; audit hook", prefix
        raise OSError("programs can't be run here, not even an empty one")

    def _run(self, program: str, prefix: tuple[str, ...]) -> Result:
        limits = [int(self.timeout_s) + 1, self.memory_mib * 2**20, sys.platform == "linux"]
        # -I: nothing of the environment or of the user's own packages. -B: no .pyc files.
        python = [sys.executable, "-I", "-B", "-c", _CHILD, json.dumps(limits)]
        with tempfile.TemporaryFile() as source:
            source.write(program.encode())
            source.seek(0)
            with subprocess.Popen(
                [*prefix, *python],
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
            ) as child:
                try:
                    # Not read while it runs: a pipe holds what is to be said, and no more.
                    child.wait(self.timeout_s)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    return Result("timeout")
                except BaseException:  # Ctrl-C shall not leave it behind
                    os.killpg(child.pid, signal.SIGKILL)
                    raise
                assert child.stderr is not None
                words = os.read(child.stderr.fileno(), _LAST_WORDS).decode(errors="replace")
                return Result("passed" if child.returncode == _PASSED else "failed", words)
