// The zip that web/zip.js writes, as other programs read it: unzip, and Python's zipfile.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { crc32, parts, zip } from "../web/zip.js";
import { tempDir } from "./harness.mjs";
import { readTree, unzip } from "./tree.mjs";

const python = (/** @type {string} */ script, /** @type {string[]} */ ...args) => JSON.parse(execFileSync("python3", ["-c", script, ...args], { encoding: "utf8" }));

/** Contents one after another, as a delivery has them. @param {{ path: string, data?: string, lastModified?: number, directory?: boolean }[]} files */
function delivery(files) {
  let at = 0;
  const entries = files.map(({ path: name, data = "", lastModified = 0, directory = false }) => {
    const size = Buffer.byteLength(data);
    at += size;
    return { path: name, at: at - size, size, lastModified, directory };
  });
  // Cut, so that an entry comes in several pieces.
  return { whole: new Blob(files.flatMap(({ data = "" }) => data.match(/[^]{1,50000}/gu) ?? [])), entries };
}

test("names of any script, empty files and folders, times", async (t) => {
  const when = Date.UTC(2011, 10, 12, 13, 14, 15);
  const files = [
    { path: "a/empty folder", directory: true, lastModified: when },
    { path: "a/plain.txt", data: "plain", lastModified: when },
    { path: "a/empty", lastModified: when },
    { path: "a/b/c/caf\u00e9", data: "composed", lastModified: when - 5_000 },
    { path: "a/b/c/cafe\u0301 (2)", data: "decomposed", lastModified: when },
    { path: "שלום/مرحبا.txt", data: "from right to left", lastModified: when },
    { path: "😀 日本語 \u{1f468}\u200d\u{1f469}\u200d\u{1f467}.bin", data: "0123456789abcde".repeat(300_000), lastModified: when },
    { path: "no time", data: "unknown" },
  ];
  const { whole, entries } = delivery(files);
  const file = path.join(tempDir(t), "all.zip");
  fs.writeFileSync(file, Buffer.from(await (await zip(whole, entries)).arrayBuffer()));

  const out = unzip(t, file);
  const found = readTree(out);
  assert.deepEqual(Object.keys(found).sort(), files.map(({ path, directory }) => (directory ? `${path}/` : path)).sort());
  for (const { path: name, data = "", lastModified, directory } of files) {
    const { mtime, sha256 } = found[directory ? `${name}/` : name];
    if (!directory) assert.equal(sha256, readTree.hash(Buffer.from(data)), name);
    if (lastModified) assert.equal(mtime, lastModified, `time of ${name}`);
    else assert.ok(Math.abs(mtime - Date.now()) < 86_400_000, `time of ${name}`);
  }
  const seen = python("import json,sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); print(json.dumps([z.testzip(), z.namelist()]))", file);
  assert.deepEqual(seen, [null, files.map(({ path, directory }) => (directory ? `${path}/` : path))]);
});

test("what was left out of the middle, and what has become shorter", async () => {
  const { whole, entries } = delivery([{ path: "a", data: "aaa" }, { path: "b", data: "bbbb" }, { path: "c", data: "cc" }]);
  const file = Buffer.from(await (await zip(whole, [entries[0], entries[2]])).arrayBuffer());
  assert.ok(!file.includes("bbbb") && file.includes("aaa") && file.includes("cc"));
  await assert.rejects(zip(whole.slice(0, 5), entries), { name: "NotReadableError" });
  const stop = new AbortController();
  stop.abort(new Error("enough"));
  await assert.rejects(zip(whole, entries, stop.signal), /enough/);
});

test("beyond 4 GiB, and more than 65,535 entries", async (t) => {
  const big = 2 ** 32 + 5;
  const entries = [
    { path: "just below", at: 0, size: 2 ** 32 - 2, lastModified: 0, directory: false, crc: 1 },
    { path: "beyond", at: 2 ** 32 - 2, size: big, lastModified: 0, directory: false, crc: 2 },
    { path: "last.txt", at: 2 ** 33 + 3, size: 4, lastModified: 0, directory: false, crc: crc32(0, Buffer.from("last")) },
    { path: "folder", at: 0, size: 0, lastModified: 0, directory: true, crc: 0 },
  ];
  const file = path.join(tempDir(t), "big.zip");
  const out = fs.openSync(file, "w");
  let at = 0;
  for (const part of parts(entries, Date.now())) {
    // The large ones stay holes: a disk need not have that much.
    const data = part instanceof Uint8Array ? part : part.size === 4 ? Buffer.from("last") : undefined;
    if (data) fs.writeSync(out, data, 0, data.length, at);
    at += data ? data.length : part.size;
  }
  fs.closeSync(out);
  const read = "import json,sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); print(json.dumps([[(i.filename, i.file_size, i.CRC) for i in z.infolist()], z.read('last.txt').decode()]))";
  assert.deepEqual(python(read, file), [entries.map(({ path: name, size, crc, directory }) => [directory ? `${name}/` : name, size, crc]), "last"]);
  assert.match(execFileSync("unzip", ["-p", file, "last.txt"], { encoding: "utf8" }), /^last$/);
  assert.match(execFileSync("unzip", ["-l", file], { encoding: "utf8" }), new RegExp(`${big}.*beyond`));

  const many = Array.from({ length: 70_000 }, (_, i) => ({ path: `${i}`, at: 0, size: 0, lastModified: 1e12, directory: false, crc: 0 }));
  const crowd = path.join(tempDir(t), "crowd.zip");
  fs.writeFileSync(crowd, Buffer.concat(/** @type {Uint8Array[]} */ (parts(many, Date.now()))));
  const count = "import json,sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); print(json.dumps([len(z.namelist()), z.namelist()[-1]]))";
  assert.deepEqual(python(count, crowd), [70_000, "69999"]);
  assert.ok(fs.readFileSync(crowd).includes("PK\x06\x06"), "the count is in a record of zip64");
});
