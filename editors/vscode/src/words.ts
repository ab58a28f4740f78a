// What differs between two versions of a line, in words and signs.

import { diffArrays } from "diff";

/** The characters from `start` to `end` of the old line become `text`. */
export interface WordChange {
  start: number;
  end: number;
  text: string;
}

/** What makes `now` of the line `old`, from left to right. */
export function wordChanges(old: string, now: string): WordChange[] {
  const changes: WordChange[] = [];
  let at = 0;
  let open: WordChange | undefined;
  for (const { added, removed, value } of diffArrays(partsOf(old), partsOf(now))) {
    const text = value.join("");
    if (!added && !removed) {
      at += text.length;
      open = undefined;
      continue;
    }
    if (open === undefined) {
      open = { start: at, end: at, text: "" };
      changes.push(open);
    }
    if (added) {
      open.text += text;
    } else {
      at += text.length;
      open.end = at;
    }
  }
  return changes;
}

function partsOf(line: string): string[] {
  return line.match(/[\p{L}\p{M}\p{N}_]+|\s+|[^]/gu) ?? [];
}
