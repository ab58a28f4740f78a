// The menu of the status bar item: how it is doing, and what can be done.

import { commands, type QuickPickItem, QuickPickItemKind, window, workspace } from "vscode";

import { type FullStatus, onlyAsked, STATUS } from "./protocol";
import type { Server } from "./server";
import { isOn, isOnForLanguage, isOnInFolder, usualLanguages, whyOff } from "./settings";

interface Entry extends QuickPickItem {
  command?: string;
}

export async function showMenu(server: Server): Promise<void> {
  const status = await statusOf(server);
  const chosen = await window.showQuickPick(entries(status), {
    title: title(server, status),
    placeHolder: "What to do",
    matchOnDetail: true,
  });
  if (chosen?.command !== undefined) {
    await commands.executeCommand(chosen.command);
  }
}

/** What the server says of itself and of the document at hand; undefined where it is not there. */
export async function statusOf(server: Server): Promise<FullStatus | undefined> {
  const client = server.running;
  const document = window.activeTextEditor?.document;
  if (client === undefined) {
    return undefined;
  }
  const uri = document === undefined ? null : client.code2ProtocolConverter.asUri(document.uri);
  const params = uri === null ? {} : { textDocument: { uri } };
  return client.sendRequest<FullStatus>(STATUS, params);
}

function title(server: Server, status: FullStatus | undefined): string {
  const name = status?.model == null ? "Diffgemma" : `Diffgemma (${status.model})`;
  return `${name}: ${(status ?? server.news).message}`;
}

function entries(status: FullStatus | undefined): Entry[] {
  const document = window.activeTextEditor?.document;
  const selected = window.activeTextEditor?.selection.isEmpty === false;
  const found: Entry[] = [];
  if (status !== undefined) {
    found.push(
      ...whys(status),
      separator("Here"),
      { label: "$(sparkle) Suggest", command: "diffgemma.suggest" },
      ...(selected
        ? [{ label: "$(edit) Rewrite selection…", command: "diffgemma.rewriteSelection" }]
        : []),
      { label: "$(list-selection) Fill all holes", command: "diffgemma.fillHoles" },
    );
  }
  found.push(
    separator("Suggestions"),
    toggle("everywhere", isOn(), "diffgemma.toggle"),
    ...(document === undefined
      ? []
      : [
          toggle(
            `for ${document.languageId}`,
            isOnForLanguage(document.languageId),
            "diffgemma.toggleLanguage",
            onlyAsked(status, document.languageId, usualLanguages()),
          ),
        ]),
    ...(document !== undefined && workspace.getWorkspaceFolder(document.uri) !== undefined
      ? [toggle("in this folder", isOnInFolder(document), "diffgemma.toggleFolder")]
      : []),
    separator("Server"),
    ...(status === undefined
      ? []
      : [{ label: "$(trash) Free the model's memory", command: "diffgemma.freeMemory" }]),
    { label: "$(debug-restart) Restart the server", command: "diffgemma.restart" },
    { label: "$(output) Show its output", command: "diffgemma.showOutput" },
    { label: "$(gear) Settings", command: "diffgemma.openSettings" },
    { label: "$(question) Help", command: "diffgemma.help" },
  );
  return found;
}

/** Why no suggestion is shown, or was last. Of next edits and actions their commands say why. */
function whys({ document }: FullStatus): Entry[] {
  const shown = window.activeTextEditor?.document;
  const ghost = document?.reasons["textDocument/inlineCompletion"];
  const off = shown === undefined ? undefined : whyOff(shown);
  const reason = off ?? document?.off ?? ghost;
  return reason == null
    ? []
    : [{ label: "$(info) Why there was no suggestion", detail: reason, command: "diffgemma.menu" }];
}

function toggle(where: string, on: boolean, command: string, limits?: string): Entry {
  const limited =
    limits === undefined ? {} : { detail: on ? limits : `Once it is on: ${limits}` };
  return on
    ? { label: `$(circle-slash) Turn off ${where}`, command, ...limited }
    : { label: `$(check) Turn on ${where}`, command, ...limited };
}

function separator(label: string): Entry {
  return { label, kind: QuickPickItemKind.Separator };
}
