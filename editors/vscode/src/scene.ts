// What can be seen and clicked in a preview, at each point of a rewrite's life.

import type { Range } from "vscode";

import { type Draft, draw, type DrawnHunk } from "./drawing";
import type { Lens, Scene } from "./view";

/** What is asked of the server. `strength`: whether it starts from a draft that may change. */
export interface Order {
  title: string;
  command: string;
  range: Range;
  instruction?: string;
  strength: boolean;
}

/** A rewrite as far as it is shown. */
export interface Shown {
  order: Order;
  text: string;
  strength: number;
  running: boolean;
  /** What it is doing, or why there is nothing new. */
  note: string;
  /** Why what was asked for last changes nothing; what there is can still be accepted. */
  hint: string;
  draft: Draft;
  left: Set<number>;
}

/** The scene of a rewrite as it is now. */
export function sceneOf(rewrite: Shown): Scene {
  const drawing = draw(rewrite.text, rewrite.draft, rewrite.left);
  const top = drawing.hunks[0]?.old ?? rewrite.order.range.start.line;
  const lenses = lensesAt(top, rewrite);
  // Hunks are chosen among when they hold still.
  if (!rewrite.running && drawing.hunks.length > 1) {
    lenses.push(...drawing.hunks.flatMap(lensesOfHunk));
  }
  return { drawing, lenses };
}

function lensesAt(line: number, rewrite: Shown): Lens[] {
  const lens = (title: string, command = ""): Lens => ({ line, command: { title, command } });
  const { order, running, note } = rewrite;
  if (running) {
    return [lens(`$(loading~spin) ${note}`), lens("Discard", "diffgemma.preview.discard")];
  }
  const percent = Math.round(100 * rewrite.strength);
  return [
    ...(note === "" ? [lens("$(check) Accept", "diffgemma.preview.accept")] : [lens(note)]),
    lens("$(refresh) Again", "diffgemma.preview.again"),
    ...(order.strength
      ? [
          lens("More change", "diffgemma.preview.more"),
          lens("Less change", "diffgemma.preview.less"),
          lens(`(${percent}% may change${rewrite.hint})`),
        ]
      : []),
    lens("$(close) Discard", "diffgemma.preview.discard"),
  ];
}

function lensesOfHunk(drawn: DrawnHunk, number: number): Lens[] {
  const lens = (title: string, command: string): Lens => ({
    line: drawn.old,
    command: { title, command, arguments: [number] },
  });
  return drawn.left
    ? [lens("Left out: take it in again", "diffgemma.preview.toggle")]
    : [
        lens("Accept only this", "diffgemma.preview.acceptOne"),
        lens("Leave this out", "diffgemma.preview.toggle"),
      ];
}
