// What differs between two versions of a line, without an editor.

import assert from "node:assert/strict";
import { test } from "node:test";

import { type WordChange, wordChanges } from "../src/words";

/** The line with the changes put in, from the last to the first, as an editor does it. */
function applied(line: string, changes: WordChange[]): string {
  return [...changes]
    .reverse()
    .reduce((found, { start, end, text }) => found.slice(0, start) + text + found.slice(end), line);
}

/** All lines of up to four parts. */
function lines(): string[] {
  const parts = ["a", "bc", " ", "(", "né"];
  let found = [""];
  for (let length = 1; length <= 4; length++) {
    found = [...new Set(["", ...found.flatMap((line) => parts.map((part) => line + part))])];
  }
  return found;
}

test("the changes make the new line of the old one, none overlaps, and none is for nothing", () => {
  const all = lines();
  for (const old of all.filter((_, number) => number % 7 === 0)) {
    for (const now of all.filter((_, number) => number % 11 === 0)) {
      const changes = wordChanges(old, now);
      assert.equal(applied(old, changes), now, JSON.stringify([old, now]));
      for (const [number, { start, end, text }] of changes.entries()) {
        assert.ok(start > (changes[number - 1]?.end ?? -1) && start <= end);
        assert.notEqual(old.slice(start, end), text);
      }
    }
  }
});

test("a renamed name is a change at each of its places, and of whole words", () => {
  assert.deepEqual(wordChanges("return width * widths + width", "return side * widths + side"), [
    { start: 7, end: 12, text: "side" },
    { start: 24, end: 29, text: "side" },
  ]);
  assert.deepEqual(wordChanges("größe = 1", "größer = 1"), [{ start: 0, end: 5, text: "größer" }]);
  assert.deepEqual(wordChanges("f(a)", "f(a, b)"), [{ start: 3, end: 3, text: ", b" }]);
  assert.deepEqual(wordChanges("f(a, 😀)", "f(a)"), [{ start: 3, end: 7, text: "" }]);
});
