"""Sets up .venv with the project in it, and brings the base of mini onto this machine; with the
argument `dev` the tools that test and check it come, too. Needs nothing but Python 3.

Shows one line of progress while pip works, and all that pip said only if it fails. It is parsed by
the Python that the user happens to have, so that an old one gets a message and not a traceback.
"""

import os
import platform
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
LEAST = (3, 11)
INTERRUPTED = 130
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
NVIDIA = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/nvidia-smi")


def main():
    if sys.version_info < LEAST:
        have = ".".join(map(str, sys.version_info[:2]))
        return fail(
            "Python 3.11 or newer is needed, and this is "
            + have
            + ". Try: make PYTHON=python3.12 ..."
        )
    python = os.path.join(VENV, "bin", "python")
    if not os.path.exists(python):
        try:
            import ensurepip  # noqa: F401  (Debian splits it off, and venv needs it)
        except ImportError:
            return fail("this Python can't make virtual environments: install python3-venv")
        say("Setting up .venv (PyTorch is large: 1.2 GB on disk, once; with CUDA about 6)")
        code, output = follow([sys.executable, "-m", "venv", VENV])
        if code:
            return fail("python -m venv failed", output)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    # Dependency groups need pip 25.1; what comes with Python may be older.
    project = ["--editable", ROOT] + (["--group", "dev"] if "dev" in sys.argv[1:] else [])
    for arguments in (["--upgrade", "pip>=25.1"], project + builds(python)):
        code, output = follow(pip + arguments)
        if code:
            return fail("pip failed", output)
    say("Set up: .venv")
    pull(python)
    return 0


def builds(python):
    """Where pip looks for PyTorch as well: what PyPI has for Linux brings gigabytes of CUDA along,
    which serves nobody without NVIDIA's driver. An index of the user's own is left alone."""
    if platform.system() != "Linux" or any(map(os.path.exists, NVIDIA)):
        return []
    code, configured = follow([python, "-m", "pip", "config", "list"])
    if code or "index-url" in configured or "PIP_INDEX_URL" in os.environ:
        return []
    import urllib.request  # here, since a Python 2 has none

    try:
        urllib.request.urlopen(CPU_BUILDS + "/torch/", timeout=5).close()
    except OSError:
        return []
    return ["--extra-index-url", CPU_BUILDS]


def pull(python):
    """Brings the base of mini, once. Without it nano serves, so that no failure ends the setup."""
    process = subprocess.Popen(
        [python, "-m", "diffgemma_lsp", "pull", "mini"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    told = process.stderr.read().strip()
    if process.wait() == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        why = told.split("\n")[-1].replace("diffgemma-lsp: ", "", 1)
        say("nano serves instead of mini, whose base is not here: " + why)


def follow(command):
    """Runs the command in the root; its current line is shown on a terminal, all is returned."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        show(line.strip())
    show("")
    return process.wait(), "".join(lines)


def show(text):
    """Replaces the line of progress; where there is no terminal, only milestones are printed."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r\033[K" + text[:width])
        sys.stdout.flush()
    elif text.startswith("Installing collected") or (
        text.startswith("Downloading") and "MB" in text
    ):
        say("  " + text[:76])


def say(text):
    """Prints a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(message, output=""):
    """Says what is wrong, after the output that shows it."""
    sys.stderr.write(output)
    sys.stderr.write("setup: " + message + "\n")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
