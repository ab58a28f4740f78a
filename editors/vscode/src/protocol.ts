// What the server sends and takes beyond the standard; editors/README.md has the meaning.

import type { Range, TextEdit } from "vscode-languageserver-protocol";

export const STATUS = "diffgemma/status";
export const STATUS_CHANGED = "diffgemma/didChangeStatus";
export const FRAME = "diffgemma/frame";
export const REFUSE_NEXT_EDIT = "diffgemma/refuseNextEdit";

export type ServerState = "idle" | "loading" | "ready" | "filling" | "slow" | "off" | "error";

export interface Status {
  state: ServerState;
  message: string;
  percent: number | null;
}

/**
 * The answer to diffgemma/status. `can`: "fill", and "instruct" if it follows instructions.
 * `languages`: those in which it suggests without being asked, "*" for all; null as long as it has
 * not been loaded.
 */
export interface FullStatus extends Status {
  model: string | null;
  can: string[];
  languages: string[] | null;
  lastReason: string | null;
  suggestions: { shown: number; accepted: number; characters: number };
  document: { uri: string; off: string | null; reasons: Record<string, string> } | null;
}

/**
 * That the model suggests in a language only when it is asked, or may do so; undefined where it
 * does more. `usual`: what is expected of a model that has not been loaded.
 */
export function onlyAsked(
  status: Pick<FullStatus, "model" | "languages"> | undefined,
  language: string,
  usual: string[],
): string | undefined {
  const known = status?.languages ?? usual;
  if (known.includes("*") || known.includes(language)) {
    return undefined;
  }
  const does = status?.languages == null ? "The model may suggest" : `${status.model} suggests`;
  return `${does} in ${language} only when you ask (Suggest Here)`;
}

/** A text, and how sure the model is of it, from 0 to 1. */
export type Piece = [text: string, certainty: number];

export interface Hole {
  range: Range;
  before: string;
  after: string;
  pieces: Piece[];
}

/** A run as it is after one of its passes. */
export interface Frame {
  token: string | null;
  textDocument: { uri: string; version: number };
  step: number;
  planned: number;
  holes: Hole[];
}

/** What came of a command. */
export interface Result {
  applied: boolean;
  message: string | null;
  /** What gave it; absent where there is a message. */
  seed?: number;
  edit: {
    documentChanges?: { textDocument: { uri: string; version: number }; edits: TextEdit[] }[];
  } | null;
}

/** A text for a line of a document. */
export interface NextEditAnswer {
  text: string;
  range: Range;
  textDocument: { uri: string; version: number };
}

/** What must follow the last edits of a document, or nothing. */
export interface NextEditResult {
  edits: NextEditAnswer[];
}
