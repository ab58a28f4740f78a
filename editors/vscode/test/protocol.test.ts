// What is read off the server's status, without an editor.

import assert from "node:assert/strict";
import { test } from "node:test";

import { onlyAsked } from "../src/protocol";

test("where a model only answers is told, as far as it is known", () => {
  const usual = ["python", "css"];
  const mini = { model: "mini", languages: ["python"] };
  assert.equal(onlyAsked(mini, "python", usual), undefined);
  assert.match(onlyAsked(mini, "css", usual) ?? "", /^mini suggests in css only when you ask/);
  assert.equal(onlyAsked({ model: "all", languages: ["*"] }, "markdown", usual), undefined);
  const unknown = { model: null, languages: null };
  assert.equal(onlyAsked(unknown, "css", usual), undefined);
  for (const status of [unknown, undefined]) {
    assert.match(onlyAsked(status, "markdown", usual) ?? "", /^The model may suggest in markdown/);
  }
});
