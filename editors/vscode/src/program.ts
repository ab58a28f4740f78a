// Where the server's program is, and what to say where it is not.

import { execFile } from "node:child_process";
import { constants, promises as fs } from "node:fs";
import * as os from "node:os";
import * as path from "node:path";

const PROBE_MS = 20_000;

/** There is no program to start, or it is not the server; the message says what to do. */
export class NoServer extends Error {}

/**
 * The program that the setting names: a path, or a name that is looked up on the PATH alone.
 * Never in the workspace: to open a folder must not choose what runs. Throws NoServer.
 */
export async function findProgram(setting: string): Promise<string> {
  const wanted = setting.trim().replace(/^~(?=$|[\\/])/, os.homedir());
  if (wanted.includes("/") || wanted.includes(path.sep)) {
    if (!path.isAbsolute(wanted)) {
      throw new NoServer(
        `"${setting}" is not an absolute path. Set diffgemma.server.path to one.`,
      );
    }
    if (await isProgram(wanted)) {
      return wanted;
    }
    if (await isFile(wanted)) {
      throw new NoServer(`${wanted} may not be run: chmod +x it, and try again.`);
    }
    throw new NoServer(
      `There is no program at ${wanted}. Set diffgemma.server.path to where diffgemma-lsp is.`,
    );
  }
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
    for (const ending of process.platform === "win32" ? [".exe", ".cmd", ""] : [""]) {
      const candidate = path.join(folder, wanted + ending);
      if (path.isAbsolute(folder) && (await isProgram(candidate))) {
        return candidate;
      }
    }
  }
  throw new NoServer(
    `The server ${wanted} is not on the PATH. Install it, or set diffgemma.server.path to where ` +
      "it is.",
  );
}

/** Why a program that did not start to serve is not the server, as far as it says itself. */
export async function whyNot(program: string): Promise<string> {
  const { output, error } = await versionOf(program);
  if (error === null && output.startsWith("diffgemma-lsp ")) {
    return "The server did not start. Its output says more.";
  }
  const last = ((error ?? output).trim().split("\n").at(-1) ?? "").replace(/\.$/, "");
  return (
    `${program} is not a working diffgemma-lsp${last === "" ? "" : `: ${last.slice(0, 200)}`}. ` +
    "Install it again, or set diffgemma.server.path to one that works."
  );
}

function versionOf(program: string): Promise<{ output: string; error: string | null }> {
  return new Promise((resolve) => {
    execFile(program, ["--version"], { timeout: PROBE_MS }, (failure, stdout, stderr) => {
      const error = failure === null ? null : stderr.trim() === "" ? failure.message : stderr;
      resolve({ output: stdout, error });
    });
  });
}

async function isProgram(file: string): Promise<boolean> {
  try {
    await fs.access(file, constants.X_OK);
    return await isFile(file);
  } catch {
    return false;
  }
}

async function isFile(file: string): Promise<boolean> {
  try {
    return (await fs.stat(file)).isFile();
  } catch {
    return false;
  }
}
