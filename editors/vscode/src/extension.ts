// The extension's life: what there is, and in which order it begins and ends.

import { type ExtensionContext, window } from "vscode";

import { registerCommands } from "./commands";
import { NextEdits } from "./nextEdit";
import { Previews } from "./preview";
import { Server } from "./server";
import { StatusItem } from "./status";

let server: Server | undefined;

export function activate(context: ExtensionContext): void {
  const output = window.createOutputChannel("Diffgemma", { log: true });
  server = new Server(context, output);
  const previews = new Previews(server);
  const nextEdits = new NextEdits(server);
  context.subscriptions.push(
    output,
    server,
    previews,
    nextEdits,
    new StatusItem(server),
    ...registerCommands(server, previews, nextEdits),
  );
  // Not waited for: the commands are there at once, and wait for the server where they need it.
  void server.start();
}

export async function deactivate(): Promise<void> {
  await server?.stop();
}
