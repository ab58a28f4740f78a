// The item in the status bar: how the server is doing.

import {
  Disposable,
  StatusBarAlignment,
  type StatusBarItem,
  ThemeColor,
  window,
  workspace,
} from "vscode";

import type { News, Server, State } from "./server";
import { SCHEMES, SECTION, whyOff } from "./settings";

const ICONS: Record<State, string> = {
  starting: "$(loading~spin)",
  loading: "$(loading~spin)",
  filling: "$(loading~spin)",
  ready: "$(sparkle)",
  idle: "$(coffee)",
  slow: "$(watch)",
  off: "$(circle-slash)",
  error: "$(error)",
  stopped: "$(debug-disconnect)",
};

const GROUNDS: Partial<Record<State, string>> = {
  slow: "statusBarItem.warningBackground",
  error: "statusBarItem.errorBackground",
  stopped: "statusBarItem.errorBackground",
};

export class StatusItem implements Disposable {
  private readonly item: StatusBarItem;
  private readonly listening: Disposable;

  constructor(server: Server) {
    this.item = window.createStatusBarItem("status", StatusBarAlignment.Right, 100);
    this.item.name = "Diffgemma";
    this.item.command = "diffgemma.menu";
    const show = () => {
      this.show(server.news);
    };
    this.listening = Disposable.from(
      server.onNews(show),
      window.onDidChangeActiveTextEditor(show),
      workspace.onDidChangeConfiguration((change) => {
        if (change.affectsConfiguration(SECTION)) {
          show();
        }
      }),
    );
    show();
    this.item.show();
  }

  dispose(): void {
    this.listening.dispose();
    this.item.dispose();
  }

  private show(news: News): void {
    const off = whyOffHere(news);
    const { state, message, percent }: News =
      off === undefined ? news : { ...news, state: "off", message: off };
    const share = percent === null ? "" : ` ${percent}%`;
    this.item.text = `${ICONS[state]} Diffgemma${share}`;
    this.item.tooltip = `Diffgemma: ${message}\n\nClick for what can be done.`;
    this.item.accessibilityInformation = { label: `Diffgemma: ${message}` };
    const ground = GROUNDS[state];
    this.item.backgroundColor = ground === undefined ? undefined : new ThemeColor(ground);
  }
}

/** Why the file at hand gets no suggestions, where nothing else is to be told. */
function whyOffHere({ state }: News): string | undefined {
  const document = window.activeTextEditor?.document;
  const fine = state === "ready" || state === "idle" || state === "off";
  const file = document !== undefined && SCHEMES.includes(document.uri.scheme);
  return fine && file ? whyOff(document) : undefined;
}
