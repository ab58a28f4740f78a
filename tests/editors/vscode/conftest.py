"""One VS Code for all tests of this folder, which take minutes: `make test-vscode` runs them.

They are skipped where INSTALL_EDITORS is not set, so that no other run waits for them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import install_vscode
import pytest
from install_vscode import CannotInstall, VSCode

if TYPE_CHECKING:
    from code_server import Editor

ROOT = Path(__file__).resolve().parents[3]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing here depends on how fast the machine is."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def vscode() -> VSCode:
    """A VS Code that is installed."""
    if not os.environ.get("INSTALL_EDITORS"):
        pytest.skip("VS Code: `make test-vscode` runs these tests, and installs it")
    try:
        return install_vscode.install()
    except CannotInstall as error:
        if os.environ.get("CI"):
            pytest.fail(f"VS Code {install_vscode.VERSION} is needed here: {error}")
        pytest.skip(f"VS Code {install_vscode.VERSION}: {error}")


@pytest.fixture(scope="session")
def vsix(vscode: VSCode) -> Path:
    """The extension as it is now, packaged."""
    done = subprocess.run(["make", "vsix"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "editors" / "vscode" / "dist" / "diffgemma-lsp.vsix"


# Not for the session: while it is there, no other test can have an event loop of its own.
@pytest.fixture(scope="package")
def editor(
    vscode: VSCode,
    vsix: Path,
    real_engine: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Editor]:
    """The editor, with the extension installed; servers that it starts have an engine apart."""
    from code_server import running

    with running(vscode, tmp_path_factory.mktemp("vscode"), vsix, real_engine) as editor:
        yield editor
