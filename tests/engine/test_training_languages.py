"""The training corpus in languages other than Python: licences, paths, texts."""

from __future__ import annotations

import json

import pytest

from engine.training import languages
from engine.training.licences import (
    DebianCopyright,
    header_forbids,
    is_permissive,
    npm_licence,
    python_licence,
)

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: thing

Files: *
Copyright: 2020 Somebody
License: Expat

Files: m4/*.m4 src/a?.c
 tools/
Copyright: 2020 Somebody else
License: GPL-2+ with autoconf exception

Files: debian/*
Copyright: 2020 A packager
License: GPL-3+

License: Expat
 Permission is hereby granted, free of charge
 .
 THE SOFTWARE IS PROVIDED "AS IS"
"""


def code(seed: str, lines: int = 30) -> str:
    """JavaScript that is like no other seed's."""
    return "".join(f"function {seed}{i}(a) {{\n  return a.{seed}[{i}];\n}}\n" for i in range(lines))


# Licences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "Expat or Apache-2.0",
        "MIT/Apache-2.0",
        "MIT/X11",
        "(MIT OR GPL-2.0) AND ISC",
        "GPL-2 or BSD-2-clause",
        "Expat, and BSD-3-clause",
        "Apache-2.0 with LLVM-exception",
        "Apache License, Version 2.0",
        "Zlib OR Apache-2.0 OR MIT",
        "Unlicense or MIT",
        "MIT; MIT License",
        "BSD-3-clause-Google",
        "0BSD",
    ],
)
def test_permissive(expression: str) -> None:
    assert is_permissive(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "GPL-2+",
        "LGPL-2.1",
        "MPL-2.0",
        "BSD-4-clause",
        "MIT AND",
        "(MIT",
        "MIT)",
        "MIT AND GPL-2.0",
        "BSD-3-clause, and GPL-2+",
        "Expat or GPL-2+, and LGPL-2.1",
        "CC-BY-SA-4.0",
        "UNLICENSED",
        "SEE LICENSE IN LICENSE.txt",
        "Apache-2.0-with-something",
        "permitted",
    ],
)
def test_not_permissive(expression: str) -> None:
    assert not is_permissive(expression)


def test_what_a_file_says_of_itself() -> None:
    assert not header_forbids(
        "// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later\nint a;\n"
    )
    assert not header_forbids("<!-- SPDX-License-Identifier: MIT -->\n")
    assert header_forbids("/* SPDX-License-Identifier: GPL-2.0 */\nint a;\n")
    assert header_forbids("# under the terms of the GNU Lesser\n# General Public License\n")
    assert not header_forbids("/* Permission is hereby granted, free of charge */\n")


@pytest.mark.parametrize(
    ("manifest", "licence"),
    [
        ({"license": "MIT"}, "MIT"),
        ({"license": {"type": "ISC", "url": "x"}}, "ISC"),
        ({"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}, "MIT OR GPL-2.0"),
        ({}, ""),
    ],
)
def test_npm_licence(manifest: dict[str, object], licence: str) -> None:
    assert npm_licence(json.dumps(manifest).encode()) == licence


def test_python_licence() -> None:
    assert python_licence(b"Name: a\nLicense-Expression: MIT OR Apache-2.0\n\n") == (
        "MIT OR Apache-2.0"
    )
    classifier = b"Name: a\nClassifier: License :: OSI Approved :: BSD License\n\n"
    assert python_licence(classifier) == "BSD License"


def test_debian_copyright_by_file() -> None:
    book = DebianCopyright(COPYRIGHT)
    assert book.licence_of("src/main.c") == "Expat"
    for path in ("src/ab.c", "m4/deep/x.m4", "tools/run.sh"):
        assert book.licence_of(path) == "GPL-2+ with autoconf exception"
    assert book.licence_of("debian/rules") == "GPL-3+"
    assert book.licences() == ["Expat", "GPL-2+ with autoconf exception"]
    assert not DebianCopyright("It was downloaded from somewhere.\n\nLicense: MIT\n")


# Languages and paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("lib/a.mjs", "javascript"),
        ("src/a.tsx", "typescriptreact"),
        ("src/a.d.ts", "typescript"),
        ("include/a.h", "c"),
        ("a/b.hpp", "cpp"),
        (".github/workflows/ci.yml", "yaml"),
        ("bin/run", "?"),
        (".bashrc", "?"),
        ("a.py", None),
        ("a.png", None),
    ],
)
def test_language_of(path: str, language: str | None) -> None:
    assert languages.language_of(path) == language


def test_refined() -> None:
    assert languages.refined("?", "#!/usr/bin/env bash\necho\n") == "shellscript"
    assert languages.refined("?", "#!/usr/bin/env python3\n") is None
    assert languages.refined("c", "#include <stdio.h>\nint a(void);\n") == "c"
    assert languages.refined("c", "namespace a {\nint b();\n}\n") == "cpp"
    assert languages.refined("c", "@interface A : B\n@end\n") is None
    assert languages.refined("typescript", '<?xml version="1.0"?>\n<TS></TS>') is None


@pytest.mark.parametrize(
    "path",
    [
        "node_modules/a/index.js",
        "src/third_party/zlib/zlib.h",
        "dist/a.js",
        "a.min.js",
        "package-lock.json",
        "build/x/libtool",
        "api.pb.go",
        "LICENSE.md",
        "test/fixtures/a.json",
        "zz_generated.deepcopy.go",
    ],
)
def test_unwanted_paths(path: str) -> None:
    assert not languages.wanted_path(path)


@pytest.mark.parametrize(
    "path", ["src/a.ts", "dist/css/a.css", "package.json", "cmd/a_test.go", "install"]
)
def test_wanted_paths(path: str) -> None:
    assert languages.wanted_path(path)


def test_kept_share() -> None:
    assert languages.kept_share("src/a.ts") == 1
    for path in ("a.d.ts", "CHANGELOG.md", "a_test.go", "src/FooTest.java", "spec/a.js"):
        assert languages.kept_share(path) < 1
    assert languages.kept_share("src/latest.ts") == 1


def test_rejection() -> None:
    assert languages.rejection("javascript", code("a")) is None
    assert languages.rejection("javascript", code("a") + "//# sourceMappingURL=a.map\n") == (
        "compiled"
    )
    prose = "".join(f"Paragraph {i}: " + "some words " * 60 + "\n\n" for i in range(6))
    assert languages.rejection("markdown", prose) is None
    assert languages.rejection("javascript", prose) == "minified"
    assert languages.rejection("json", '{"key": "value"}\n' * 3_000) == "too long"
    assert languages.rejection("c", "/* A Bison parser, made by GNU Bison 3. */\n" + code("a")) == (
        "generated"
    )


def test_licence_headers_go_and_other_comments_stay() -> None:
    text = "/* $Id$ */\n\n/*\n * Copyright 2020 A\n */\n\n/* A list. */\nint a;\n"
    assert languages.strip_licence_header("c", text) == "/* A list. */\nint a;\n"
    plain = "// What it does.\nint a;\n"
    assert languages.strip_licence_header("c", plain) == plain
    shell = "#!/bin/sh\n# SPDX-License-Identifier: MIT\necho\n"
    assert languages.strip_licence_header("shellscript", shell) == "#!/bin/sh\necho\n"
    page = "<!--\nLicensed under MIT\n-->\n<html>\n"
    assert languages.strip_licence_header("html", page) == "<html>\n"
