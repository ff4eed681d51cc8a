// The main job, as people do it: four browsers, one room, files from disk to disk.

import assert from "node:assert/strict";
import test from "node:test";
import jsqr from "jsqr";
import { PNG } from "pngjs";
import { CHUNK, expectFiles, startServer, tempDir, writeFile } from "./harness.mjs";
import { Person } from "./person.mjs";

test("one sends files and a text to three; two accept, one declines; one sends back", { timeout: 600_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const files = [
    await writeFile(folder, "empty.bin", 0),
    await writeFile(folder, "one byte.bin", 1),
    await writeFile(folder, "chunk less one.bin", CHUNK - 1),
    await writeFile(folder, "chunk.bin", CHUNK),
    await writeFile(folder, "chunk and one – größer.bin", CHUNK + 1),
    await writeFile(folder, "big.bin", 100 << 20),
  ];

  const [ada, ben, cleo, dan] = await Promise.all(["Ada", "Ben", "Cleo", "Dan"].map((name) => Person.arrive(t, { name, alone: name === "Ben" })));
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  assert.match(link, /#v1\.[A-Za-z0-9_-]{64}$/);
  const qr = await ada.control("image", "QR code of the link to this room");
  const picture = PNG.sync.read(Buffer.from(await qr.screenshot()));
  assert.equal(jsqr(new Uint8ClampedArray(picture.data), picture.width, picture.height)?.data, link, "the QR code says the link");

  for (const person of [ben, cleo, dan]) await person.open(link);
  await Promise.all([ada, ben, cleo, dan].map((person) => person.meets(3)));
  assert.equal(await ben.page.evaluate(() => location.href), `${server.url}/`, "the secret has left the address bar");
  await ada.sees(/Ben[^]*Cleo[^]*Dan|Ben[^]*Dan[^]*Cleo|Cleo[^]*Ben[^]*Dan|Cleo[^]*Dan[^]*Ben|Dan[^]*Ben[^]*Cleo|Dan[^]*Cleo[^]*Ben/);

  await t.test("both sides see the same safety words", async () => {
    await (await ada.control("DisclosureTriangle", "Verify Ben")).click();
    await (await ben.control("DisclosureTriangle", "Verify Ada")).click();
    const words = (/** @type {Person} */ person) => person.page.evaluate(() => document.querySelector("details[open] .words")?.textContent);
    const ours = await words(ada);
    assert.equal((ours ?? "").split(" ").length, 4);
    assert.equal(await words(ben), ours);
    await ada.press("They match");
    await ada.sees(/Connected · \w+( · relayed)? · verified/);
  });

  await t.test("files", async () => {
    const seenByAda = await ada.watchStates();
    const seenByBen = await ben.watchStates();
    await ada.choose(...files.map(({ file }) => file));
    await ada.sees(/6 files, 106 MB · to all 3 people/);
    await ada.press("Send");
    for (const person of [ben, cleo, dan]) {
      await person.sees(/Ada wants to send you empty\.bin and 5 more \(106 MB\)/);
      await person.sees(/chunk and one – größer\.bin/);
    }
    await ada.seesDelivery("Dan", /^Waiting for an answer$/);
    await dan.press("Decline");
    await ada.seesDelivery("Dan", /^Declined$/);
    await ben.press("Accept");
    await cleo.press("Accept");
    for (const name of ["Ben", "Cleo"]) await ada.seesDelivery(name, /^Done: verified on disk$/, 300_000);
    await ada.sees(/2 of 3 recipients received everything/);
    for (const person of [ben, cleo]) {
      await person.sees(/Verified, and handed to your browser’s downloads: 6 files/);
      await expectFiles(person.downloads, files);
    }
    await expectFiles(dan.downloads, []);
    const states = await seenByAda();
    for (const state of ["Ben: offered", "Ben: transferring", "Ben: done", "Cleo: transferring", "Cleo: done", "Dan: declined"])
      assert.ok(states.includes(state), `${state} was shown; shown were ${states}`);
    const received = await seenByBen();
    for (const state of ["Ada: transferring", "Ada: done"]) assert.ok(received.includes(state), `${state} was shown; shown were ${received}`);
  });

  await ben.press("Clear"); // the browser may still be saving what it was handed

  await t.test("text, to one who is picked", async () => {
    await (await ada.control("checkbox", "Cleo")).click();
    await (await ada.control("checkbox", "Dan")).click();
    await ada.type("Or a text, a link, a password", "Room 4 <b>at nine</b>");
    await ada.sees(/a text · to Ben/);
    await ada.press("Send");
    await ben.press("Accept");
    await ben.sees(/Room 4 <b>at nine<\/b>/);
    await ada.seesDelivery("Ben", /^Done/);
    const stored = await ben.page.evaluate(async () => {
      const sum = async (/** @type {any} */ folder) => {
        let bytes = 0;
        for await (const child of folder.values()) bytes += child.kind === "file" ? (await child.getFile()).size : await sum(child);
        return bytes;
      };
      return sum(await navigator.storage.getDirectory());
    });
    assert.ok(stored > 100 << 20, "what was cleared is still there for the browser to save");
    assert.doesNotMatch(await cleo.text(), /wants to send/);
    assert.doesNotMatch(await dan.text(), /wants to send/);
  });

  await t.test("a recipient sends back", async () => {
    const reply = await writeFile(folder, "reply.bin", 3 * CHUNK + 5);
    await dan.choose(reply.file);
    await dan.press("Send");
    await ada.press("Accept");
    await dan.seesDelivery("Ada", /^Done/);
    await expectFiles(ada.downloads, [reply]);
    await dan.press("Cancel all");
    await dan.seesDelivery("Ben", /^Cancelled$/);
    await ben.sees(/The offer is gone\. Cancelled by the other side/);
  });

  await t.test("one who declined is asked again", async () => {
    const again = await writeFile(folder, "again.bin", 1000);
    await ada.page.reload();
    await ada.meets(3);
    assert.equal(await ada.link(), link, "a reload comes back to the same room");
    await ada.choose(again.file);
    await ada.press("Send");
    await dan.press("Decline");
    await ada.press("Try again for Dan");
    await dan.press("Accept");
    await ada.seesDelivery("Dan", /^Done/);
    await expectFiles(dan.downloads, [again]);
  });

  for (const person of [ada, ben, cleo, dan]) assert.deepEqual(person.errors, []);
});
