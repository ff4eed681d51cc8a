// A zip of more than 4 GiB, as a whole: made of a Blob on disk, and tested to its last byte.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import test from "node:test";
import { zip } from "../web/zip.js";
import { tempDir } from "./harness.mjs";

test("5 GiB", async (t) => {
  const dir = tempDir(t);
  const source = path.join(dir, "source");
  fs.writeFileSync(source, "begin");
  fs.truncateSync(source, 5 * 2 ** 30);
  fs.appendFileSync(source, "end");
  const size = 5 * 2 ** 30 + 3;
  const entries = [
    { path: "big", at: 0, size: size - 3, lastModified: 1e12, directory: false },
    { path: "end", at: size - 3, size: 3, lastModified: 1e12, directory: false },
  ];
  const before = process.memoryUsage.rss();
  const archive = await zip(await fs.openAsBlob(source), entries);
  const file = path.join(dir, "big.zip");
  await pipeline(Readable.fromWeb(/** @type {any} */ (archive.stream())), fs.createWriteStream(file));
  assert.ok(process.memoryUsage.rss() - before < 512 << 20, `${process.memoryUsage.rss() - before} bytes of memory`);
  execFileSync("unzip", ["-tq", file]);
  assert.equal(execFileSync("unzip", ["-p", file, "end"], { encoding: "utf8" }), "end");
});
