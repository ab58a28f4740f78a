"""A session in a namespace without a network: it works, is counted, and tries to send nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALONE = ("unshare", "--map-root-user", "--net")


@pytest.mark.timeout(300)
def test_a_session_works_is_counted_and_sends_nothing(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespaces for this user: {tried.stderr.strip()}")
    # Not below pytest's own directory: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="dgtest-") as folder:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "DIFFGEMMA_LSP_RUNTIME_DIR": folder}
        env |= {"XDG_STATE_HOME": str(tmp_path), "OMP_WAIT_POLICY": "passive"}
        session = [*ALONE, sys.executable, str(Path(__file__).with_name("offline_session.py"))]
        done = subprocess.run(session, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (row,) = told["stats"]["counts"]
    assert row["language"] == "python"
    assert {name: row[name] for name in ("shown", "accepted")} == {"shown": 1, "accepted": 1}
    assert told["status"] == {name: row[name] for name in ("shown", "accepted", "characters")}
    assert told["lost"] == 0
    assert told["lost_then"] > 0, "one that is tried is seen"
