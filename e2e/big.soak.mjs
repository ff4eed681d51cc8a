// The long form of page.test.mjs, for make soak: files that do not fit into memory, through the page, compared on disk.

import test from "node:test";
import { expectFiles, startServer, tempDir, writeFile } from "./harness.mjs";
import { Person } from "./person.mjs";

const MiB = 1 << 20;

for (const { size, recipients } of [
  { size: 2048 * MiB, recipients: 1 },
  { size: 256 * MiB, recipients: 5 },
]) {
  test(`${size / MiB} MiB to ${recipients}`, { timeout: 1_800_000 }, async (t) => {
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
    await sender.choose(big.file);
    await sender.press("Send");
    for (const person of others) await person.press("Accept");
    for (let i = 1; i <= recipients; i++) await sender.seesDelivery(`recipient ${i}`, /^Done: verified on disk$/, 1_500_000);
    for (const person of others) await expectFiles(person.downloads, [big], 300_000);
  });
}
