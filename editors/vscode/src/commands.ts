// What the user can ask for by name.

import { commands, type Disposable, Range, type TextEditor, window } from "vscode";

import { showMenu, statusOf } from "./menu";
import type { NextEdits } from "./nextEdit";
import type { Previews } from "./preview";
import { onlyAsked } from "./protocol";
import type { Server } from "./server";
import * as settings from "./settings";

export function registerCommands(
  server: Server,
  previews: Previews,
  nextEdits: NextEdits,
): Disposable[] {
  const table: Record<string, (argument?: number) => unknown> = {
    menu: () => showMenu(server),
    suggest: () => suggest(server),
    rewriteSelection: () => rewriteSelection(server, previews),
    fillHoles: () => fillHoles(server, previews),
    nextEdit: () => nextEdits.go(),
    "nextEdit.tab": () => nextEdits.tab(),
    "nextEdit.refuse": () => nextEdits.refuse(),
    "nextEdit.hide": () => {
      nextEdits.hide();
    },
    toggle: () => settings.turnAll(!settings.isOn()),
    toggleLanguage: () => toggleLanguage(server),
    toggleFolder: () => toggleFolder(),
    freeMemory: () => freeMemory(server),
    restart: () => server.restart(),
    showOutput: () => {
      server.output.show();
    },
    openSettings: () => settings.show(settings.THE_EXTENSION),
    help: () => server.showReadme(),
    "preview.accept": () => previews.accept(),
    "preview.acceptOne": (number) =>
      number === undefined ? previews.acceptAtCursor() : previews.accept(number),
    "preview.toggle": (number) => {
      previews.toggle(number);
    },
    "preview.again": () => previews.again(),
    "preview.more": () => previews.more(),
    "preview.less": () => previews.less(),
    "preview.discard": () => previews.discard(),
  };
  return Object.entries(table).map(([name, run]) =>
    commands.registerCommand(`diffgemma.${name}`, run),
  );
}

/** The editor at hand, if the server gets to see its document; else tells the user why not. */
function served(server: Server): TextEditor | undefined {
  const editor = window.activeTextEditor;
  if (editor === undefined) {
    void window.showInformationMessage("Diffgemma: open a file first.");
    return undefined;
  }
  if (!server.serves(editor.document)) {
    void window.showInformationMessage(
      `Diffgemma: ${editor.document.languageId} is not among the languages of the setting ` +
        "diffgemma.server.languages.",
    );
    return undefined;
  }
  return editor;
}

async function suggest(server: Server): Promise<void> {
  if (served(server) !== undefined && (await server.needed()) !== undefined) {
    await commands.executeCommand("editor.action.inlineSuggest.trigger");
  }
}

async function rewriteSelection(server: Server, previews: Previews): Promise<void> {
  const editor = served(server);
  if (editor === undefined) {
    return;
  }
  const range = new Range(editor.selection.start, editor.selection.end);
  if (range.isEmpty) {
    void window.showInformationMessage("Diffgemma: select what is to be rewritten first.");
    return;
  }
  if ((await server.needed()) === undefined) {
    return;
  }
  const status = await statusOf(server);
  const follows = status?.can.includes("instruct") ?? false;
  const model = status?.model ?? "this model";
  const instruction = await window.showInputBox({
    title: "Rewrite selection",
    prompt: follows
      ? "What to change. Leave it empty to have it written anew."
      : `${model} follows no instructions: leave this empty, and press Enter.`,
    placeHolder: follows ? "e.g. handle an empty list" : "press Enter",
    validateInput: (text) =>
      follows || text.trim() === "" ? null : `${model} follows no instructions`,
  });
  if (instruction === undefined) {
    return;
  }
  const order = { title: "Rewrite selection", command: "diffgemma.rewrite", range, strength: true };
  const told = instruction.trim();
  await previews.begin(editor, told === "" ? order : { ...order, instruction: told });
}

async function fillHoles(server: Server, previews: Previews): Promise<void> {
  const editor = served(server);
  if (editor === undefined || (await server.needed()) === undefined) {
    return;
  }
  const { document, selection } = editor;
  const whole = new Range(0, 0, document.lineCount, 0);
  const range = selection.isEmpty ? document.validateRange(whole) : selection;
  const order = { title: "Fill all holes", command: "diffgemma.holes", range, strength: false };
  await previews.begin(editor, order);
}

async function toggleLanguage(server: Server): Promise<void> {
  const language = window.activeTextEditor?.document.languageId;
  if (language === undefined) {
    void window.showInformationMessage("Diffgemma: open a file of the language first.");
    return;
  }
  const on = !settings.isOnForLanguage(language);
  const usual = settings.usualLanguages();
  const limits = on ? onlyAsked(await statusOf(server), language, usual) : undefined;
  await settings.turnLanguage(language, on);
  if (limits !== undefined) {
    void window.showInformationMessage(`Diffgemma: it is on. ${limits}.`);
  }
}

async function toggleFolder(): Promise<void> {
  const document = window.activeTextEditor?.document;
  if (document === undefined) {
    void window.showInformationMessage("Diffgemma: open a file of the folder first.");
    return;
  }
  await settings.turnFolder(document, !settings.isOnInFolder(document));
}

async function freeMemory(server: Server): Promise<void> {
  if ((await server.needed()) === undefined) {
    return;
  }
  const result = await commands.executeCommand<{ message: string | null } | undefined>(
    "diffgemma.unload",
  );
  void window.showInformationMessage(`Diffgemma: ${result?.message ?? "the memory is free"}.`);
}
