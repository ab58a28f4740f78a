// What to offer beside a message that says what is wrong: only what is a cure.

export const SET_PATH = "Set the Path";
export const HELP = "How to Install";
export const AGAIN = "Try Again";
export const OUTPUT = "Show Output";
export const SETTINGS = "Open Settings";

/** The buttons of a message about the server's program. */
export function waysOut(reason: string): string[] {
  const path = reason.includes("diffgemma.server.path") ? [SET_PATH, HELP] : [];
  return [...path, AGAIN, OUTPUT];
}

/** What is set right outside of the settings: modes of files, and the environment. */
const ELSEWHERE = /\bchmod\b|\bDIFFGEMMA_|\bpull\b|\binstall\b/;

/** What a message speaks of, and the query that finds the settings of it; the first that fits. */
const TOPICS: readonly [RegExp, string][] = [
  [/\btoken\b/, "@id:diffgemma.engineTokenFile"],
  [/\bengine at\b/, "@id:diffgemma.engineUrl"],
  [/\btime\b/, "diffgemma budget"],
  [/\bmodel\b/, "@id:diffgemma.model"],
  [/\bdevice\b/, "@id:diffgemma.device"],
];

/** The query for the settings that a message of the server is about, if they are the cure. */
export function settingsFor(message: string): string | undefined {
  // A wrong setting is named first, `like_this`, or behind the word.
  const named =
    /^(?:diffgemma-lsp: )?([a-z]+(?:_[a-z]+)*)[:[]/.exec(message)?.[1] ??
    /\bsettings? ([a-z]+(?:_[a-z]+)*)/.exec(message)?.[1];
  if (named !== undefined) {
    const camel = named.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    return `@id:diffgemma.${camel}`;
  }
  return ELSEWHERE.test(message)
    ? undefined
    : TOPICS.find(([topic]) => topic.test(message))?.[1];
}
