// The long form of page.test.mjs, for make soak: files that do not fit into memory, through the page, compared on disk. With TALLOW_BIG the first is of so
// many bytes.

import assert from "node:assert/strict";
import test from "node:test";
import { expectFiles, startServer, tempDir, writeFile } from "./harness.mjs";
import { Person } from "./person.mjs";
import { watchMemory } from "./pss.mjs";

const MiB = 1 << 20;

for (const { size, recipients } of [
  { size: Number(process.env.TALLOW_BIG || 8192 * MiB), recipients: 1 },
  { size: 2048 * MiB, recipients: 3 },
  { size: 256 * MiB, recipients: 5 },
]) {
  test(`${size} bytes to ${recipients}`, { timeout: 3_600_000 }, async (t) => {
    const server = await startServer(t);
    const folder = tempDir(t);
    const big = await writeFile(folder, "big.bin", size);
    const sender = await Person.arrive(t, { name: "sender", alone: true });
    await sender.open(`${server.url}/`);
    const link = await sender.link();
    const others = [];
    for (let i = 1; i <= recipients; i++) {
      const person = await Person.arrive(t, { name: `recipient ${i}`, alone: true });
      await person.open(link);
      others.push(person);
    }
    await sender.meets(recipients);
    const watches = await Promise.all([sender, ...others].map(({ page }) => watchMemory(page.browser(), 1000)));
    await sender.choose(big.file);
    const start = performance.now();
    await sender.press("Send");
    for (const person of others) await person.press("Accept");
    for (let i = 1; i <= recipients; i++) await sender.seesDelivery(`recipient ${i}`, /^Done: verified on disk$/, 3_000_000);
    const seconds = (performance.now() - start) / 1000;
    const peaks = await Promise.all(watches.map((watch) => watch.stop()));
    t.diagnostic(`${seconds.toFixed(0)} s, ${(size / 1e6 / seconds).toFixed(1)} MB/s; peak PSS of the tabs in MB: ${peaks.map((peak) => (peak / 1e6).toFixed(0)).join(", ")}`);
    assert.ok(Math.max(...peaks) < 400e6, "the tabs take more memory the larger the file is"); // with 64 MiB they take 120 to 150 MB
    for (const person of others) await expectFiles(person.downloads, [big], 600_000);
  });
}
