// What a preview shows and what accepting it does, without an editor.

import assert from "node:assert/strict";
import { test } from "node:test";

import { draftOf, draw, editedText } from "../src/drawing";
import { editOf, type Hunk, hunksBetween, splitLines } from "../src/hunks";

const at = (line: number, character: number): { line: number; character: number } => ({
  line,
  character,
});

/** The text with the hunks put in, from the last to the first, as an editor does it. */
function applied(text: string, hunks: Hunk[]): string {
  const old = splitLines(text);
  return [...hunks].reverse().reduce((result, hunk) => {
    const { start, end, text: inserted } = editOf(hunk, old);
    const lines = splitLines(result);
    const head = (lines[start.line] ?? "").slice(0, start.character);
    const before = [...lines.slice(0, start.line), head].join("\n");
    const tail = (lines[end.line] ?? "").slice(end.character);
    return before + inserted + [tail, ...lines.slice(end.line + 1)].join("\n");
  }, text);
}

/** All texts of up to four lines out of "a", "b" and the empty one. */
function texts(): string[] {
  const found = [""];
  for (let length = 1; length <= 4; length++) {
    for (let number = 0; number < 3 ** length; number++) {
      const digit = (place: number): number => Math.floor(number / 3 ** place) % 3;
      found.push(Array.from({ length }, (_, place) => ["a", "b", ""][digit(place)]).join("\n"));
    }
  }
  return found;
}

test("all hunks make the new text of the old one, and none leave it", () => {
  for (const old of texts()) {
    for (const now of texts().slice(0, 60)) {
      const hunks = hunksBetween(splitLines(old), splitLines(now));
      assert.equal(applied(old, hunks), now, JSON.stringify([old, now]));
      assert.equal(applied(old, []), old);
    }
  }
});

test("one hunk alone changes its lines and no others", () => {
  const old = "a\nb\nc\nd\n";
  const hunks = hunksBetween(splitLines(old), splitLines("a\nB\nc\nd\ne\n"));
  assert.equal(hunks.length, 2);
  assert.equal(applied(old, hunks.slice(0, 1)), "a\nB\nc\nd\n");
  assert.equal(applied(old, hunks.slice(1)), "a\nb\nc\nd\ne\n");
});

test("a preview has what goes above what comes, and only that of what is left out", () => {
  const old = "a\nb\nc\n";
  const draft = { text: "A\nb\nC\n", doubts: [] };
  assert.equal(draw(old, draft, new Set()).text, "a\nA\nb\nc\nC\n");
  const drawn = draw(old, draft, new Set([0]));
  assert.equal(drawn.text, "a\nb\nc\nC\n");
  assert.deepEqual(
    drawn.hunks.map(({ left, old: first, now, end }) => [left, first, now, end]),
    [
      [true, 0, 1, 1],
      [false, 2, 3, 4],
    ],
  );
});

test("a frame stands in its hole, and what is in doubt is where it is drawn", () => {
  const old = "x = 1\r\ny = 2\r\n";
  const hole = {
    range: { start: at(1, 4), end: at(1, 5) },
    before: "(",
    after: ")",
    pieces: [["é", 1], ["3\r\n", 0.5], ["4", 0.2], [" ", 0.1]] as [string, number][],
  };
  const draft = draftOf(old, [hole]);
  assert.equal(draft.text, "x = 1\ny = (é3\n4 )\n");
  assert.deepEqual(draft.doubts, [
    { start: at(1, 6), end: at(2, 0), certainty: 0.5 },
    { start: at(2, 0), end: at(2, 1), certainty: 0.2 },
  ]);
  const drawn = draw(old, draft, new Set());
  assert.equal(drawn.text, "x = 1\ny = 2\ny = (é3\n4 )\n");
  // One for each line: the second line of the first is empty.
  assert.deepEqual(
    drawn.doubts.map(({ start }) => start),
    [at(2, 6), at(3, 0), at(3, 0)],
  );
  assert.deepEqual(draw(old, draft, new Set([0])).doubts, []);
});

test("an edit is put in at its places, whatever the order and the line ends", () => {
  const textDocument = { uri: "file:///a", version: 1 };
  const edits = [
    { range: { start: at(1, 0), end: at(1, 1) }, newText: "Y\r\nZ" },
    { range: { start: at(0, 1), end: at(0, 1) }, newText: "!" },
  ];
  const result = {
    applied: false,
    message: null,
    edit: { documentChanges: [{ textDocument, edits }] },
  };
  assert.equal(editedText("x\r\ny\r\n", result), "x!\nY\nZ\n");
});
