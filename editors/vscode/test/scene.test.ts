// What can be seen and clicked above a preview, without an editor.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Range } from "vscode";

import { noteOf, sceneOf, type Shown } from "../src/scene";

/** A preview of two changes, at its end. */
function preview(strength: boolean, more: Partial<Shown> = {}): Shown {
  const range = { start: { line: 0, character: 0 } } as Range;
  return {
    order: { title: "", command: "", range, strength },
    text: "a\nb\nc\n",
    strength: 0.6,
    running: false,
    note: "",
    hint: "",
    draft: { text: "A\nb\nC\n", doubts: [] },
    left: new Set(),
    ...more,
  };
}

/** The lenses of the first line, as they are written there. */
function firstLine(shown: Shown): string {
  const titles = sceneOf(shown)
    .lenses.filter(({ line }) => line === 0)
    .map(({ command }) => command.title.replace(/\$\(\w+\)/, "*"));
  return titles.join(" | ");
}

test("the first line is short, though those of the first change stand there as well", () => {
  assert.equal(
    firstLine(preview(true)),
    "* Accept | * Again | * | 60% | * | * Discard | Only this | Leave out",
  );
  assert.equal(
    firstLine(preview(true, { strength: 1, hint: " is all", left: new Set([0]) })),
    "* Accept | * Again | * | 100% is all | * | * Discard | Take it in again",
  );
});

test("more or less change is offered only where a draft can change", () => {
  assert.equal(
    firstLine(preview(false)),
    "* Accept | * Again | * Discard | Only this | Leave out",
  );
});

test("a run says how far it is, once there was a pass", () => {
  const textDocument = { uri: "", version: 1 };
  const frame = { token: null, textDocument, holes: [] };
  assert.equal(noteOf({ ...frame, step: 0, planned: 0 }), "starting");
  assert.equal(noteOf({ ...frame, step: 2, planned: 8 }), "pass 2 of 8");
});
