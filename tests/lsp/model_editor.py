"""An editor as simple as it can be. It asks for all that there is and checks all that it gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Literal

from buffers import Asked, Buffer, Holds, Order, difference
from lsp_client import LspClient, RpcError, completion, did_change, did_close, did_open, position
from naive import naive_position

CANCELLED = -32800
Refuses = Literal["strict", "silent"]
"""What an editor does with an edit of another version: it says no (VS Code), or skips it and says
that it was applied (Neovim)."""


class Editor:
    """Sends what the user does, and looks at what comes back."""

    def __init__(
        self,
        client: LspClient,
        encoding: str,
        buffers: list[Buffer],
        refuses: Refuses,
        languages: tuple[str, ...] | None = None,
    ) -> None:
        self.client, self.encoding, self.buffers, self.refuses = client, encoding, buffers, refuses
        self.languages = languages
        """Those that the model knows; None for all."""
        self.settings: dict[str, Any] = {}
        self.configured = 0
        self.jump = 1
        """By how much a change raises the version; it may be more than one."""
        self.outbox: list[dict[str, Any]] = []
        self.pending: list[asyncio.Future[Any]] = []
        self.cancelled: set[asyncio.Future[Any]] = set()
        self.orders: list[Order] = []
        self.actions: list[tuple[Buffer, int, tuple[int, int], dict[str, Any]]] = []
        self.progress: dict[str, list[str]] = {}
        self.applied: Counter[str] = Counter()
        """Edits that the server had applied, by document."""
        self.said: Counter[str] = Counter()
        """Orders of which it said that they were."""
        self.failures: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.failures.append(context))
        client.replies["workspace/applyEdit"] = self.apply
        client.replies["window/workDoneProgress/create"] = lambda params: None
        client.heard["$/progress"] = self.note_progress

    # ---- what is sent ----

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message with the next flush."""
        self.outbox.append(message)

    def flush(self) -> None:
        """Sends what waits, in one write."""
        messages, self.outbox = self.outbox, []
        if messages:
            self.client.send(*messages)

    def ask(self, method: str, params: Any) -> asyncio.Future[Any]:
        """Sends a request."""
        message, answer = self.client.asking(method, params)
        self.send(message)
        self.pending.append(answer)
        return answer

    def holds(self, buffer: Buffer) -> Holds:
        """What holds for a buffer by now."""
        return Holds.of(buffer, self.settings, self.languages)

    def place(self, buffer: Buffer, offset: int) -> dict[str, int]:
        return position(*naive_position(buffer.text, offset, self.encoding))

    def span(self, buffer: Buffer, start: int, end: int) -> dict[str, Any]:
        return {"start": self.place(buffer, start), "end": self.place(buffer, end)}

    # ---- what the user does ----

    def open(self, buffer: Buffer) -> None:
        buffer.open, buffer.version, buffer.last = True, buffer.version + 1, None
        self.send(did_open(buffer.uri, buffer.text, buffer.version, buffer.language))

    def close(self, buffer: Buffer) -> None:
        buffer.open = False
        for order in buffer.orders:
            order.touched = True
        self.disturb(buffer)
        self.send(did_close(buffer.uri))

    def speak(self, buffer: Buffer, language: str) -> None:
        """Has a buffer be of another language: it is closed and opened anew."""
        if buffer.open:
            self.close(buffer)
            buffer.language = language
            self.open(buffer)
        else:
            buffer.language = language

    def edit(self, buffer: Buffer, *changes: tuple[int, int, str], whole: bool = False) -> None:
        """Changes a buffer, one change after the other, and tells the server at once."""
        buffer.undo.append(buffer.text)
        buffer.redo.clear()
        self._change(buffer, changes, whole)

    def undo(self, buffer: Buffer, again: bool) -> None:
        """Undoes a change, or what was undone."""
        source, target = (buffer.redo, buffer.undo) if again else (buffer.undo, buffer.redo)
        if source:
            target.append(buffer.text)
            self._change(buffer, [difference(buffer.text, source.pop())], whole=False)

    def _change(self, buffer: Buffer, changes: Any, whole: bool) -> None:
        self.disturb(buffer)
        told: list[dict[str, Any]] = []
        for start, end, text in changes:
            told.append({"range": self.span(buffer, start, end), "text": text})
            if whole:
                new = buffer.text[:start] + text + buffer.text[end:]
                start, end, text = difference(buffer.text, new, whole=True)
            buffer.replace(start, end, text)
        buffer.version += self.jump
        told = [{"text": buffer.text}] if whole else told
        self.send(did_change(buffer.uri, buffer.version, *told))

    def complete(self, buffer: Buffer, cursor: int, kind: int | None) -> None:
        """Asks for a suggestion; without a kind, by textDocument/completion."""
        automatic = kind != 1
        self.disturb(buffer, invoked_too=not automatic)
        place = self.place(buffer, cursor)
        method, params = completion(buffer.uri, *place.values(), kind or 1)
        if kind is None:
            method = "textDocument/completion"
        answer = self.ask(method, params)
        holds = [self.holds(buffer)]
        buffer.asked.append(Asked(buffer, cursor, automatic, holds, self.encoding, answer))

    def accept(self, buffer: Buffer, size: int | None) -> None:
        """Takes the last suggestion, or types so many characters of it, as long as it is fresh."""
        for asked in reversed(buffer.asked):
            answer = asked.answer
            if asked.version != buffer.version or not buffer.open:
                return
            if answer.done() and not answer.exception() and (text := asked.check(answer.result())):
                lead = len(asked.lead) if size is None else 0
                written = asked.lead + text if size is None else text[:size]
                self.edit(buffer, (asked.cursor - lead, asked.cursor, written))
                return

    def seek(self, buffer: Buffer, start: int, end: int) -> None:
        """Asks what can be done at a selection."""
        where = self.span(buffer, start, end)
        params = {"textDocument": {"uri": buffer.uri}, "range": where}
        answer = self.ask("textDocument/codeAction", {**params, "context": {"diagnostics": []}})
        version, known = buffer.version, buffer.open and self.holds(buffer).enable
        configured = self.configured

        def note(answer: asyncio.Future[Any]) -> None:
            if not answer.cancelled() and not answer.exception():
                # What is not done yet when settings change may be so by either.
                assert known or self.configured > configured or not answer.result()
                found = ((buffer, version, (start, end), one) for one in answer.result())
                self.actions += found

        answer.add_done_callback(note)

    def choose(self, share: float) -> None:
        """Chooses one of the actions that were offered last."""
        if not self.actions:
            return
        buffer, version, (start, end), action = self.actions[round(share * (len(self.actions) - 1))]
        self.actions.clear()
        fresh = buffer.open and buffer.version == version
        self.begin_order(buffer)
        answer = self.ask("codeAction/resolve", action)
        kind, holds = action["data"]["action"], self.holds(buffer)
        if kind in ("rewrite", "fill", "holes"):
            order = Order.of(buffer, start, end, kind, holds, answer)
        else:  # what else there is stands somewhere around the selection
            order = Order.of(buffer, 0, len(buffer.text), "", holds, answer)
        order.touched = order.touched or not fresh
        self.orders.append(order)

        def take(answer: asyncio.Future[Any]) -> None:
            if not answer.exception() and (edit := answer.result().get("edit")):
                self.take(order, edit)

        answer.add_done_callback(take)

    def execute(self, buffer: Buffer, start: int, end: int, apply: bool) -> None:
        """Has a selection rewritten, or something filled in where there is none."""
        kind = "rewrite" if buffer.text[start:end].strip() else "fill"
        argument = {
            "textDocument": {"uri": buffer.uri},
            "range": self.span(buffer, start, end),
            "apply": apply,
        }
        params = {"command": f"diffgemma.{kind}", "arguments": [argument]}
        self.begin_order(buffer)
        answer = self.ask("workspace/executeCommand", params)
        order = Order.of(buffer, start, end, kind, self.holds(buffer), answer)
        self.orders.append(order)

        def check(answer: asyncio.Future[Any]) -> None:
            if answer.exception():
                return
            result = answer.result()
            assert bool(result["message"]) != (result["applied"] or result["edit"] is not None)
            self.said[buffer.uri] += result["applied"]
            if result["edit"] is not None:
                self.take(order, result["edit"])

        answer.add_done_callback(check)

    def begin_order(self, buffer: Buffer) -> None:
        for asked in buffer.asked:
            asked.undisturbed = asked.undisturbed and not asked.automatic

    def withdraw(self, share: float) -> None:
        """Withdraws a request, done or not."""
        if self.pending:
            answer = self.pending[round(share * (len(self.pending) - 1))]
            self.cancelled.add(answer)
            for buffer in self.buffers:
                for asked in buffer.asked:
                    asked.undisturbed = asked.undisturbed and asked.answer is not answer
            self.flush()
            self.client.cancel(answer)

    def stop(self) -> None:
        """Ends a piece of work where its progress is shown."""
        for token, said in self.progress.items():
            if said[-1] != "end":
                self.send(_notification("window/workDoneProgress/cancel", {"token": token}))
                return

    def configure(self, settings: dict[str, Any]) -> None:
        """Has other settings hold; those of before are forgotten."""
        self.settings = settings
        self.configured += 1
        for buffer in self.buffers:
            self.disturb(buffer)
            for asked in buffer.asked:  # what is not done yet may be so by either
                if not asked.answer.done():
                    asked.holds.append(self.holds(buffer))
        pushed = {"settings": {"diffgemma": settings}}
        self.send(_notification("workspace/didChangeConfiguration", pushed))

    def disturb(self, buffer: Buffer, invoked_too: bool = True) -> None:
        for asked in buffer.asked:
            if asked.automatic or invoked_too:
                asked.undisturbed = False

    # ---- what the server wants ----

    def apply(self, params: Any) -> dict[str, Any]:
        """workspace/applyEdit."""
        edit = params["edit"]
        target = edit["documentChanges"][0]["textDocument"]
        (buffer,) = [one for one in self.buffers if one.uri == target["uri"]]
        done = buffer.open and target["version"] == buffer.version
        if done:
            # The request does not say for which order it is, so it must be right for one of them.
            waiting = [one for one in self.orders if one.buffer is buffer and not one.answer.done()]
            order = next((one for one in waiting if self._fits(one, edit)), None)
            if order is None:
                self.failures.append(f"an edit that fits no order: {edit}")
            else:
                self.take(order, edit)
                self.applied[buffer.uri] += 1
        self.flush()  # as editors do before they answer
        if done or self.refuses == "silent":
            return {"applied": True}
        return {"applied": False, "failureReason": "the document has changed"}

    def _fits(self, order: Order, edit: dict[str, Any]) -> bool:
        try:
            return order.changes(edit, self.encoding) is not None
        except AssertionError:
            return False

    def take(self, order: Order, edit: dict[str, Any]) -> None:
        """Applies an edit if it is of the buffer's version."""
        changes = order.changes(edit, self.encoding)
        if changes is not None:
            self.edit(order.buffer, *changes)

    def note_progress(self, params: Any) -> None:
        """$/progress: it begins, goes on and ends."""
        said = self.progress.setdefault(params["token"], [])
        kind = params["value"]["kind"]
        if (kind == "begin") != (not said) or "end" in said:
            self.failures.append(f"progress: {kind} after {said}")
        said.append(kind)

    # ---- the end ----

    async def settle(self) -> None:
        """Waits for all answers and looks at them."""
        self.flush()
        outcomes = await asyncio.wait_for(asyncio.gather(*self.pending, return_exceptions=True), 60)
        for answer, outcome in zip(self.pending, outcomes, strict=True):
            if isinstance(outcome, RpcError):
                assert answer in self.cancelled
                assert outcome.code == CANCELLED, outcome
            else:
                assert not isinstance(outcome, BaseException), outcome
        for buffer in self.buffers:
            for asked in buffer.asked:
                if not asked.answer.exception():
                    asked.check(asked.answer.result())
            buffer.asked.clear()
            buffer.orders.clear()
        await asyncio.sleep(0.001)
        self.flush()  # what the last answers changed
        assert self.failures == [], self.failures
        assert all(said[-1] == "end" for said in self.progress.values())
        if self.refuses == "strict" and not self.cancelled:
            assert +self.said == +self.applied
        for known in (self.pending, self.orders, self.actions, self.cancelled, self.progress):
            known.clear()
        self.said.clear()
        self.applied.clear()
        for shown in self.client.shown:
            assert shown["type"] == 3, shown
        self.client.shown.clear()
        assert self.client.unexpected == []


def _notification(method: str, params: Any) -> dict[str, Any]:
    return {"method": method, "params": params}
