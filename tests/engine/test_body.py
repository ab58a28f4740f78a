"""Where a body belongs."""

from __future__ import annotations

import pytest

from engine.text.body import in_an_empty_body


@pytest.mark.parametrize(
    ("before", "after", "empty"),
    [
        ("def f(x):\n    ", "\n\n\ndef g():\n", True),
        ("def f(x):", "\n", True),
        ("def f(x):\n    ", "", True),
        ("function f(a) {\n  ", "\n}\n", True),
        ("    if x:\n        ", "\n    else:\n        pass\n", True),
        ("def f(x):\n    ", "\n    return x\n", False),
        ("def f(x):\n    y = 1\n    ", "\n\n\ndef g():\n", False),
        ("def f(x):\n    ", "return x\n", False),
        ("x = {'a': ", "}\n", False),
        ("", "", False),
        ('def f(x):\n    """Adds."""\n    ', "\n\n\ndef g():\n", True),
        ('def f(x):\n    """Adds.\n\n    All of it.\n    """\n\n    ', "\n", True),
        ("def f(x):\n    # adds one\n    # and one more\n    ", "\nx = 1\n", True),
        ('def f(x):\n    # adds\n    """Adds."""\n    # and so on\n    ', "\n", True),
        ("function f(a) {\n  // adds\n  ", "\n}\n", True),
        ('def f(x):\n    y = """Adds."""\n    ', "\n", False),
        ('y = 1\n"""Adds."""\n', "\n", False),
        ('def f(x):\n    """Adds.', '"""\n', False),
        ('"""', "\n", False),
        ("# adds\n", "\n", False),
    ],
)
def test_where_a_body_is_empty(before: str, after: str, empty: bool) -> None:
    assert in_an_empty_body(before, after) is empty
