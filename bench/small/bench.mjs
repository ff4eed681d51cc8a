// make bench-small: ten thousand small files against one big file of the same total, real files in, verified bytes on disk out.
//
//	node bench/small/bench.mjs [--files 10000] [--bytes 10240] [--pairs 5]
//
// The two are measured in turn in the same two browsers; small_ratio is the median of the ratios of neighbours, rate of the small ones over that of the big one.
// The time of a run is from send() to the sender's knowing, by receipt, that everything is verified on disk.

import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { startBrowser, startServer, tempDir, writeFile } from "../../e2e/harness.mjs";
import { loadMember } from "../../e2e/member.mjs";
import { median } from "../median.mjs";

const { values } = parseArgs({
  options: { files: { type: "string", default: "10000" }, bytes: { type: "string", default: "10240" }, pairs: { type: "string", default: "5" } },
});
const files = Number(values.files);
const bytes = Number(values.bytes);
const total = files * bytes;

const cleanups = [];
const t = /** @type {any} */ ({ after: (fn) => cleanups.push(fn) });

try {
  const server = await startServer(t);
  const dir = tempDir(t);
  const big = await writeFile(dir, "big.bin", total);
  const small = path.join(dir, "small");
  fs.mkdirSync(small);
  const data = fs.readFileSync(big.file);
  for (let i = 0; i < files; i++) fs.writeFileSync(path.join(small, `${i}.bin`), data.subarray(i * bytes, (i + 1) * bytes));
  const pages = [];
  for (let i = 0; i < 2; i++) {
    const { browser } = await startBrowser(t);
    const page = await browser.newPage();
    await loadMember(page, server.url);
    pages.push(page);
  }
  const [a, b] = pages;
  const link = await a.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "Ann" }));
    for (const id of ["big", "small"]) {
      const input = Object.assign(document.createElement("input"), { type: "file", id, webkitdirectory: id === "small" });
      document.body.append(input);
    }
    return me.room.link;
  });
  await b.evaluate(async (to) => me.watch(await me.tallow.joinRoom(to, { name: "Bob" })), link);
  await Promise.all(pages.map((page) => page.evaluate(() => me.meets(1))));
  await /** @type {any} */ (await a.$("#big")).uploadFile(big.file);
  await /** @type {any} */ (await a.$("#small")).uploadFile(small);

  const run = async (/** @type {string} */ what) => {
    const arrived = b.evaluate(async () => {
      const transfer = (await me.offer(120_000)).accept();
      const { files } = await transfer.finished;
      const size = files.reduce((sum, file) => sum + file.size, 0);
      await transfer.discard();
      return [files.length, size];
    });
    const seconds = await a.evaluate(async (id) => {
      const input = /** @type {HTMLInputElement} */ (document.getElementById(id));
      const list = [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
      const start = performance.now();
      const { failedRecipients } = await me.room.send(list).finished;
      if (failedRecipients.length) throw new Error(JSON.stringify(failedRecipients));
      return (performance.now() - start) / 1000;
    }, what);
    const [n, size] = await arrived;
    if (n !== (what === "big" ? 1 : files) || size !== total) throw new Error(`${n} files of ${size} bytes arrived`);
    const rate = total / 1e6 / seconds;
    console.log(`${what.padEnd(6)} ${seconds.toFixed(2).padStart(6)} s ${rate.toFixed(1).padStart(6)} MB/s`);
    return rate;
  };
  for (const what of ["big", "small"]) await run(what); // warms up
  const ratios = [];
  for (let i = 0; i < Number(values.pairs); i++) {
    const whole = await run("big");
    ratios.push((await run("small")) / whole);
  }
  console.log(`ratios ${ratios.map((r) => r.toFixed(3)).join(" ")}`);
  console.log(`small_ratio=${median(ratios).toFixed(3)}`);
} finally {
  for (const fn of cleanups.reverse()) await fn();
}
