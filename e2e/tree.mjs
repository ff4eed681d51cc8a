// Trees of files on disk, and what is in a zip.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { tempDir } from "./harness.mjs";

const hash = (/** @type {Buffer} */ data) => createHash("sha256").update(data).digest("hex");

/**
 * What lies under a folder: files by path, and empty folders with a slash behind it; times in whole seconds, which is what a zip keeps.
 * @param {string} dir
 * @returns {Record<string, { sha256: string, mtime: number }>}
 */
export function readTree(dir) {
  /** @type {Record<string, { sha256: string, mtime: number }>} */
  const found = {};
  const walk = (/** @type {string} */ at, /** @type {string} */ prefix) => {
    for (const name of fs.readdirSync(at)) {
      const full = path.join(at, name);
      const stat = fs.statSync(full);
      const mtime = Math.floor(stat.mtimeMs / 1000) * 1000;
      if (stat.isFile()) found[`${prefix}${name}`] = { sha256: hash(fs.readFileSync(full)), mtime };
      else if (fs.readdirSync(full).length === 0) found[`${prefix}${name}/`] = { sha256: "", mtime };
      else walk(full, `${prefix}${name}/`);
    }
  };
  walk(dir, "");
  return found;
}
readTree.hash = hash;

/** Tests a zip with unzip, and unpacks it into a folder of its own. @param {import("node:test").TestContext} t @param {string} file */
export function unzip(t, file) {
  const out = tempDir(t);
  const env = { ...process.env, LC_ALL: "C.UTF-8" };
  execFileSync("unzip", ["-tq", file], { env });
  execFileSync("unzip", ["-q", file, "-d", out], { env });
  return out;
}
