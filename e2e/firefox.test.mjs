// Firefox with Chromium and with itself, through the page.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { CHUNK, expectFiles, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { Person } from "./person.mjs";

test("files go between Firefox and Chromium, and between two Firefoxes", { timeout: 480_000 }, async (t) => {
  // Firefox refuses a configuration with STUN over TLS.
  const server = await startServer(t, { args: ["-ice-servers", '[{"urls":"stuns:127.0.0.1:1"}]'] });
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

  await t.test("the largest chunks there are", async () => {
    /** @type {Record<string, Person>} */
    const people = { Fay: fay, Finn: finn, Chris: chris };
    const huge = path.join(folder, "huge.bin"); // only its length decides on the chunks' size: nobody takes it
    fs.closeSync(fs.openSync(huge, "w"));
    fs.truncateSync(huge, 130 * 2 ** 30);
    const some = await writeFile(folder, "some.bin", 3 * (4 << 20) + 1);
    for (const [sender, ...names] of [["Fay", "Finn", "Chris"], ["Chris", "Fay", "Finn"]]) {
      const others = names.map((name) => people[name]);
      for (const { downloads } of others) for (const name of fs.readdirSync(downloads)) fs.rmSync(path.join(downloads, name));
      await people[sender].choose(huge, some.file);
      await people[sender].press("Send");
      for (const person of others) {
        await person.page.waitForFunction(() => {
          const label = [...document.querySelectorAll(".offer li label")].find(({ textContent }) => textContent?.trim() === "huge.bin");
          /** @type {HTMLElement | undefined} */ (label)?.click();
          return label;
        });
        await person.press("Accept");
      }
      for (const name of names) await people[sender].seesDelivery(name, /^Done: verified on disk$/);
      for (const person of others) await expectFiles(person.downloads, [some]);
    }
  });

  await t.test("a reload keeps the room", async () => {
    await finn.page.reload();
    await finn.meets(2);
  });

  await t.test("what is kept to restore the tabs from has no link", async () => {
    const [secret] = /[\w-]{64}$/.exec(link) ?? [];
    assert.ok(secret);
    for (const person of [fay, finn]) {
      const name = (await person.page.evaluate(() => document.title)) + ` ${Math.random()}`;
      await person.page.evaluate((title) => void (document.title = title), name);
      const folder = path.join(person.profile, "sessionstore-backups");
      // Firefox writes beside them, and renames: one of them may just be missing.
      const files = () => ["recovery.jsonlz4", "recovery.baklz4"].map((file) => path.join(folder, file)).filter((file) => fs.existsSync(file));
      const saved = () => files().map((file) => restore(fs.readFileSync(file)));
      await until("the tab is on disk as it is now", () => saved().some((text) => text.includes(name)));
      for (const text of saved()) assert.ok(!text.includes(secret));
    }
  });

  for (const person of [fay, finn, chris]) assert.deepEqual(person.errors, []);
});

/** A file of Firefox's session store: "mozLz40", its length, and a block of LZ4. @param {Buffer} file */
function restore(file) {
  assert.equal(file.toString("latin1", 0, 8), "mozLz40\0");
  const out = Buffer.alloc(file.readUInt32LE(8));
  let [from, to] = [12, 0];
  const length = (/** @type {number} */ nibble) => {
    let n = nibble;
    for (let more = nibble === 15; more; n += file[from], more = file[from++] === 255);
    return n;
  };
  while (from < file.length) {
    const token = file[from++];
    const literals = length(token >> 4);
    file.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from >= file.length) break;
    const back = file.readUInt16LE(from);
    from += 2;
    for (let n = length(token & 15) + 4; n > 0; n--, to++) out[to] = out[to - back];
  }
  assert.equal(to, out.length);
  return out.toString();
}
