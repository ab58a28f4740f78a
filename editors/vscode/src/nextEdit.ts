// Next edits: what must follow the last edits of a document is asked for when they have come to
// rest, shown at its place, jumped to, and accepted or refused.

import {
  CancellationTokenSource,
  commands,
  Disposable,
  Range,
  type TextDocument,
  type TextEditor,
  window,
  workspace,
} from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";

import { statusOf } from "./menu";
import { hintOf, NextEditMarks } from "./nextEditMarks";
import { type NextEditAnswer, type NextEditResult, REFUSE_NEXT_EDIT } from "./protocol";
import type { Server } from "./server";
import { type WordChange, wordChanges } from "./words";

/** So long after a change the server is asked: whoever goes on typing needs no answer. */
const REST_MS = 300;
const TOLD_MS = 5000;

/** A line of one version of a document, and what of it is to be changed. */
interface NextEdit {
  document: TextDocument;
  version: number;
  line: number;
  changes: WordChange[];
  /** As the server gave it. */
  answer: NextEditAnswer;
  /** Whether the cursor is there, or on its way: a second Tab may come before it is told. */
  reached: boolean;
}

export class NextEdits implements Disposable {
  private shown: NextEdit | undefined;
  private resting: NodeJS.Timeout | undefined;
  /** The version of the documents for which there is no answer yet, or one that got lost. */
  private readonly due = new WeakMap<TextDocument, number>();
  private asking = new CancellationTokenSource();
  private readonly marks = new NextEditMarks();
  private readonly disposables: Disposable[];

  constructor(private readonly server: Server) {
    this.disposables = [
      this.marks,
      workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        if (contentChanges.length > 0 && document === window.activeTextEditor?.document) {
          this.changed(document);
        }
      }),
      window.onDidChangeActiveTextEditor((editor) => {
        if (this.shown !== undefined) {
          this.due.set(this.shown.document, this.shown.version);
        }
        this.hide();
        if (editor !== undefined) {
          this.askSoon(editor.document);
        }
      }),
      // What is hinted at depends on where the cursor is, and on what is in sight.
      window.onDidChangeTextEditorSelection(({ textEditor }) => {
        if (textEditor === window.activeTextEditor && this.shown !== undefined) {
          this.shown.reached = textEditor.selection.active.line === this.shown.line;
          this.draw();
        }
      }),
      window.onDidChangeTextEditorVisibleRanges(() => {
        this.draw();
      }),
    ];
  }

  dispose(): void {
    this.hide();
    Disposable.from(...this.disposables).dispose();
  }

  /** By name: the same as Tab; where none is shown, one is asked for and jumped to. */
  async go(): Promise<void> {
    const editor = window.activeTextEditor;
    if (editor === undefined || (await this.jumpOrAccept(editor))) {
      return;
    }
    const client = await this.server.needed();
    if (client === undefined) {
      return;
    }
    await this.ask(editor.document);
    const found = this.shownIn(editor);
    if (found !== undefined) {
      await (found.reached ? undefined : jump(editor, found));
      return;
    }
    const reason = (await statusOf(this.server))?.document?.reasons[methodOf(client) ?? ""];
    const why = reason === undefined ? "" : `: ${reason}`;
    window.setStatusBarMessage(`Diffgemma: no next edit here${why}`, TOLD_MS);
  }

  /** By Tab, which does what else it does if by now none is shown. */
  async tab(): Promise<void> {
    const editor = window.activeTextEditor;
    if (editor === undefined || !(await this.jumpOrAccept(editor))) {
      await commands.executeCommand("tab");
    }
  }

  /** Clears what is shown; nothing is asked for until the next change. */
  hide(): void {
    clearTimeout(this.resting);
    this.asking.cancel();
    this.show(undefined);
  }

  /** Refuses what is shown, and goes on to the next place. */
  async refuse(): Promise<void> {
    const editor = window.activeTextEditor;
    const shown = editor === undefined ? undefined : this.shownIn(editor);
    if (shown === undefined) {
      window.setStatusBarMessage("Diffgemma: no next edit here", TOLD_MS);
      return;
    }
    this.hide();
    await this.server.running?.sendNotification(REFUSE_NEXT_EDIT, shown.answer);
    await this.ask(shown.document);
  }

  private changed(document: TextDocument): void {
    this.hide();
    this.due.set(document, document.version);
    this.askSoon(document);
  }

  /** Asks when the document has come to rest, unless there is an answer by then. */
  private askSoon(document: TextDocument): void {
    this.resting = setTimeout(() => {
      if (this.due.get(document) === document.version) {
        void this.ask(document);
      }
    }, REST_MS);
  }

  private async ask(document: TextDocument): Promise<void> {
    const client = this.server.running;
    const editor = window.activeTextEditor;
    const method = client === undefined ? undefined : methodOf(client);
    if (client === undefined || method === undefined || editor?.document !== document) {
      return;
    }
    if (!this.server.serves(document)) {
      return;
    }
    this.hide();
    this.asking = new CancellationTokenSource();
    const { token } = this.asking;
    const { version } = document;
    const uri = client.code2ProtocolConverter.asUri(document.uri);
    const position = client.code2ProtocolConverter.asPosition(editor.selection.active);
    const params = { textDocument: { uri, version }, position };
    try {
      const { edits } = await client.sendRequest<NextEditResult>(method, params, token);
      if (token.isCancellationRequested || document.version !== version) {
        return;
      }
      this.due.delete(document);
      const [found] = edits;
      if (found === undefined) {
        return;
      }
      const { line } = found.range.start;
      const changes = wordChanges(document.lineAt(line).text, found.text);
      const reached = editor.selection.active.line === line;
      this.show({ document, version, line, changes, answer: found, reached });
    } catch (error) {
      if (!token.isCancellationRequested) {
        this.server.output.warn(`No next edit: ${String(error)}`);
      }
    }
  }

  /** Jumps to what is shown, or accepts it where the cursor is there; false if there is none. */
  private async jumpOrAccept(editor: TextEditor): Promise<boolean> {
    const shown = this.shownIn(editor);
    if (shown === undefined) {
      return false;
    }
    if (shown.reached) {
      this.hide();
      await accept(editor, shown);
    } else {
      await jump(editor, shown);
    }
    return true;
  }

  private shownIn({ document }: TextEditor): NextEdit | undefined {
    const { shown } = this;
    const holds = shown?.document === document && shown.version === document.version;
    return holds ? shown : undefined;
  }

  private show(shown: NextEdit | undefined): void {
    if (shown !== this.shown) {
      this.shown = shown;
      void commands.executeCommand("setContext", "diffgemma.nextEdit", shown !== undefined);
      this.draw();
    }
  }

  private draw(): void {
    const editor = window.activeTextEditor;
    const { shown } = this;
    if (editor === undefined || shown?.document !== editor.document) {
      this.marks.clear();
      return;
    }
    const inSight = editor.visibleRanges.some(
      ({ start, end }) => start.line <= shown.line && shown.line <= end.line,
    );
    const hint = hintOf(shown.line, editor.selection.active.line, inSight);
    this.marks.draw(editor, shown.line, shown.changes, hint);
  }
}

/** Puts the cursor where the first change is; *Go Back* leads to where it was. */
async function jump(editor: TextEditor, shown: NextEdit): Promise<void> {
  shown.reached = true;
  const { document, line, changes } = shown;
  const character = changes[0]?.start ?? 0;
  const { viewColumn } = editor;
  await window.showTextDocument(document, {
    ...(viewColumn === undefined ? {} : { viewColumn }),
    selection: new Range(line, character, line, character),
  });
}

/** Changes the line, as one undo step. */
async function accept(editor: TextEditor, { line, changes }: NextEdit): Promise<void> {
  await editor.edit((edit) => {
    for (const { start, end, text } of changes) {
      edit.replace(new Range(line, start, line, end), text);
    }
  });
}

/** The name of the method, where the server has it. */
function methodOf(client: LanguageClient): string | undefined {
  const told = client.initializeResult?.capabilities.experimental as
    | { diffgemma?: { nextEdits?: string } }
    | undefined;
  return told?.diffgemma?.nextEdits;
}
