// What differs between two texts, in lines; and a text of which some hunks were left out.

import { diffArrays } from "diff";

/** The lines from `start` to `end` of the old text become `lines`. */
export interface Hunk {
  start: number;
  end: number;
  lines: string[];
}

export function splitLines(text: string): string[] {
  return text.split(/\r\n|\r|\n/);
}

/** What makes `now` of `old`. */
export function hunksBetween(old: string[], now: string[]): Hunk[] {
  const hunks: Hunk[] = [];
  let line = 0;
  let open: Hunk | undefined;
  for (const change of diffArrays(old, now)) {
    if (!change.added && !change.removed) {
      line += change.value.length;
      open = undefined;
      continue;
    }
    if (open === undefined) {
      open = { start: line, end: line, lines: [] };
      hunks.push(open);
    }
    if (change.added) {
      open.lines.push(...change.value);
    } else {
      line += change.value.length;
      open.end = line;
    }
  }
  return hunks;
}

/** An edit of whole lines that is right at the end of a text as well, where no line end follows. */
export interface LineEdit {
  start: { line: number; character: number };
  end: { line: number; character: number };
  text: string;
}

/** The hunk as an edit of a text with the lines `old`. */
export function editOf(hunk: Hunk, old: string[]): LineEdit {
  if (hunk.end < old.length) {
    return {
      start: { line: hunk.start, character: 0 },
      end: { line: hunk.end, character: 0 },
      text: hunk.lines.map((line) => `${line}\n`).join(""),
    };
  }
  const last = old.length - 1;
  const end = { line: last, character: (old[last] ?? "").length };
  if (hunk.start === 0) {
    return { start: { line: 0, character: 0 }, end, text: hunk.lines.join("\n") };
  }
  const before = { line: hunk.start - 1, character: (old[hunk.start - 1] ?? "").length };
  return { start: before, end, text: hunk.lines.map((line) => `\n${line}`).join("") };
}
