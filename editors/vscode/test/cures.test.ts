// What is offered beside a message: nothing that is no cure.

import assert from "node:assert/strict";
import { test } from "node:test";

import { settingsFor, waysOut } from "../src/cures";

test("settings are offered where they are the cure, and those that are", () => {
  for (const [message, expected] of [
    ["diffgemma-lsp: max_tokens: expected a number, got 'many'; using 32", "maxTokens"],
    ["model: only initializationOptions set it; it is ignored", "model"],
    ["languages['python'].seed: expected a number, got 'x'; it is ignored", "languages"],
    ["suggestions are turned off (setting enable)", "enable"],
    ["it has nothing in time (settings automatic_budget_ms and more)", "automaticBudgetMs"],
    ["no model at /nowhere: config.json can't be read", "model"],
    ["the model doesn't fit into memory: raise the limit (ulimit -v) on it", "model"],
    ["the engine at https://gpu can't be reached (refused): look whether it runs", "engineUrl"],
    ["the token in /x can't be read: No such file or directory", "engineTokenFile"],
    ["'gpu' is no device: name cuda, mps or cpu, or leave it out", "device"],
  ] as const) {
    assert.equal(settingsFor(message), `@id:diffgemma.${expected}`, message);
  }
});

test("settings are not offered where another thing is the cure", () => {
  for (const message of [
    "diffgemma-lsp: others can read /home/me/.config/diffgemma.token: chmod 600 it",
    "others can enter /run/x: chmod 700 it or set DIFFGEMMA_LSP_RUNTIME_DIR",
    "the base of mini is not here: diffgemma-lsp pull mini",
    "the engine can't be imported (torch): install the package again",
    "internal error (ValueError): please report it",
    "the engine was stopped: ask again to start it",
  ]) {
    assert.equal(settingsFor(message), undefined, message);
  }
});

test("the path is offered where it may be wrong", () => {
  assert.deepEqual(waysOut("There is no program at /x. Set diffgemma.server.path to it."), [
    "Set the Path",
    "How to Install",
    "Try Again",
    "Show Output",
  ]);
  assert.deepEqual(waysOut("/x may not be run: chmod +x it, and try again."), [
    "Try Again",
    "Show Output",
  ]);
});
