// The server behind the extension: its start and its end, and what is said when it fails.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

import {
  commands,
  type Disposable,
  EventEmitter,
  type ExtensionContext,
  languages,
  type LogOutputChannel,
  type TextDocument,
  Uri,
  window,
  workspace,
} from "vscode";
import {
  CloseAction,
  DidChangeConfigurationNotification,
  ErrorAction,
  type FeatureState,
  LanguageClient,
  type LanguageClientOptions,
  MessageType,
  RevealOutputChannelOn,
  ShowMessageNotification,
} from "vscode-languageclient/node";

import { AGAIN, HELP, OUTPUT, SET_PATH, SETTINGS, settingsFor, waysOut } from "./cures";
import { findProgram, NoServer, whyNot } from "./program";
import { type Frame, FRAME, type Status, STATUS_CHANGED } from "./protocol";
import {
  machineOptions,
  SCHEMES,
  SECTION,
  servedLanguages,
  serverPath,
  sharedSettings,
  show,
  startedBy,
} from "./settings";

/** What there is besides the server's own states. */
export type State = Status["state"] | "starting" | "stopped";

export interface News {
  state: State;
  message: string;
  percent: number | null;
}

const MOST_RESTARTS = 4;
const RESTARTS_WITHIN_MS = 3 * 60_000;

export class Server implements Disposable {
  news: News = { state: "stopped", message: "The server has not been started.", percent: null };
  readonly onNews;
  readonly onFrame;

  private client: LanguageClient | undefined;
  private starting: Promise<void> | undefined;
  /** The settings that the last start went by. */
  private begunBy = "";
  private readonly deaths: number[] = [];
  private readonly newsEmitter = new EventEmitter<News>();
  private readonly frameEmitter = new EventEmitter<Frame>();
  private readonly disposables: Disposable[];

  constructor(
    private readonly context: ExtensionContext,
    readonly output: LogOutputChannel,
  ) {
    this.onNews = this.newsEmitter.event;
    this.onFrame = this.frameEmitter.event;
    this.disposables = [
      this.newsEmitter,
      this.frameEmitter,
      // That an event speaks of them says little: a folder's have no effect.
      workspace.onDidChangeConfiguration(() => {
        if (this.isOutdated) {
          void this.restart();
        }
      }),
      workspace.onDidGrantWorkspaceTrust(() => {
        void this.client?.sendNotification(DidChangeConfigurationNotification.type, {
          settings: null,
        });
      }),
    ];
  }

  /** The connection, if the server is there. */
  get running(): LanguageClient | undefined {
    return this.client?.isRunning() === true ? this.client : undefined;
  }

  /** The connection; tells the user and gives none where the server is not there. */
  async needed(): Promise<LanguageClient | undefined> {
    await this.starting;
    if (this.running === undefined) {
      void this.complain(this.news.message);
    }
    return this.running;
  }

  /** Whether the server gets to see a document. */
  serves(document: TextDocument): boolean {
    return languages.match(selector(), document) > 0;
  }

  /** Whether a server that was started now would be another one. */
  private get isOutdated(): boolean {
    return this.begunBy !== startedBy();
  }

  /** Starts it, unless it runs. Never throws: what is wrong is told. */
  async start(): Promise<void> {
    this.starting ??= this.begin().finally(() => {
      this.starting = undefined;
    });
    await this.starting;
  }

  /** Ends it, if it runs, and starts it anew. */
  async restart(): Promise<void> {
    await this.starting;
    await this.stop();
    await this.start();
  }

  async stop(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    this.tell("stopped", "The server was stopped.");
    try {
      await client?.dispose();
    } catch (error) {
      this.output.warn(`The server did not end as it should: ${String(error)}`);
    }
  }

  dispose(): void {
    for (const disposable of this.disposables) {
      disposable.dispose();
    }
  }

  private async begin(): Promise<void> {
    if (this.running !== undefined) {
      return;
    }
    this.begunBy = startedBy();
    this.tell("starting", "The server is starting.");
    let program: string | undefined;
    try {
      program = await findProgram(serverPath());
      this.output.info(`Starting ${program}`);
      this.client = this.clientOf(program);
      await this.client.start();
      if (this.news.state === "starting") {
        this.tell("idle", "The server is there.");
      }
    } catch (error) {
      this.output.error(`The server did not start: ${String(error)}`);
      this.client = undefined;
      const reason =
        program === undefined || error instanceof NoServer
          ? (error as Error).message
          : await whyNot(program);
      this.tell("stopped", reason);
      void this.complain(reason);
    }
  }

  private clientOf(program: string): LanguageClient {
    const options: LanguageClientOptions = {
      documentSelector: selector(),
      outputChannel: this.output,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      initializationOptions: machineOptions,
      initializationFailedHandler: () => false,
      errorHandler: {
        error: (_error, _message, count) => ({
          action: (count ?? 0) <= 3 ? ErrorAction.Continue : ErrorAction.Shutdown,
          handled: true,
        }),
        // Started anew from here and not by the client, so that a failure is explained.
        closed: () => {
          this.died(client);
          return { action: CloseAction.DoNotRestart, handled: true };
        },
      },
      stdioOptions: { stdout: logLines, stderr: logLines },
      middleware: {
        workspace: {
          configuration: ({ items }) =>
            items.map(({ section, scopeUri }) =>
              section === SECTION
                ? sharedSettings(
                    scopeUri === undefined
                      ? undefined
                      : client.protocol2CodeConverter.asUri(scopeUri),
                  )
                : null,
            ),
          // It is told that something changed, and asks; unless another one takes its place.
          didChangeConfiguration: (_sections, next) =>
            client === this.client && !this.isOutdated ? next(undefined) : Promise.resolve(),
        },
      },
    };
    const client = new Client(SECTION, "Diffgemma", { command: program }, options);
    client.registerFeature({
      fillClientCapabilities: (capabilities) => {
        const own = { diffgemma: { frames: true, status: true } };
        capabilities.experimental = { ...(capabilities.experimental as object), ...own };
      },
      initialize: () => undefined,
      getState: (): FeatureState => ({ kind: "static" }),
      clear: () => undefined,
    });
    client.onNotification(STATUS_CHANGED, ({ state, message, percent }: Status) => {
      if (client === this.client) {
        this.tell(state, message, percent);
      }
    });
    // In the place of the client's own, which offers no way out.
    client.onNotification(ShowMessageNotification.type, ({ type, message }) => {
      void this.relay(type, message);
    });
    client.onNotification(FRAME, (frame: Frame) => {
      this.frameEmitter.fire(frame);
    });
    return client;
  }

  /** The connection was lost, and not by our doing. */
  private died(client: LanguageClient): void {
    if (client !== this.client || this.starting !== undefined) {
      return; // it was stopped, or never came up, which is told elsewhere
    }
    this.client = undefined;
    const now = Date.now();
    this.deaths.push(now);
    while ((this.deaths[0] ?? now) < now - RESTARTS_WITHIN_MS) {
      this.deaths.shift();
    }
    if (this.deaths.length <= MOST_RESTARTS) {
      this.output.warn("The server has ended; it is started again.");
      void this.start();
      return;
    }
    this.deaths.length = 0;
    const reason = "The server has ended five times in three minutes. Its output says more.";
    this.tell("stopped", reason);
    void this.complain(reason);
  }

  private tell(state: State, message: string, percent: number | null = null): void {
    this.news = { state, message, percent };
    this.newsEmitter.fire(this.news);
  }

  /** Says what is wrong with the server, with the ways out. */
  private async complain(reason: string): Promise<void> {
    const text = `Diffgemma: ${reason}`;
    await this.go(await window.showErrorMessage(text, ...waysOut(reason)));
  }

  /** Says what the server says; where something is wrong, such as the model, with the ways out. */
  private async relay(type: MessageType, message: string): Promise<void> {
    const settings = settingsFor(message);
    const ways = settings === undefined ? [OUTPUT] : [SETTINGS, OUTPUT];
    if (type === MessageType.Error) {
      await this.go(await window.showErrorMessage(message, ...ways), settings);
    } else if (type === MessageType.Warning) {
      await this.go(await window.showWarningMessage(message, ...ways), settings);
    } else {
      await window.showInformationMessage(message);
    }
  }

  /** Goes the way that was chosen, if one was. */
  private async go(chosen: string | undefined, settings?: string): Promise<void> {
    if (chosen === SET_PATH) {
      await show("@id:diffgemma.server.path");
    } else if (chosen === HELP) {
      await this.showReadme();
    } else if (chosen === AGAIN) {
      await this.restart();
    } else if (chosen === OUTPUT) {
      this.output.show();
    } else if (chosen === SETTINGS && settings !== undefined) {
      await show(settings);
    }
  }

  async showReadme(): Promise<void> {
    // The package has it in small letters, the repository does not.
    const folder = this.context.extensionPath;
    const names = await readdir(folder);
    const readme = names.find((name) => name.toLowerCase() === "readme.md") ?? "README.md";
    await commands.executeCommand("markdown.showPreview", Uri.file(join(folder, readme)));
  }
}

/** Only logs why it did not start: `Server` says that in words for a user, with the ways out. */
class Client extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** Logs what the server prints, but for its log lines: those come as messages as well. */
function logLines(input: Readable, output: LogOutputChannel): void {
  createInterface({ input }).on("line", (line) => {
    if (!/^\d{4}-\d\d-\d\d [\d:,]+ (DEBUG|INFO|WARNING|ERROR) /.test(line)) {
      output.error(line);
    }
  });
}

function selector(): { scheme: string; language?: string }[] {
  const served = servedLanguages();
  return SCHEMES.flatMap((scheme) =>
    served.includes("*") ? [{ scheme }] : served.map((language) => ({ scheme, language })),
  );
}
