// What can be seen and clicked in a preview, at each point of a rewrite's life.

import type { Range } from "vscode";

import { type Draft, draw, type DrawnHunk } from "./drawing";
import type { Frame } from "./protocol";
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

/** How far a run is. Its first frame, before any pass, is the draft. */
export function noteOf({ step, planned }: Frame): string {
  return step === 0 ? "starting" : `pass ${step} of ${planned}`;
}

/** In few words: those of the first change stand in the same line. */
function lensesAt(line: number, rewrite: Shown): Lens[] {
  const lens = (title: string, command = "", tooltip = title): Lens => ({
    line,
    command: { title, command, tooltip },
  });
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
          lens("$(remove)", "diffgemma.preview.less", "Less change"),
          lens(`${percent}%${rewrite.hint}`, "", "So much of it may change"),
          lens("$(add)", "diffgemma.preview.more", "More change"),
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
    ? [lens("Take it in again", "diffgemma.preview.toggle")]
    : [
        lens("Only this", "diffgemma.preview.acceptOne"),
        lens("Leave out", "diffgemma.preview.toggle"),
      ];
}
