// The settings: which of them go to the server in which way, and how they are turned on and off.

import {
  commands,
  ConfigurationTarget,
  env,
  type TextDocument,
  type Uri,
  workspace,
} from "vscode";

export const SECTION = "diffgemma";

/** What finds all of its settings. */
export const THE_EXTENSION = "@ext:diffgemma.diffgemma-lsp";

/** What the server gets to see, in the languages that it serves. */
export const SCHEMES = ["file", "untitled", "vscode-remote", "vscode-notebook-cell"];

/** What decides what is loaded and run: the user's own, and told to the server when it starts. */
const MACHINE = [
  "model",
  "models",
  "device",
  "engineUrl",
  "engineTokenFile",
  "idleUnloadS",
  "idleExitS",
];

/** What is for the extension alone. */
const OWN = ["server"];

export function serverPath(): string {
  const path = workspace.getConfiguration(SECTION).get("server.path", "").trim();
  return path === "" ? "diffgemma-lsp" : path;
}

/** The languages whose documents the server gets to see; ["*"] is all. */
export function servedLanguages(): string[] {
  return workspace.getConfiguration(SECTION).get<string[]>("server.languages", []);
}

/** The languages that the server gets to see where nothing is set: those that mini knows. */
export function usualLanguages(): string[] {
  const known = workspace.getConfiguration(SECTION).inspect<string[]>("server.languages");
  return known?.defaultValue ?? [];
}

export function rewriteStrength(document: TextDocument): number {
  return workspace.getConfiguration(SECTION, document.uri).get("rewriteStrength", 0.6);
}

export function seed(document: TextDocument): number {
  return workspace.getConfiguration(SECTION, document.uri).get("seed", 0);
}

/** The initializationOptions. The settings editor leaves "" of a text that is deleted. */
export function machineOptions(): Record<string, unknown> {
  const settings = workspace.getConfiguration(SECTION);
  const chosen = MACHINE.map((name): [string, unknown] => [name, settings.get(name)]);
  return Object.fromEntries(chosen.map(([name, value]) => [name, value === "" ? null : value]));
}

/** All that a server is started by, to compare: another value of it takes another server. */
export function startedBy(): string {
  return JSON.stringify([serverPath(), servedLanguages(), machineOptions()]);
}

/** Opens the settings that the query finds, where those of this machine can be seen. */
export async function show(query: string): Promise<void> {
  if (env.remoteName === undefined) {
    await commands.executeCommand("workbench.action.openSettings", query);
  } else {
    await commands.executeCommand("workbench.action.openRemoteSettings", { query });
  }
}

/** The answer to workspace/configuration: what holds for a folder, or for all. */
export function sharedSettings(folder: Uri | undefined): Record<string, unknown> {
  const all = workspace.getConfiguration(undefined, folder ?? null).get(SECTION, {});
  const plain = JSON.parse(JSON.stringify(all)) as Record<string, unknown>;
  for (const name of [...OWN, ...MACHINE]) {
    // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
    delete plain[name];
  }
  // A folder that is not trusted has no say in what is read beside the document at hand.
  return workspace.isTrusted ? plain : { ...plain, neighbours: false };
}

export function isOn(): boolean {
  return workspace.getConfiguration(SECTION).inspect<boolean>("enable")?.globalValue ?? true;
}

export function isOnInFolder(document: TextDocument): boolean {
  return workspace.getConfiguration(SECTION, document.uri).get("enable", true);
}

export function isOnForLanguage(language: string): boolean {
  return isServed(language) && !languagesOff().includes(language);
}

/** Why the settings keep suggestions away from a document; undefined where they do not. */
export function whyOff(document: TextDocument): string | undefined {
  const { languageId } = document;
  if (!SCHEMES.includes(document.uri.scheme)) {
    return `not used in what is no file (${document.uri.scheme}:)`;
  }
  if (!isOnInFolder(document)) {
    return isOn() ? "turned off in this folder" : "turned off everywhere";
  }
  if (!isServed(languageId)) {
    return `not used for ${languageId} (not among diffgemma.server.languages)`;
  }
  return isOnForLanguage(languageId) ? undefined : `turned off for ${languageId}`;
}

export async function turnAll(on: boolean): Promise<void> {
  await workspace.getConfiguration(SECTION).update("enable", on, ConfigurationTarget.Global);
}

export async function turnFolder(document: TextDocument, on: boolean): Promise<void> {
  const several = (workspace.workspaceFolders?.length ?? 0) > 1;
  const target = several ? ConfigurationTarget.WorkspaceFolder : ConfigurationTarget.Workspace;
  await workspace.getConfiguration(SECTION, document.uri).update("enable", on, target);
}

export async function turnLanguage(language: string, on: boolean): Promise<void> {
  const others = languagesOff().filter((other) => other !== language);
  const settings = workspace.getConfiguration(SECTION);
  const off = on ? others : [...others, language];
  await settings.update("languagesOff", off, ConfigurationTarget.Global);
  if (on && !isServed(language)) {
    const served = [...servedLanguages(), language];
    await settings.update("server.languages", served, ConfigurationTarget.Global);
  }
}

export function isServed(language: string): boolean {
  const served = servedLanguages();
  return served.includes("*") || served.includes(language);
}

function languagesOff(): string[] {
  return workspace.getConfiguration(SECTION).get("languagesOff", []);
}
