// A rewrite with a preview: it is shown as it settles, and changes the document when accepted.

import {
  CancellationTokenSource,
  commands,
  Disposable,
  ProgressLocation,
  Range,
  type TextDocument,
  type TextEditor,
  window,
  workspace,
  WorkspaceEdit,
} from "vscode";
import { ExecuteCommandRequest } from "vscode-languageclient/node";

import { draftOf, draw, editedText } from "./drawing";
import { editOf, type Hunk, hunksBetween, splitLines } from "./hunks";
import type { Frame, Result } from "./protocol";
import { noteOf, type Order, sceneOf, type Shown } from "./scene";
import type { Server } from "./server";
import { rewriteStrength, seed } from "./settings";
import { View } from "./view";

const STEP = 0.2;
const LEAST = 0.1;
const TOLD_MS = 3000;

/** One rewrite of one version of a document, from its first run to its end. */
interface Rewrite extends Shown {
  document: TextDocument;
  editor: TextEditor;
  version: number;
  seed: number;
  /** What the current run goes by; another one means that it is over. */
  token: string;
  cancel: CancellationTokenSource;
}

export class Previews implements Disposable {
  private current: Rewrite | undefined;
  private runs = 0;
  /** Called when the preview can be seen, or will not be. */
  private atSight: () => void = () => undefined;
  private readonly view = new View();
  private readonly disposables: Disposable[];

  constructor(private readonly server: Server) {
    this.disposables = [
      this.view,
      this.view.onClosed(() => {
        this.end();
      }),
      server.onFrame((frame) => void this.take(frame)),
    ];
  }

  dispose(): void {
    this.end();
    Disposable.from(...this.disposables).dispose();
  }

  /** Begins a rewrite of what the editor shows. One that was under way is discarded. */
  async begin(editor: TextEditor, order: Order): Promise<void> {
    await this.discard();
    const { document } = editor;
    const text = document.getText();
    this.current = {
      order,
      document,
      editor,
      text,
      version: document.version,
      strength: rewriteStrength(document),
      seed: seed(document),
      token: "",
      cancel: new CancellationTokenSource(),
      running: false,
      note: "",
      hint: "",
      draft: { text, doubts: [] },
      left: new Set(),
    };
    await this.run(this.current);
  }

  /** The same once more, with another seed. */
  async again(): Promise<void> {
    if (this.current !== undefined) {
      this.current.seed += 1;
      await this.run(this.current);
    }
  }

  async more(): Promise<void> {
    await this.changeStrength(STEP);
  }

  async less(): Promise<void> {
    await this.changeStrength(-STEP);
  }

  /** Puts in what was not left out, or one hunk alone, as one undo step; the preview is over. */
  async accept(only?: number): Promise<void> {
    const rewrite = this.current;
    if (rewrite?.running === true) {
      window.setStatusBarMessage("Diffgemma: it is not done yet", TOLD_MS);
      return;
    }
    if (rewrite === undefined) {
      return;
    }
    const { document, text, version, draft, left } = rewrite;
    if (document.isClosed || document.version !== version) {
      void window.showWarningMessage(
        "Diffgemma: the document has changed since, and the preview does not fit it any more. " +
          "Discard it and ask again.",
      );
      return;
    }
    const old = splitLines(text);
    const wanted = hunksBetween(old, splitLines(draft.text)).filter((_, number) =>
      only === undefined ? !left.has(number) : number === only,
    );
    const edit = new WorkspaceEdit();
    for (const hunk of wanted) {
      addTo(edit, document, hunk, old);
    }
    await this.discard();
    if (wanted.length > 0 && !(await workspace.applyEdit(edit))) {
      void window.showErrorMessage("Diffgemma: the editor did not apply the change.");
    }
  }

  /** Leaves a hunk out, or takes it in again: the one by its number, or the one at the cursor. */
  toggle(number?: number): void {
    const rewrite = this.current;
    const chosen = number ?? this.hunkAtCursor();
    if (rewrite === undefined || rewrite.running || chosen === undefined) {
      return;
    }
    if (!rewrite.left.delete(chosen)) {
      rewrite.left.add(chosen);
    }
    this.view.update(sceneOf(rewrite));
  }

  async acceptAtCursor(): Promise<void> {
    const number = this.hunkAtCursor();
    if (number !== undefined) {
      await this.accept(number);
    }
  }

  /** Nothing has changed, and the document is shown again. */
  async discard(): Promise<void> {
    const rewrite = this.current;
    this.end();
    if (!this.view.isOpen) {
      return;
    }
    await this.view.close();
    if (rewrite?.document.isClosed === false) {
      const { viewColumn, selection } = rewrite.editor;
      await window.showTextDocument(rewrite.document, {
        ...(viewColumn === undefined ? {} : { viewColumn }),
        selection,
      });
    }
  }

  private end(): void {
    this.current?.cancel.cancel();
    this.current?.cancel.dispose();
    this.current = undefined;
    this.atSight();
    setContexts(false, false);
  }

  private async changeStrength(by: number): Promise<void> {
    const rewrite = this.current;
    if (rewrite?.order.strength !== true) {
      return;
    }
    const wanted = Math.min(1, Math.max(LEAST, rewrite.strength + by));
    if (wanted === rewrite.strength) {
      rewrite.hint = by > 0 ? " is all" : " is the least";
      this.view.update(sceneOf(rewrite));
      return;
    }
    rewrite.strength = wanted;
    await this.run(rewrite);
  }

  /** Asks the server; what it did before in this preview is cancelled. */
  private async run(rewrite: Rewrite): Promise<void> {
    rewrite.cancel.cancel();
    const cancel = new CancellationTokenSource();
    const token = `preview-${++this.runs}`;
    const begun = { running: true, note: "starting", hint: "", left: new Set<number>() };
    Object.assign(rewrite, { cancel, token, ...begun });
    if (this.view.isOpen) {
      this.view.update(sceneOf(rewrite));
    }
    const result = await this.ask(rewrite, cancel);
    if (!this.isCurrent(rewrite, token)) {
      return; // it was discarded, or asked again
    }
    rewrite.running = false;
    if (result?.message !== null) {
      rewrite.note = result?.message ?? "cancelled";
      rewrite.draft = { text: rewrite.text, doubts: [] };
    } else {
      rewrite.note = "";
      rewrite.seed = result.seed ?? rewrite.seed;
      const text = editedText(rewrite.text, result);
      // How sure the model is of it is known from the last frame, if that came to the same.
      rewrite.draft = text === rewrite.draft.text ? rewrite.draft : { text, doubts: [] };
    }
    if (this.view.isOpen) {
      this.view.update(sceneOf(rewrite));
    } else if (result?.message === null) {
      await this.open(rewrite);
    } else {
      this.end(); // the server has said why
    }
  }

  private isCurrent(rewrite: Rewrite, token: string): boolean {
    return this.current === rewrite && rewrite.token === token;
  }

  /** What the server makes of it; undefined where that failed, of which the user has been told. */
  private async ask(
    rewrite: Rewrite,
    cancel: CancellationTokenSource,
  ): Promise<Result | undefined> {
    const { order, document, version, strength, seed, token } = rewrite;
    // Not the one of the run before: that may have ended.
    const client = await this.server.needed();
    if (client === undefined) {
      return undefined;
    }
    const argument = {
      textDocument: { uri: client.code2ProtocolConverter.asUri(document.uri), version },
      range: client.code2ProtocolConverter.asRange(order.range),
      ...(order.instruction === undefined ? {} : { instruction: order.instruction }),
      ...(order.strength ? { strength } : {}),
      seed,
      apply: false,
      token,
    };
    // A token of our own for the progress, which is shown here and not by the client.
    const params = { command: order.command, arguments: [argument], workDoneToken: token };
    const answer = client
      .sendRequest(ExecuteCommandRequest.type, params, cancel.token)
      .then((result) => result as Result)
      .catch((error: unknown) => {
        if (!cancel.token.isCancellationRequested) {
          const reason = client.isRunning() ? String(error) : "the server has ended. Try again.";
          void window.showErrorMessage(`Diffgemma: ${order.title} failed: ${reason}`);
        }
        return undefined;
      });
    if (!this.view.isOpen) {
      this.waitWith(order.title, answer, cancel);
    }
    return answer;
  }

  /** Shows that something is under way until there is something to see; a click there ends it. */
  private waitWith(title: string, answer: Promise<unknown>, cancel: CancellationTokenSource): void {
    const seen = new Promise<void>((resolve) => {
      this.atSight = resolve;
    });
    const options = {
      location: ProgressLocation.Notification,
      cancellable: true,
      title: `Diffgemma: ${title}`,
    };
    void window.withProgress(options, async (_progress, stop) => {
      stop.onCancellationRequested(() => {
        cancel.cancel();
      });
      await Promise.race([answer, seen]);
    });
  }

  private async take(frame: Frame): Promise<void> {
    const rewrite = this.current;
    if (rewrite?.running !== true || rewrite.token !== frame.token) {
      return;
    }
    if (rewrite.version !== frame.textDocument.version) {
      return;
    }
    rewrite.draft = draftOf(rewrite.text, frame.holes);
    rewrite.note = noteOf(frame);
    if (this.view.isOpen) {
      this.view.update(sceneOf(rewrite));
    } else {
      await this.open(rewrite);
    }
  }

  private async open(rewrite: Rewrite): Promise<void> {
    setContexts(true, rewrite.order.strength);
    await this.view.open(rewrite.document, rewrite.editor.viewColumn, sceneOf(rewrite));
    this.atSight();
    if (this.current === rewrite) {
      this.view.update(sceneOf(rewrite)); // more may have come meanwhile
    }
  }

  private hunkAtCursor(): number | undefined {
    const line = this.view.cursorLine;
    if (this.current === undefined || line === undefined) {
      return undefined;
    }
    const { text, draft, left } = this.current;
    const hunks = draw(text, draft, left).hunks;
    const number = hunks.findIndex(({ old, end }) => old <= line && line < Math.max(end, old + 1));
    return number < 0 ? undefined : number;
  }
}

/** What keys and buttons go by: whether there is a preview, and whether it can change more. */
function setContexts(preview: boolean, strength: boolean): void {
  void commands.executeCommand("setContext", "diffgemma.preview", preview);
  void commands.executeCommand("setContext", "diffgemma.preview.strength", preview && strength);
}

function addTo(edit: WorkspaceEdit, document: TextDocument, hunk: Hunk, old: string[]): void {
  const { start, end, text } = editOf(hunk, old);
  const range = new Range(start.line, start.character, end.line, end.character);
  edit.replace(document.uri, range, text);
}
