// Who decides: files put up for whoever comes, what a person can stop, what the browser is asked for meanwhile, and what is left in the end.

import assert from "node:assert/strict";
import { createHash, createPublicKey, verify } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { CHUNK, expectFiles, hide, journals, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { prepare, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";

/** Checks an entry of a ledger as PROTOCOL.md section 12 says, but for ML-DSA, which Node lacks. @param {any} ledger @param {any} entry @param {Buffer[]} contents */
function checkReceipt(ledger, entry, contents) {
  const hash = (/** @type {(string | Uint8Array)[]} */ ...parts) => {
    const sum = createHash("sha256");
    for (const part of parts) sum.update(part);
    return sum.digest();
  };
  const u32 = (/** @type {number} */ n) => Buffer.from([n >>> 24, n >>> 16, n >>> 8, n]);
  const u64 = (/** @type {number} */ n) => Buffer.concat([u32(Math.floor(n / 2 ** 32)), u32(n)]);
  const keys = Buffer.from(entry.keys, "base64");
  assert.equal(hash("tallow v1 member", keys).toString("hex").slice(0, 32), entry.peer);
  const roots = contents.map((content, i) => {
    const chunks = [];
    for (let at = 0; at < content.length; at += ledger.chunkSize) chunks.push(hash(content.subarray(at, at + ledger.chunkSize)));
    const root = hash("tallow v1 file", u32(ledger.chunkSize), u64(content.length), ...chunks);
    assert.equal(ledger.files[i].root, root.toString("hex"));
    return Buffer.concat([u32(i), root]);
  });
  const ids = Buffer.from(ledger.sender.id + entry.transfer, "hex");
  const root = hash("tallow v1 delivery", ids, hash(Buffer.from(ledger.manifest, "base64")), ...roots);
  assert.equal(entry.root, root.toString("hex"));
  const signed = Buffer.from(entry.signed, "base64");
  assert.deepEqual(signed, Buffer.concat([Buffer.from("tallow v1 receipt\0"), ids, root, Buffer.from([2 ** contents.length - 1, Number(entry.inMemory)])]));
  const signature = Buffer.from(entry.signature, "base64");
  assert.equal(signature.length, 64 + 3309);
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: keys.subarray(0, 32).toString("base64url") }, format: "jwk" });
  assert.ok(verify(null, signed, key, signature.subarray(0, 64)), "the signature is the recipient's");
  signed[40] ^= 1;
  assert.ok(!verify(null, signed, key, signature.subarray(0, 64)), "and over nothing else");
}

/** Leaves a page as a person does who closes its tab. Resolves to whether the browser has asked; if so, the page stays. @param {import("puppeteer-core").Page} page */
async function asksBeforeClosing(page) {
  page.removeAllListeners("dialog");
  /** @type {string | undefined} */
  let type;
  let closed = false;
  page.once("dialog", async (dialog) => {
    type = dialog.type();
    await dialog.dismiss();
  });
  page.once("close", () => (closed = true));
  page.close({ runBeforeUnload: true }).catch(() => {});
  await until("the page asks, or is closed", () => type !== undefined || closed);
  assert.equal(type, closed ? undefined : "beforeunload");
  const older = await page.evaluate(() => {
    const event = document.createEvent("BeforeUnloadEvent");
    event.initEvent("beforeunload", false, true);
    window.dispatchEvent(event);
    return event.returnValue;
  }).catch(() => ""); // it is closed
  assert.equal(older, closed ? "" : "true", "what older browsers go by");
  return !closed;
}

test("files are put up before anyone is there, for whoever comes", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const [one, two] = [await writeFile(folder, "one.bin", 3 * CHUNK + 5), await writeFile(folder, "two.bin", 70)];
  const ada = await Person.arrive(t, { name: "Ada" });
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  await ada.choose(one.file, two.file);
  const send = await ada.control("button", "Send");
  assert.ok(await send.evaluate((button) => /** @type {HTMLButtonElement} */ (button).disabled), "there is nobody to send to");
  await (await ada.control("checkbox", "Also offer these to whoever joins later")).click();
  await ada.sees(/2 files, 787 kB · to whoever joins later/);
  await ada.press("Send");
  await ada.sees(/Sending one\.bin and 1 more[^]*Whoever joins while this page is open is offered it\./);

  await t.test("what only looks at the link uses nothing up", async () => {
    for (const method of ["HEAD", "GET"]) assert.ok((await fetch(link, { method })).ok);
    const preview = await (await sharedBrowser(t)).newPage();
    await preview.setJavaScriptEnabled(false);
    await preview.goto(link);
    await preview.close();
    const walled = await (await sharedBrowser(t)).newPage(); // its scripts run, and reach nothing
    await walled.evaluateOnNewDocument(() => {
      const Real = WebSocket;
      Object.assign(globalThis, { WebSocket: function (/** @type {string} */ _, /** @type {string[]} */ protocols) { return new Real("ws://127.0.0.1:9/", protocols); } });
    });
    await walled.goto(link);
    await until("its page gives up", () => walled.evaluate(() => !document.getElementById("problem")?.hidden));
    await walled.close();
    assert.match(await ada.text(), /Nobody else is here yet/);
    assert.deepEqual(await ada.deliveries(), {});
  });

  const ben = await Person.arrive(t, { name: "Ben" });
  const cleo = await Person.arrive(t, { name: "Cleo" });
  await t.test("whoever comes is asked", async () => {
    await ben.open(link);
    await ben.sees(/Ada wants to send you one\.bin and 1 more/, 60_000);
    await ben.press("Accept");
    await ben.sees(/Verified, and handed to your browser’s downloads: 2 files/, 60_000);
    await expectFiles(ben.downloads, [one, two]);
    await ada.seesDelivery("Ben", /^Done: verified on disk$/);
    await ada.sees(/1 of 1 recipient received everything\. Whoever joins while this page is open is offered it\./);
  });

  await t.test("who declines, and why, is not asked again", async () => {
    await cleo.open(link);
    await cleo.sees(/Ada wants to send you/, 60_000);
    await cleo.type("Why not, if you decline", "wrong\u202e room <b>");
    await cleo.press("Decline");
    await ada.seesDelivery("Cleo", /^Declined: wrong room <b>$/);
    await cleo.page.reload();
    await cleo.meets(2);
    await ada.type("Or a text, a link, a password", "still there?"); // what was offered before would be there first
    await ada.press("Send");
    await cleo.sees(/Ada wants to send you a text/);
    assert.doesNotMatch(await cleo.text(), /one\.bin/);
    await cleo.press("Decline");
    await ben.press("Decline");
  });

  await t.test("until its sender stops; and then the receipt is there to keep", async () => {
    await ada.press("Stop offering");
    await ada.sees(/1 of 2 recipients received everything\.(?! Whoever)/);
    const dan = await Person.arrive(t, { name: "Dan" });
    await dan.open(link);
    await ada.meets(3);
    await ada.type("Or a text, a link, a password", "hello");
    await ada.press("Send");
    await dan.sees(/Ada wants to send you a text/);
    assert.doesNotMatch(await dan.text(), /one\.bin/);

    const save = await ada.page.$$("::-p-aria([name=\"Save the receipt\"][role=\"button\"])");
    await save.at(-1)?.evaluate((button) => /** @type {HTMLButtonElement} */ (button).click()); // of the oldest transfer
    const name = await until("a receipt", () => fs.readdirSync(ada.downloads).find((file) => file.endsWith(".json")));
    assert.match(name, /^Receipt one\.bin and 1 more \d{4}-\d\d-\d\d\.json$/);
    const ledger = await until("all of it", () => {
      try {
        return JSON.parse(fs.readFileSync(path.join(ada.downloads, name), "utf8"));
      } catch {
        return undefined; // still being written
      }
    });
    assert.equal(ledger.format, "tallow-ledger-1");
    assert.equal(ledger.finished, true);
    const [bens, cleos, ...others] = ledger.entries;
    assert.equal(others.length, 0);
    assert.deepEqual([bens.name, bens.state, bens.files.map((/** @type {any} */ f) => f.outcome)], ["Ben", "done", ["verified", "verified"]]);
    assert.deepEqual([cleos.name, cleos.state, cleos.code, cleos.reason, cleos.signature], ["Cleo", "declined", "declined", "wrong room <b>", ""]);
    checkReceipt(ledger, bens, [one, two].map(({ file }) => fs.readFileSync(file)));
  });
  for (const person of [ada, ben, cleo]) assert.deepEqual(person.errors, []);
});

test("what was put up for whoever comes, and nobody came, is offered again after a reload", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const one = await writeFile(folder, "one.bin", 70);
  const ada = await Person.arrive(t, { name: "Ada" });
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  await ada.choose(one.file);
  await ada.type("Or a text, a link, a password", "not kept");
  await (await ada.control("checkbox", "Also offer these to whoever joins later")).click();
  await ada.press("Send");
  await ada.sees(/Whoever joins while this page is open is offered it\./);
  await until("it is on disk", async () => (await ada.page.evaluate(journals)).some((size) => size > 0));
  await ada.page.reload();
  await ada.sees(/Unfinished[^]*Sending one\.bin and 1 more[^]*Choose the same files again to go on/, 60_000);
  const again = async (/** @type {string} */ file) => {
    const button = await ada.control("button", "Choose the files");
    const [chooser] = await Promise.all([ada.page.waitForFileChooser(), button.click()]);
    await chooser.accept([file]);
  };
  await again((await writeFile(folder, "other.bin", 71)).file);
  await ada.sees(/None of what is missing was among those\. Choose the one that you were sending\./);
  await again(one.file);
  await ada.sees(/Whoever joins while this page is open is offered it\./);
  const ben = await Person.arrive(t, { name: "Ben" });
  await ben.open(link);
  await ben.sees(/Ada wants to send you one\.bin and 1 more/, 60_000);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("late joiners, stages and the ledger in the API", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [owner, member] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  const { link, before } = await owner.evaluate(async (size) => {
    me.watch(await me.tallow.createRoom({ name: "owner", maxRecipients: 1 }));
    const nobody = me.room.send("to nobody", { lateJoiners: true });
    await nobody.stopOffering();
    const { totalRecipients, ledger } = await nobody.finished;
    me.transfer = me.room.send(new File([me.blob(size, 1)], "a.bin"), { lateJoiners: true });
    me.states = [];
    me.transfer.addEventListener("progress", ({ detail }) => me.states.push(...detail.recipients.map((r) => r.state)));
    me.transfer.finished.then(() => (me.over = true));
    const { entries } = await me.transfer.ledger();
    const { state, recipients, lateJoiners } = me.transfer;
    return { link: me.room.link, before: { nobody: [nobody.state, nobody.lateJoiners, totalRecipients, ledger.length], state, recipients, lateJoiners, entries, eta: me.transfer.stats().eta } };
  }, 5 * CHUNK);
  assert.deepEqual(before, { nobody: ["cancelled", false, 0, 0], state: "offered", recipients: [], lateJoiners: true, entries: [], eta: -1 });

  const seen = await member.evaluate(async (to) => {
    await me.join(to, { name: "member" });
    const transfer = (await me.offer()).accept();
    const states = [];
    transfer.addEventListener("progress", ({ detail }) => states.push(detail.state));
    const { files } = await transfer.finished;
    return { states, size: files[0].size };
  }, link);
  await owner.evaluate(() => me.until(() => me.transfer.recipients[0].state === "done"));
  const stages = ["transferring", "verifying", "saving", "done"];
  const inOrder = (/** @type {string[]} */ states) => states.filter((state, i) => state !== "offered" && state !== states[i - 1]);
  const after = await owner.evaluate(async () => {
    const open = { state: me.transfer.state, over: me.over, percent: me.transfer.stats().percent };
    const during = await me.transfer.ledger();
    await me.transfer.stopOffering();
    const { ledger, successfulRecipients } = await me.transfer.finished;
    const { entries, finished, format, id, sender } = await me.transfer.ledger();
    return {
      open, states: me.states, during: [during.finished, during.entries[0].state], successful: successfulRecipients.map((r) => r.name),
      same: JSON.stringify(ledger) === JSON.stringify(entries), finished, format, ids: me.transfer.id === me.room.self.id + id, sender: sender.name, frozen: Object.isFrozen(entries[0].files[0]),
      state: me.transfer.state,
    };
  });
  assert.deepEqual(inOrder(seen.states), stages, "as the recipient saw it");
  assert.deepEqual(inOrder(after.states), stages, "as the sender saw it");
  assert.deepEqual(after.open, { state: "offered", percent: 100 });
  assert.deepEqual({ ...after, open: 0, states: 0 }, {
    open: 0, states: 0, during: [false, "done"], successful: ["member"], same: true, finished: true, format: "tallow-ledger-1", ids: true, sender: "owner", frozen: true, state: "done",
  });
  const kept = await owner.evaluate(async () => {
    const before = JSON.stringify(await me.transfer.ledger());
    const open = me.room.send("to whoever comes", { lateJoiners: true });
    await me.until(() => open.recipients.length === 1);
    await me.room.leave();
    const ledger = await open.ledger();
    return { same: before === JSON.stringify(await me.transfer.ledger()), states: ledger.entries.map(({ state }) => state), finished: ledger.finished };
  });
  assert.deepEqual(kept, { same: true, states: ["cancelled"], finished: true }, "in a room that was left");
});

test("who was removed while away keeps nothing of that room", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [owner, member] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  const link = await owner.evaluate(async () => (me.watch(await me.tallow.createRoom({ name: "owner" })), me.room.link));
  await member.evaluate((to) => me.join(to, { name: "member" }), link);
  const id = await member.evaluate(() => me.room.self.id);
  const rooms = () =>
    member.evaluate(async () => {
      const names = [];
      for await (const name of (await (await navigator.storage.getDirectory()).getDirectoryHandle("tallow")).keys()) if (/^[0-9a-f]{32}$/.test(name)) names.push(name);
      return [names.length, (await me.tallow.remembered()).length];
    });
  await owner.evaluate(() => me.meets(1));
  await member.reload();
  await member.evaluate(prepare);
  await member.evaluate(() => me.until(async () => (await me.tallow.remembered()).length === 1)); // the page before may need a moment
  const [before] = await rooms();
  await owner.evaluate((peer) => me.room.remove(peer), id);
  assert.equal(await member.evaluate((to) => me.code(me.tallow.joinRoom(to)), link), "removed");
  assert.deepEqual(await rooms(), [before - 1, 0]);
});

test("what one pauses is gone on with by the same button, whatever the others do, and leaving asks first", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const big = await writeFile(tempDir(t), "big.bin", 12_000_000);
  const ada = await Person.arrive(t, { name: "Ada", throttled: true });
  const [ben, cleo] = [await Person.arrive(t, { name: "Ben" }), await Person.arrive(t, { name: "Cleo" })];
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  for (const person of [ben, cleo]) await person.open(link);
  await ada.meets(2);
  await ada.choose(big.file);
  await ada.press("Send");
  await ada.seesDelivery("Cleo", /^Waiting for an answer$/);
  await ada.limit("0.05");
  await ben.sees(/Ada wants to send you/);
  await ben.press("Accept");
  await ada.seesDelivery("Ben", /^Transferring · [1-9]/);

  await t.test("while somebody has not answered", async () => {
    await ada.press("Pause");
    await ada.seesDelivery("Ben", /^Paused/);
    await ada.press("Resume");
    await ada.seesDelivery("Ben", /^Transferring/);
    await ada.seesDelivery("Cleo", /^Waiting for an answer$/);
  });

  await t.test("when the other end has paused by itself", async () => {
    await ben.press("Pause");
    await ada.seesDelivery("Ben", /^Paused/);
    await ada.press("Pause");
    await ada.control("button", "Resume");
    await ben.press("Resume");
    await ben.control("button", "Pause");
    await ben.seesDelivery("Ada", /^Paused/);
    await ben.press("Pause");
    await ada.press("Resume");
    await ada.control("button", "Pause");
    await ada.seesDelivery("Ben", /^Paused/);
    await ben.press("Resume");
    await ada.seesDelivery("Ben", /^Transferring/);
  });

  await t.test("leaving the room, which ends it, asks first", async () => {
    const answer = (/** @type {Person} */ { page }, /** @type {boolean} */ leaves) => {
      page.removeAllListeners("dialog");
      /** @type {string | undefined} */
      let asked;
      page.once("dialog", async (dialog) => {
        asked = dialog.message();
        await (leaves ? dialog.accept() : dialog.dismiss());
      });
      return () => until("the page asks", () => asked);
    };
    for (const [person, name] of /** @type {[Person, string][]} */ ([[ben, "Ben"], [ada, "Ada"]])) {
      const asked = answer(person, false);
      await person.press(`You are ${name}`);
      await person.press("Save and open a new room");
      assert.equal(await asked(), "What you are sending or receiving in this room ends when you leave it. Leave the room?");
    }
    await ada.seesDelivery("Ben", /^Transferring/);
    assert.equal(await ada.link(), link);
    const asked = answer(ada, true);
    await ada.press("You are Ada");
    await ada.press("Save and open a new room");
    await asked();
    await until("another room", async () => (await ada.link()) !== link);
    await ben.seesDelivery("Ada", /Cancelled|cancelled/);
  });
  assert.deepEqual([...ada.errors, ...ben.errors, ...cleo.errors], []);
});

test("of offers that were withdrawn the page keeps a few, without their files", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const ada = await Person.arrive(t, { name: "Ada" });
  await ada.open(`${server.url}/`);
  const member = await startMember(await sharedBrowser(t), server.url);
  await member.evaluate((to) => me.join(to, { name: "member" }), await ada.link());
  await ada.meets(1);
  const offers = () => ada.page.$$eval(".card.offer", (cards) => cards.map((card) => [card.querySelector("h2")?.textContent?.match(/[0-9]\.bin/)?.[0], card.querySelectorAll("input").length]));
  for (let i = 0; i < 5; i++) {
    await member.evaluate(async (name) => {
      await me.until(() => me.room.peers.some(({ state }) => state === "open"));
      me.transfer = me.room.send(new File(["x"], name));
    }, `${i}.bin`);
    await until(`offer ${i}`, async () => (await offers()).some(([name, inputs]) => name === `${i}.bin` && Number(inputs) > 0));
    if (i === 4) break; // it is still there
    await member.evaluate(() => me.transfer.cancel());
    await until("it is gone", async () => (await offers()).every(([, inputs]) => inputs === 0));
  }
  assert.deepEqual((await offers()).map(([name]) => name), ["1.bin", "2.bin", "3.bin", "4.bin"]);
  await ada.press("Dismiss");
  await until("one less", async () => (await offers()).length === 3);
  assert.deepEqual(ada.errors, []);
});

test("the screen stays on, and closing the page asks, only while something is under way", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const big = await writeFile(folder, "big.bin", 12_000_000);
  const watchLock = () => {
    const locks = { asked: 0, held: 0 };
    Object.assign(globalThis, { locks });
    const { request } = WakeLock.prototype;
    WakeLock.prototype.request = async function (type) {
      locks.asked++;
      const lock = await request.call(this, type);
      locks.held++;
      lock.addEventListener("release", () => locks.held--);
      return lock;
    };
  };
  const [ada, ben] = [await Person.arrive(t, { name: "Ada", throttled: true, before: watchLock }), await Person.arrive(t, { name: "Ben", alone: true, before: watchLock })];
  const held = (/** @type {Person} */ { page }) => page.evaluate(() => /** @type {any} */ (globalThis).locks.held);
  const asked = (/** @type {Person} */ { page }) => page.evaluate(() => /** @type {any} */ (globalThis).locks.asked);
  await ada.open(`${server.url}/`);
  await ben.open(await ada.link());
  await ada.meets(1);
  await ada.choose(big.file);
  await ada.press("Send");
  await ada.seesDelivery("Ben", /^Waiting for an answer$/);
  assert.deepEqual([await asked(ada), await asked(ben)], [0, 0], "nothing flows before the answer");
  await ben.sees(/Ada wants to send you/);
  await ada.limit("0.05"); // there are minutes for what is to be done under way
  await ben.press("Accept");
  await ada.seesDelivery("Ben", /^Transferring · [1-9]/);
  for (const person of [ada, ben]) await until("the screen is held", async () => (await held(person)) === 1);

  await t.test("both pages ask before they are closed", async () => {
    assert.ok(await asksBeforeClosing(ada.page));
    assert.ok(await asksBeforeClosing(ben.page));
  });

  await t.test("a page that was hidden holds the screen again", async () => {
    const before = await asked(ada);
    await hide(ada.page);
    await until("the browser takes the lock", async () => (await held(ada)) === 0);
    await ada.page.bringToFront();
    await until("the screen is held again", async () => (await held(ada)) === 1);
    assert.ok((await asked(ada)) > before);
  });

  await t.test("either side pauses: the screen may go dark, and closing still asks", async () => {
    await ben.press("Pause");
    await ada.seesDelivery("Ben", /^Paused/);
    for (const person of [ada, ben]) await until("the screen is let go", async () => (await held(person)) === 0);
    assert.ok(await asksBeforeClosing(ada.page));
    await ben.press("Resume");
    await ada.seesDelivery("Ben", /^Transferring/);
    for (const person of [ada, ben]) await until("the screen is held", async () => (await held(person)) === 1);
  });

  await ada.limit("");
  await ada.seesDelivery("Ben", /^Done: verified on disk$/, 120_000);
  await ben.sees(/Verified, and handed to your browser’s downloads: 1 file/, 60_000);
  for (const person of [ada, ben]) await until("the screen is let go", async () => (await held(person)) === 0);
  await expectFiles(ben.downloads, [big], 60_000);

  await t.test("what has arrived and is being saved", async () => {
    await ben.page.evaluate(() => {
      // A folder on a disk that takes nothing until it is let.
      const go = new Promise((resolve) => Object.assign(globalThis, { letGo: resolve }));
      const { createWritable } = FileSystemFileHandle.prototype;
      FileSystemFileHandle.prototype.createWritable = async function (...args) {
        await go;
        if (/** @type {any} */ (globalThis).full) throw new DOMException("no room", "QuotaExceededError");
        return createWritable.apply(this, args);
      };
      Object.assign(globalThis, { showDirectoryPicker: async () => (await navigator.storage.getDirectory()).getDirectoryHandle("Picked", { create: true }) });
    });
    await ada.choose(...[await writeFile(folder, "one.bin", 70), await writeFile(folder, "two.bin", 71)].map(({ file }) => file));
    await ada.press("Send");
    await ben.sees(/Ada wants to send you/);
    await ben.page.select(".offer select", "folder");
    await ben.press("Accept");
    await ada.seesDelivery("Ben", /^Done: verified on disk$/);
    await ben.sees(/Verified; being saved[^]*Verified\. Saving…/);
    await until("the screen is held", async () => (await held(ben)) === 1);
    assert.ok(await asksBeforeClosing(ben.page));
    const clear = await ben.control("button", "Clear");
    assert.ok(await clear.evaluate((button) => /** @type {HTMLButtonElement} */ (button).disabled), "clearing would delete what is being copied");
    await ben.page.evaluate(() => {
      Object.assign(globalThis, { full: true });
      /** @type {any} */ (globalThis).letGo();
    });
    await ben.sees(/Verified, but not saved: 2 files/);
    await ben.page.evaluate(() => Object.assign(globalThis, { full: false }));
    await ben.press("Save again");
    await ben.sees(/Done: verified on disk[^]*Verified and saved in the folder “Picked”: 2 files/);
    await until("the screen is let go", async () => (await held(ben)) === 0);
  });

  await t.test("what only waits for others holds nothing", async () => {
    await ada.choose(big.file);
    await (await ada.control("checkbox", "Also offer these to whoever joins later")).click();
    const before = await asked(ada);
    await ada.press("Send");
    await ada.seesDelivery("Ben", /^Waiting for an answer$/);
    assert.equal(await asked(ada), before);
    assert.equal(await ada.page.title(), "Tallow");
    assert.ok(!(await asksBeforeClosing(ben.page)));
    assert.ok(!(await asksBeforeClosing(ada.page)));
  });
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});
