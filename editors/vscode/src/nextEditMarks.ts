// How a next edit is drawn: what goes is struck out, what comes stands behind it, and a hint says
// what Tab does.

import {
  type DecorationOptions,
  Disposable,
  OverviewRulerLane,
  Range,
  type TextEditor,
  ThemeColor,
  window,
} from "vscode";

import type { WordChange } from "./words";

/** A text behind a line. */
export interface Hint {
  line: number;
  text: string;
}

/** What Tab does; told in the line of the edit, or in that of the cursor if it is out of sight. */
export function hintOf(line: number, cursor: number, inSight: boolean): Hint {
  if (cursor === line) {
    return { line, text: "Tab: accept" };
  }
  return inSight
    ? { line, text: "Tab: jump here" }
    : { line: cursor, text: `Tab: next edit, line ${line + 1}` };
}

export class NextEditMarks implements Disposable {
  private editor: TextEditor | undefined;
  private readonly old = window.createTextEditorDecorationType({
    backgroundColor: new ThemeColor("diffEditor.removedTextBackground"),
    textDecoration: "line-through",
  });
  private readonly now = window.createTextEditorDecorationType({
    after: { backgroundColor: new ThemeColor("diffEditor.insertedTextBackground") },
    overviewRulerColor: new ThemeColor("diffEditor.insertedLineBackground"),
    overviewRulerLane: OverviewRulerLane.Full,
  });
  private readonly hint = window.createTextEditorDecorationType({
    after: { color: new ThemeColor("editorGhostText.foreground"), margin: "0 0 0 2em" },
  });

  draw(editor: TextEditor, line: number, changes: WordChange[], hint: Hint): void {
    if (this.editor !== editor) {
      this.clear();
    }
    this.editor = editor;
    const ranges = changes.map(({ start, end }) => new Range(line, start, line, end));
    editor.setDecorations(this.old, ranges.filter((range) => !range.isEmpty));
    editor.setDecorations(this.now, changes.flatMap((change) => comes(line, change)));
    const { range } = editor.document.lineAt(hint.line);
    const after = { contentText: hint.text };
    editor.setDecorations(this.hint, [
      { range: new Range(range.end, range.end), renderOptions: { after } },
    ]);
  }

  clear(): void {
    for (const type of [this.old, this.now, this.hint]) {
      this.editor?.setDecorations(type, []);
    }
    this.editor = undefined;
  }

  dispose(): void {
    this.clear();
    Disposable.from(this.old, this.now, this.hint).dispose();
  }
}

function comes(line: number, { end, text }: WordChange): DecorationOptions[] {
  if (text === "") {
    return [];
  }
  // Blanks side by side would be drawn as one.
  const contentText = text.replace(/\t/g, "    ").replace(/ /g, "\u00a0");
  return [{ range: new Range(line, end, line, end), renderOptions: { after: { contentText } } }];
}
