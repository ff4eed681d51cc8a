// Firefox with Chromium and with itself, through the page.

import assert from "node:assert/strict";
import test from "node:test";
import { CHUNK, expectFiles, startServer, tempDir, writeFile } from "./harness.mjs";
import { Person } from "./person.mjs";

test("files go between Firefox and Chromium, and between two Firefoxes", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const files = [await writeFile(folder, "empty.bin", 0), await writeFile(folder, "chunk and one – größer.bin", CHUNK + 1), await writeFile(folder, "big.bin", 8 << 20)];

  const [fay, finn, chris] = await Promise.all([
    Person.arrive(t, { kind: "firefox", name: "Fay" }),
    Person.arrive(t, { kind: "firefox", name: "Finn" }),
    Person.arrive(t, { name: "Chris" }),
  ]);
  await fay.open(`${server.url}/`);
  const link = await fay.link();
  for (const person of [finn, chris]) await person.open(link);
  await Promise.all([fay, finn, chris].map((person) => person.meets(2)));

  await t.test("from Firefox to both", async () => {
    await fay.choose(...files.map(({ file }) => file));
    await fay.press("Send");
    for (const person of [finn, chris]) await person.press("Accept");
    for (const name of ["Finn", "Chris"]) await fay.seesDelivery(name, /^Done: verified on disk$/);
    for (const person of [finn, chris]) await expectFiles(person.downloads, files);
  });

  await t.test("from Chromium to both, one of whom declines", async () => {
    const other = await writeFile(folder, "other.bin", 2 << 20);
    await chris.choose(other.file);
    await chris.press("Send");
    await fay.press("Accept");
    await finn.press("Decline");
    await chris.seesDelivery("Fay", /^Done: verified on disk$/);
    await chris.seesDelivery("Finn", /^Declined$/);
    await expectFiles(fay.downloads, [other]);
  });

  await t.test("a reload keeps the room", async () => {
    await finn.page.reload();
    await finn.meets(2);
  });

  for (const person of [fay, finn, chris]) assert.deepEqual(person.errors, []);
});
