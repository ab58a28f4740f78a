// A rewrite as the text of a preview: what goes, what comes in its place, and how sure of it the
// model is.

import type { Hole, Result } from "./protocol";
import { type Hunk, hunksBetween, splitLines } from "./hunks";

/** A place in a text by its line and its character, as VS Code counts. */
export interface Place {
  line: number;
  character: number;
}

/** A part of the new text that the model is less than sure of. */
export interface Doubt {
  start: Place;
  end: Place;
  certainty: number;
}

/** The new text of a document, and the parts of it that are in doubt. */
export interface Draft {
  text: string;
  doubts: Doubt[];
}

/** A preview's text. Each hunk's old lines stand before its new ones. */
export interface Drawing {
  text: string;
  hunks: DrawnHunk[];
  doubts: Doubt[];
}

/** Where a hunk is in a preview: first line of the old ones, of the new ones, and behind both. */
export interface DrawnHunk {
  hunk: Hunk;
  left: boolean;
  old: number;
  now: number;
  end: number;
}

/** From this on the model counts as sure. */
export const SURE = 0.9;

/** The document as a frame has it. */
export function draftOf(old: string, holes: Hole[]): Draft {
  const source = new Source(old);
  const doubts: Doubt[] = [];
  let text = "";
  let from = 0;
  let pen: Place = { line: 0, character: 0 };
  const write = (part: string, certainty = 1): void => {
    const start = pen;
    pen = after(pen, part);
    text += part;
    if (certainty < SURE && part.trim() !== "") {
      doubts.push({ start, end: pen, certainty });
    }
  };
  for (const { range, before, after: behind, pieces } of sorted(holes)) {
    write(source.between(from, source.offset(range.start)));
    write(before);
    for (const [part, certainty] of pieces) {
      write(part.replace(/\r\n?/g, "\n"), certainty);
    }
    write(behind);
    from = source.offset(range.end);
  }
  write(source.between(from, source.text.length));
  return { text, doubts };
}

/** The document with a result's edit in it, of which nothing is known to be in doubt. */
export function editedText(old: string, result: Result): string {
  const source = new Source(old);
  const edits = (result.edit?.documentChanges ?? []).flatMap((change) => change.edits);
  let text = "";
  let from = 0;
  for (const edit of sorted(edits)) {
    text += source.between(from, source.offset(edit.range.start));
    text += edit.newText.replace(/\r\n?/g, "\n");
    from = source.offset(edit.range.end);
  }
  return text + source.between(from, source.text.length);
}

/** The preview of a draft; `left` says which hunks, by number, are left out. */
export function draw(old: string, draft: Draft, left: ReadonlySet<number>): Drawing {
  const before = splitLines(old);
  const now = splitLines(draft.text);
  const lines: string[] = [];
  const hunks: DrawnHunk[] = [];
  const rows = new Map<number, number>(); // lines of the draft as lines of the preview
  let line = 0;
  let row = 0;
  const same = (until: number): void => {
    for (; line < until; line++, row++) {
      rows.set(row, lines.length);
      lines.push(before[line] ?? "");
    }
  };
  for (const [number, hunk] of hunksBetween(before, now).entries()) {
    same(hunk.start);
    const drawn = { hunk, left: left.has(number), old: lines.length };
    lines.push(...before.slice(hunk.start, hunk.end));
    line = hunk.end;
    const first = lines.length;
    for (const text of hunk.lines) {
      if (!drawn.left) {
        rows.set(row, lines.length);
        lines.push(text);
      }
      row++;
    }
    hunks.push({ ...drawn, now: first, end: lines.length });
  }
  same(before.length);
  const doubts = draft.doubts.flatMap((doubt) => moved(doubt, rows));
  return { text: lines.join("\n"), hunks, doubts };
}

/** A doubt where it is in the preview, one for each of its lines that are shown there. */
function moved(doubt: Doubt, rows: ReadonlyMap<number, number>): Doubt[] {
  const parts: Doubt[] = [];
  for (let row = doubt.start.line; row <= doubt.end.line; row++) {
    const line = rows.get(row);
    if (line !== undefined) {
      const start = row === doubt.start.line ? doubt.start.character : 0;
      const end = row === doubt.end.line ? doubt.end.character : Number.MAX_SAFE_INTEGER;
      parts.push({
        start: { line, character: start },
        end: { line, character: end },
        certainty: doubt.certainty,
      });
    }
  }
  return parts;
}

function after(place: Place, text: string): Place {
  const lines = splitLines(text);
  const last = lines.at(-1) ?? "";
  return lines.length === 1
    ? { line: place.line, character: place.character + last.length }
    : { line: place.line + lines.length - 1, character: last.length };
}

function sorted<T extends { range: { start: Place } }>(items: T[]): T[] {
  const key = ({ range: { start } }: T): [number, number] => [start.line, start.character];
  return [...items].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    return a[0] - b[0] || a[1] - b[1];
  });
}

/** A text with the offsets of its lines. All line ends count as one character. */
class Source {
  readonly text: string;
  private readonly starts: number[] = [0];

  constructor(text: string) {
    const lines = splitLines(text);
    this.text = lines.join("\n");
    for (const line of lines) {
      this.starts.push((this.starts.at(-1) ?? 0) + line.length + 1);
    }
  }

  offset({ line, character }: Place): number {
    const start = this.starts[line] ?? this.text.length;
    const end = (this.starts[line + 1] ?? this.text.length + 1) - 1;
    return Math.min(start + character, end);
  }

  between(start: number, end: number): string {
    return this.text.slice(start, end);
  }
}
