"""Which files may be shown, and that no others are read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.context.secrets import holds_a_secret
from diffgemma_lsp.context.visibility import LARGEST, Files, is_secret
from tests.cases import cases

SECRET = [
    ".env",
    ".env.local",
    ".ENV",
    "prod.env",
    "server.pem",
    "tls.key",
    "id_rsa",
    "id_rsa.pub",
    "ID_ED25519",
    "store.p12",
    "credentials",
    "credentials.json",
    "Credentials.yaml",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "secrets.toml",
    "api_key.txt",
    "passwords.csv",
    ".bash_history",
    "vault_pass.txt",
    "local.settings.json",
    "secret.py",
    "my-credentials.json",
    "terraform.tfstate",
    "prod.tfvars",
    ".git-credentials",
    "token.json",
    "keys.kdbx",
]
HARMLESS = [
    "a.py",
    "environment.py",
    "keyboard.py",
    "token.py",
    "pem.py",
    "README.md",
    "key.py",
    "netrc.py",
    "rsa.py",
]


def test_a_walk_finds_what_is_the_users_own_and_may_be_read(tmp_path: Path) -> None:
    for name in (
        "b.py",
        "a/c.py",
        "a/notes.txt",
        "a/secret.py",
        "built/d.py",
        "kept/e.py",
        "kept/left.py",
        ".hidden/f.py",
        "env/pyvenv.cfg",
        "env/lib/g.py",
        "node_modules/h.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("built/\nleft.py\n")
    (tmp_path / "a" / "link.py").symlink_to(Path(__file__))
    found = Files([tmp_path]).walk((".py",))
    root = tmp_path.resolve()
    assert [p.relative_to(root).as_posix() for p in found] == ["b.py", "a/c.py", "kept/e.py"]


@pytest.mark.parametrize("name", SECRET)
def test_secrets(name: str) -> None:
    assert is_secret(Path("/work") / name)


@pytest.mark.parametrize("name", HARMLESS)
def test_no_secrets(name: str) -> None:
    assert not is_secret(Path("/work/credentials") / name)


@pytest.mark.parametrize("folder", [".ssh", ".aws", ".git", ".GnuPG"])
def test_folders_of_secrets(folder: str) -> None:
    assert is_secret(Path("/work") / folder / "config.py")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def write(path: Path, text: str = "x = 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_read(work: Path) -> None:
    path = write(work / "a" / "b.py", "x = 1\r\n")
    files = Files([work])
    found = files.read(path)
    assert found is not None
    assert found[0] == "x = 1\r\n"
    assert files.shown_name(path) == "a/b.py"


def test_what_is_not_read(work: Path) -> None:
    outside = write(work.parent / "outside.py")
    binary, large = work / "binary.py", work / "large.py"
    binary.write_bytes(b"x = 1\n\0")
    large.write_bytes(b"x = 1\n" * (LARGEST // 6 + 1))
    (work / "latin.py").write_bytes(b"x = '\xe4'\n")
    os.mkfifo(work / "pipe.py")
    (work / "link.py").symlink_to(outside)
    (work / "folder.py").mkdir()
    (work / "linked").symlink_to(work.parent, target_is_directory=True)
    (work / "loop.py").symlink_to(work / "loop.py")
    secret = write(work / "server.pem")
    (work / "harmless.py").symlink_to(secret)
    files = Files([work])
    for path in (
        outside,
        work / ".." / "outside.py",
        work / "linked" / "outside.py",
        work / "missing.py",
        secret,
        *work.glob("*.py"),
    ):
        assert files.read(path) is None, path


def test_without_a_folder_nothing_is_read(work: Path) -> None:
    path = write(work / "a.py")
    assert Files([]).read(path) is None
    assert Files([work / "missing"]).read(path) is None
    assert Files([]).may_show(path)


def test_a_link_within_the_workspace_is_followed(work: Path) -> None:
    write(work / "real.py")
    (work / "link.py").symlink_to(work / "real.py")
    assert Files([work]).read(work / "link.py") is not None


def test_rules_of_the_repository_above_count(work: Path) -> None:
    (work / ".git").mkdir()
    write(work / ".gitignore", "build/\n")
    path = write(work / "part" / "build" / "a.py")
    assert not Files([work / "part"]).may_read(path)
    assert Files([work / "part"]).may_read(write(work / "part" / "a.py"))


def test_rules_that_change_count_at_once(work: Path) -> None:
    path = write(work / "a.py")
    files = Files([work])
    assert files.may_read(path)
    write(work / ".gitignore", "a.py\n")
    assert not files.may_read(path)
    assert not files.may_show(path)
    (work / ".gitignore").unlink()
    assert files.may_read(path)


def test_a_rule_that_makes_no_sense_hides_no_other(work: Path) -> None:
    write(work / ".gitignore", "!\n[z-a\n/\na.py\n")
    assert not Files([work]).may_read(write(work / "a.py"))


names = st.sampled_from(["a", "b", "build", "a.py", "b.py", "x.log"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
patterns = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "!"]),
    st.sampled_from(["", "/", "**/"]),
    st.lists(names | st.sampled_from(["*", "*.py", "?", "b*"]), min_size=1, max_size=2).map(
        "/".join
    ),
    st.sampled_from(["", "/", "/*", "/**"]),
)
rules = st.dictionaries(
    st.sampled_from(
        [".gitignore", "a/.gitignore", "build/.gitignore", ".git/info/exclude", "users"]
    ),
    st.lists(patterns, max_size=4).map("\n".join),
    max_size=3,
)


@pytest.mark.skipif(shutil.which("git") is None, reason="git says what is right")
@cases(40)
@given(rules, st.sets(paths, min_size=1, max_size=6))
def test_git_would_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, rules: dict[str, str], paths: set[str]
) -> None:
    work = tmp_path_factory.mktemp("repository")
    env = {**os.environ, "HOME": str(work)}
    subprocess.run(["git", "init", "-q"], cwd=work, env=env, check=True)
    config = ["git", "config", "core.excludesFile", str(work / "users")]
    subprocess.run(config, cwd=work, env=env, check=True)
    made = [path for path in sorted(paths) if _make(work / path)]
    for name, text in rules.items():
        if _make((work / name).parent / "here"):
            write(work / name, text + "\n")
    said = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=work,
        env=env,
        input="\n".join(made),
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    files = Files([work])
    assert {path for path in made if not files.may_read(work / path)} == set(said)


@pytest.mark.skipif(shutil.which("git") is None, reason="git says where its rules are")
@pytest.mark.parametrize("how", ["configured", "by default", "a worktree's", "started by git"])
def test_what_the_user_ignores_everywhere_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    write(home / ".gitconfig", "[user]\nname = x\nemail = x\n")
    write(work / "scratch.py")
    write(work / "kept.py")
    git = ["git", "-C", str(work)]
    subprocess.run([*git, "init", "-q"], check=True)
    if how == "started by git":
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
        config = ["config", "--file", str(work / ".git" / "config"), "core.excludesFile"]
        write(home / "other", "scratch*\n")
        subprocess.run([*git, *config, str(home / "other")], check=True)
    elif how == "configured":
        write(home / "my ignores", "scratch*\n")
        subprocess.run(
            [*git, "config", "--global", "core.excludesFile", "~/my ignores"], check=True
        )
    elif how == "by default":
        write(home / ".config" / "git" / "ignore", "scratch*\n")
    else:
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        write(work / ".git" / "info" / "exclude", "scratch*\n")
        work = tmp_path / "other"
        subprocess.run([*git, "worktree", "add", "-q", str(work)], check=True)
        write(work / "scratch.py")
        write(work / "kept.py")
    files = Files([work])
    assert not files.may_read(work / "scratch.py")
    assert not files.may_show(work / "scratch.py")
    assert files.may_read(work / "kept.py")


SECRETS = [
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    f'aws = "AKIA{"X1Y2" * 4}"',
    "ghp_" + "a1B2" * 9,
    f"eyJ{'a1b2' * 5}.eyJ{'c3d4' * 9}.{'e5f6' * 8}",
    'API_KEY = "f3a9c1d27b6e4f80a5c2d9e1b7f6a3c4"',
    "{'clientSecret': 'Zm9v1YmFy2cXV4My5jb3JnZTQ1Z3'}",
    "token: str = 'a1b2c3d4e5f6a7b8c9d0e1f2'",
    "SECRET_KEY = 'g5!x2_w8@k1z^9q+3m-7v$4b&6n*0c%j'",
    "export AWS_SECRET_ACCESS_KEY=wJ4lr7Xu1nF3mI5k2MDe8gbP9xRf",
]
PLAIN = [
    "-----BEGIN PUBLIC KEY-----",
    'key = "the_name_of_a_setting_that_is_long"',
    'token = tokens["a1b2c3"]',
    "password_hash = hashlib.sha256(password).hexdigest()",
    "key = make_key(a1, b2, c3, d4, e5, f6, g7, h8)",
    'SECRET_NAME = "projects/secrets/database"',
    "url = 'https://example.org/a/b/c'",
    'commit = "f3a9c1d27b6e4f80a5c2d9e1b7f6a3c4d5e6f708"',
]


@pytest.mark.parametrize("line", SECRETS + PLAIN)
def test_a_secret_is_known_by_what_it_is(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "module.py", f"import os\n\n{line}\n")
    assert (Files([tmp_path]).read(path) is None) == (line in SECRETS)


@pytest.mark.parametrize("start", ["", "x = 1\n", "key = '", "-----BEGIN A"])
@pytest.mark.parametrize(
    "mark", ["PRIVATE KEY-----", "key = '", "= ", "eyJaaaaaaaaaaaa", "sk-\n", ":"]
)
def test_every_form_is_found_behind_anything(start: str, mark: str) -> None:
    text = start + mark * 1_000
    assert not holds_a_secret(text)
    assert all(holds_a_secret(f"{text}\n{line}\n") for line in SECRETS)


def _make(path: Path) -> bool:
    try:
        write(path)
    except OSError:  # a file is where a folder should be, or the other way round
        return False
    return path.is_file()
