// A preview in an editor of its own: its text, its colours and what can be clicked in it.

import {
  CodeLens,
  type CodeLensProvider,
  type Command,
  type DecorationOptions,
  Disposable,
  EventEmitter,
  languages,
  OverviewRulerLane,
  Range,
  Selection,
  TabInputText,
  type TextDocument,
  type TextDocumentContentProvider,
  TextEditorRevealType,
  ThemeColor,
  Uri,
  type ViewColumn,
  window,
  workspace,
} from "vscode";

import type { Drawing } from "./drawing";

export const SCHEME = "diffgemma-preview";

/** Below these certainties a part is tinted, the first that fits. */
const TINTS: readonly [below: number, colour: string][] = [
  [0.4, "diffgemma.unsureBackground"],
  [0.7, "diffgemma.doubtfulBackground"],
  [1, "diffgemma.likelyBackground"],
];

export interface Lens {
  line: number;
  command: Command;
}

/** What is shown: a drawing, and what can be clicked, by line. */
export interface Scene {
  drawing: Drawing;
  lenses: Lens[];
}

/** Shows one preview at a time, beside nothing: in the place of the document that it is of. */
export class View implements TextDocumentContentProvider, CodeLensProvider, Disposable {
  private scene: Scene | undefined;
  private uri: Uri | undefined;
  // Not from nought: what an earlier session has opened may be there still.
  private opened = Date.now();
  private readonly textChanged = new EventEmitter<Uri>();
  private readonly lensesChanged = new EventEmitter<void>();
  private readonly closed = new EventEmitter<void>();
  readonly onDidChange = this.textChanged.event;
  readonly onDidChangeCodeLenses = this.lensesChanged.event;
  /** The user has closed it. */
  readonly onClosed = this.closed.event;

  private readonly removed = lineDecoration("diffEditor.removedLineBackground");
  private readonly inserted = lineDecoration("diffEditor.insertedLineBackground");
  private readonly left = window.createTextEditorDecorationType({ opacity: "0.6" });
  private readonly tints = TINTS.map(([, colour]) =>
    window.createTextEditorDecorationType({ backgroundColor: new ThemeColor(colour) }),
  );
  private readonly disposables = [
    workspace.registerTextDocumentContentProvider(SCHEME, this),
    languages.registerCodeLensProvider({ scheme: SCHEME }, this),
    workspace.onDidChangeTextDocument(({ document }) => {
      if (this.isShown(document)) {
        this.paint();
      }
    }),
    // A tab that is shown again has an editor of its own.
    window.onDidChangeVisibleTextEditors(() => {
      this.paint();
    }),
    window.tabGroups.onDidChangeTabs((event) => {
      if (event.closed.some((tab) => isOf(tab.input, this.uri))) {
        this.uri = undefined;
        this.closed.fire();
      }
    }),
    this.textChanged,
    this.lensesChanged,
    this.closed,
    this.removed,
    this.inserted,
    this.left,
    ...this.tints,
  ];

  get isOpen(): boolean {
    return this.uri !== undefined;
  }

  /** Opens it where the document is shown, and brings the first change into sight. */
  async open(document: TextDocument, column: ViewColumn | undefined, scene: Scene): Promise<void> {
    this.scene = scene;
    const name = document.uri.path.split("/").at(-1) ?? "";
    // Another query each time: a text that was shown before must not come back.
    const query = String(++this.opened);
    const uri = Uri.from({ scheme: SCHEME, path: `/Preview of ${name}`, query });
    this.uri = uri;
    const shown = await workspace.openTextDocument(uri);
    if (shown.languageId !== document.languageId) {
      await languages.setTextDocumentLanguage(shown, document.languageId);
    }
    const editor = await window.showTextDocument(shown, {
      ...(column === undefined ? {} : { viewColumn: column }),
      preview: false,
    });
    if (this.uri !== uri) {
      await closeTabs(uri); // it was discarded meanwhile
      return;
    }
    const line = scene.drawing.hunks[0]?.old ?? scene.lenses[0]?.line ?? 0;
    const first = new Range(line, 0, line, 0);
    editor.selection = new Selection(first.start, first.start);
    editor.revealRange(first, TextEditorRevealType.InCenterIfOutsideViewport);
    this.paint();
  }

  update(scene: Scene): void {
    this.scene = scene;
    if (this.uri !== undefined) {
      this.textChanged.fire(this.uri);
      this.lensesChanged.fire();
      this.paint();
    }
  }

  async close(): Promise<void> {
    const uri = this.uri;
    this.uri = undefined;
    this.scene = undefined;
    if (uri !== undefined) {
      await closeTabs(uri);
    }
  }

  /** The line of the cursor in it. */
  get cursorLine(): number | undefined {
    return this.editor?.selection.active.line;
  }

  provideTextDocumentContent(uri: Uri): string {
    return this.uri?.toString() === uri.toString() ? (this.scene?.drawing.text ?? "") : "";
  }

  provideCodeLenses(document: TextDocument): CodeLens[] {
    const lenses = this.isShown(document) ? (this.scene?.lenses ?? []) : [];
    return lenses.map(({ line, command }) => new CodeLens(new Range(line, 0, line, 0), command));
  }

  dispose(): void {
    Disposable.from(...this.disposables).dispose();
  }

  private get editor(): (typeof window.visibleTextEditors)[number] | undefined {
    return window.visibleTextEditors.find(({ document }) => this.isShown(document));
  }

  private isShown(document: TextDocument): boolean {
    return document.uri.toString() === this.uri?.toString();
  }

  /** Colours the text, as soon as it is the one that the colours are for. */
  private paint(): void {
    const { editor, scene } = this;
    if (editor === undefined || scene === undefined) {
      return;
    }
    const { text, hunks, doubts } = scene.drawing;
    if (editor.document.getText() !== text) {
      return;
    }
    const kept = hunks.filter((hunk) => !hunk.left);
    editor.setDecorations(this.removed, kept.flatMap(({ old, now }) => lines(old, now)));
    editor.setDecorations(this.inserted, kept.flatMap(({ now, end }) => lines(now, end)));
    const leftOut = hunks.filter((hunk) => hunk.left);
    editor.setDecorations(this.left, leftOut.flatMap(({ old, now }) => lines(old, now)));
    const tinted = this.tints.map((): DecorationOptions[] => []);
    for (const { start, end, certainty } of doubts) {
      const range = editor.document.validateRange(
        new Range(start.line, start.character, end.line, end.character),
      );
      const hoverMessage = `The model gives this ${Math.round(100 * certainty)}%.`;
      tinted[TINTS.findIndex(([below]) => certainty < below)]?.push({ range, hoverMessage });
    }
    for (const [number, type] of this.tints.entries()) {
      editor.setDecorations(type, tinted[number] ?? []);
    }
  }
}

function lineDecoration(colour: string): ReturnType<typeof window.createTextEditorDecorationType> {
  return window.createTextEditorDecorationType({
    backgroundColor: new ThemeColor(colour),
    isWholeLine: true,
    overviewRulerColor: new ThemeColor(colour),
    overviewRulerLane: OverviewRulerLane.Full,
  });
}

/** One range for the lines from `start` to `end`, none if there are none. */
function lines(start: number, end: number): Range[] {
  return start < end ? [new Range(start, 0, end - 1, Number.MAX_SAFE_INTEGER)] : [];
}

async function closeTabs(uri: Uri): Promise<void> {
  const tabs = window.tabGroups.all.flatMap((group) => group.tabs);
  await window.tabGroups.close(tabs.filter((tab) => isOf(tab.input, uri)));
}

function isOf(input: unknown, uri: Uri | undefined): boolean {
  return input instanceof TabInputText && input.uri.toString() === uri?.toString();
}
