"""Why there was nothing to show: kept until somebody asks, since nothing shown says nothing.

Kept by document and by method, because an editor asks for several things at every key, and what is
asked for by itself must not hide why what the user asked for came to nothing.
"""

from __future__ import annotations


class Reasons:
    """The last reason of each method in each open document."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = {}

    def open(self, uri: str) -> None:
        """From here on reasons are kept for this document; there are none yet."""
        self._kept[uri] = {}

    def close(self, uri: str) -> None:
        """Forgets the document."""
        self._kept.pop(uri, None)

    def note(self, uri: str, method: str, reason: str | None) -> None:
        """What came of a request: nothing for this reason, or something."""
        # None are kept for what is not open: a client could ask for ever new documents.
        known = self._kept.get(uri)
        if known is None:
            return
        if reason is None:
            known.pop(method, None)
        else:
            known[method] = reason

    def of(self, uri: str) -> dict[str, str]:
        """Why each method last came to nothing, for those of which the last request did."""
        return dict(self._kept.get(uri, {}))
