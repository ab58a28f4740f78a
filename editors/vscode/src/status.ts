// The item in the status bar: how the server is doing.

import {
  type Disposable,
  StatusBarAlignment,
  type StatusBarItem,
  ThemeColor,
  window,
} from "vscode";

import type { News, Server, State } from "./server";

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
    this.listening = server.onNews((news) => {
      this.show(news);
    });
    this.show(server.news);
    this.item.show();
  }

  dispose(): void {
    this.listening.dispose();
    this.item.dispose();
  }

  private show({ state, message, percent }: News): void {
    const share = percent === null ? "" : ` ${percent}%`;
    this.item.text = `${ICONS[state]} Diffgemma${share}`;
    this.item.tooltip = `Diffgemma: ${message}\n\nClick for what can be done.`;
    this.item.accessibilityInformation = { label: `Diffgemma: ${message}` };
    const ground = GROUNDS[state];
    this.item.backgroundColor = ground === undefined ? undefined : new ThemeColor(ground);
  }
}
