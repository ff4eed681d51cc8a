// What goes on after a reload, a crash or a restart of either page, and what does not.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { expectFiles, journals, startBrowser, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { crash, enter, fresh } from "./lives.mjs";
import { loadMember, prepare, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";

const MB = 1e6;
/** What records, repeated hashes and chunks that were under way cost besides what is lacking. */
const slack = 1 * MB;
/** Slow enough to be held in time, in bytes per second. */
const rate = 1.5 * MB;
/** A limit under which not even the next chunk is due before the test is over. */
const held = 1;

/** Runs in the page before anything else: counts what is sent over data channels. */
function countSent() {
  const { send } = RTCDataChannel.prototype;
  globalThis.sentBytes = 0;
  RTCDataChannel.prototype.send = function (data) {
    globalThis.sentBytes += data.byteLength ?? data.length;
    return send.call(this, data);
  };
}

/** What a sender has sent, and what it knows to be on its first recipient's disk. @param {import("puppeteer-core").Page} page */
const count = (page) => page.evaluate(() => ({ sent: globalThis.sentBytes, told: me.transfer.recipients[0].bytes }));

/**
 * Lets a sender go on until it has sent that much more, and holds it there: its own page does, so that however slow this process is, the transfer
 * is not over by then. Resolves when that is on the recipient's disk, but for the last of it, which may be under way.
 * @param {import("puppeteer-core").Page} page @param {number} bytes
 */
async function goOn(page, bytes) {
  const before = await count(page);
  await page.evaluate(
    async (n, go, hold) => {
      const end = globalThis.sentBytes + n;
      await me.transfer.setBandwidthLimit(go);
      await me.until(() => globalThis.sentBytes >= end);
      await me.transfer.setBandwidthLimit(hold);
    },
    bytes,
    rate,
    held,
  );
  // Which no more has to be sent for than that: no chunk that the sender knew to be on the disk.
  await until("what was sent is on the disk", async () => {
    const now = await count(page);
    return now.sent - before.sent < now.told - before.told + slack;
  }, 120_000);
}

test("a recipient's page is reloaded, its tab crashes, its browser is killed", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const [shared, { browser: first, profile }] = await Promise.all([sharedBrowser(t), startBrowser(t)]);
  const sender = await startMember(shared, server.url, { before: countSent });
  let recipient = await loadMember((await first.pages())[0], server.url);
  await fresh(sender);
  const link = await enter(sender, undefined, "sender");
  await fresh(recipient);
  await enter(recipient, link, "recipient");
  await sender.evaluate(() => me.meets(1, 120_000));
  const size = 16 * MB;
  const hash = await sender.evaluate(
    async (n, limit) => {
      me.file = me.blob(n, 7);
      me.transfer = me.room.send([{ path: "a.bin", file: me.file }, { path: "b.bin", file: me.blob(1000, 8) }], { bandwidthLimitPerRecipient: limit });
      return me.sha256(me.file);
    },
    size,
    held,
  );
  await recipient.evaluate(async () => {
    me.incoming = (await me.offer()).accept();
    await me.until(() => me.incoming.state === "transferring", 120_000);
  });
  await goOn(sender, 1.5 * MB);

  for (const [what, again] of /** @type {const} */ ([
    ["reloaded", async () => (await recipient.reload(), await recipient.evaluate(prepare), recipient)],
    ["crashed", async () => loadMember(await crash(recipient), server.url)],
    [
      "killed",
      async () => {
        const died = new Promise((resolve) => first.once("disconnected", resolve));
        first.process()?.kill("SIGKILL");
        await died;
        const { browser } = await startBrowser(t, { profile });
        return loadMember((await browser.pages())[0], server.url);
      },
    ],
  ])) {
    await t.test(what, async () => {
      recipient = await again();
      const before = await count(sender);
      if (what === "killed") {
        const left = await recipient.evaluate(async () => {
          const [item, ...rest] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
          const { direction, link, entered, names, total, bytes, remembered, files, when } = item;
          return { direction, link, entered, names, total, bytes, remembered, files: files.map((f) => f.path), recent: Date.now() - when < 3_600_000, rest: rest.length, code: await me.code(item.continue()) };
        });
        assert.ok(left.bytes >= before.told && left.bytes < left.total, `${left.bytes} of ${left.total}, and ${before.told} were told`);
        assert.deepEqual({ ...left, bytes: 0 }, { direction: "incoming", link, entered: false, names: ["sender"], total: size + 1000, bytes: 0, remembered: false, files: ["a.bin", "b.bin"], recent: true, rest: 0, code: "room-closed" });
      }
      await enter(recipient, link, "recipient");
      const went = await recipient.evaluate(async () => {
        me.incoming = me.room.transfers[0];
        return { id: me.incoming.id, from: me.incoming.from.name, files: me.incoming.files.map((file) => file.path), offers: me.room.offers.length, unfinished: (await me.tallow.unfinished()).length };
      });
      assert.deepEqual(went, { id: await sender.evaluate(() => me.transfer.id), from: "sender", files: ["a.bin", "b.bin"], offers: 0, unfinished: 0 });
      // Until then the sender may take the link to the page before for one that is there.
      await recipient.evaluate(() => me.until(() => me.incoming.state === "transferring"));
      await goOn(sender, 1.5 * MB);
      const { sent, told } = await count(sender);
      t.diagnostic(`${what}: ${((sent - before.sent) / MB).toFixed(1)} MB sent for ${((told - before.told) / MB).toFixed(1)}`);
      assert.ok(told < size, "it was under way all the time");
      assert.equal(await recipient.evaluate(() => me.incoming.stats().recipients[0].repeated), 0, "nothing came again that was on the disk");
    });
  }
  const before = await count(sender);
  await sender.evaluate(() => me.transfer.setBandwidthLimit(0));
  const done = await recipient.evaluate(async () => {
    const { files } = await me.incoming.finished;
    const [{ repeated }] = me.incoming.stats().recipients;
    return { hash: await me.sha256(await files[0].file()), sizes: files.map((file) => file.size), offers: me.events.filter(({ type }) => type === "offer").length, repeated };
  });
  assert.deepEqual(done, { hash, sizes: [size, 1000], offers: 0, repeated: 0 });
  const sent = (await count(sender)).sent - before.sent;
  assert.ok(sent < size - before.told + slack, `${sent} bytes were sent for the last ${size - before.told}`);
  assert.equal(await sender.evaluate(() => me.transfer.finished.then((r) => r.successfulRecipients.length)), 1);

  // Nothing of it was saved: only read.
  const received = async () => {
    const { files, failed } = await me.incoming.finished;
    const { state, from, saved, available } = me.incoming;
    return { hash: await me.sha256(await files[0].file()), paths: files.map((file) => file.path), roots: files.map((file) => file.root), failed: failed.length, state, from: from.name, saved, available };
  };
  const whole = await recipient.evaluate(received);
  assert.deepEqual({ ...whole, roots: whole.roots.length }, { hash, paths: ["a.bin", "b.bin"], roots: 2, failed: 0, state: "done", from: "sender", saved: false, available: true });
  const told = await count(sender);
  for (const [what, again] of /** @type {const} */ ([
    ["reloaded", async () => (await recipient.reload(), await recipient.evaluate(prepare), recipient)],
    ["crashed", async () => loadMember(await crash(recipient), server.url)],
  ])) {
    await t.test(`${what} after it was done, and before it was saved`, async () => {
      recipient = await again();
      await enter(recipient, link, "recipient");
      await recipient.evaluate(() => (me.incoming = me.room.transfers[0]));
      assert.deepEqual(await recipient.evaluate(received), whole);
      assert.deepEqual(await recipient.evaluate(async () => [me.room.transfers.length, me.room.offers.length, (await me.tallow.unfinished()).length]), [1, 0, 0]);
      await recipient.evaluate(() => me.meets(1, 120_000));
      assert.ok((await count(sender)).sent - told.sent < slack, "nothing is sent again");
    });
  }

  await t.test("and is there without its room", async () => {
    await recipient.reload();
    await recipient.evaluate(prepare);
    const left = await recipient.evaluate(async () => {
      const [item] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
      const { done, direction, entered, names, bytes, total } = item;
      const { files, failed } = await item.received();
      me.item = item;
      return {
        done, direction, entered, names, whole: bytes === total, failed: failed.length, code: await me.code(item.continue()),
        hash: await me.sha256((await Promise.all(files.map((file) => file.file())))[0]), roots: files.map((file) => file.root), saved: files.map((file) => file.saved),
      };
    });
    assert.deepEqual(left, {
      done: true, direction: "incoming", entered: false, names: ["sender"], whole: true, failed: 0, code: "invalid-argument", hash, roots: whole.roots, saved: [false, false],
    });
  });

  await t.test("until it is handed over: then only its copy stays for an hour", async () => {
    const after = await recipient.evaluate(async () => {
      const { files } = await me.item.received();
      await files[0].markSaved();
      const some = (await me.tallow.unfinished()).length;
      await me.item.saveAll({ as: "zip", files: [files[1]] });
      return { some, saved: files.map((file) => file.saved), list: (await me.tallow.unfinished()).length, stored: await me.stored() };
    });
    assert.deepEqual(after, { some: 1, saved: [true, true], list: 0, stored: ["files", "receipt"] });
    await recipient.reload();
    await recipient.evaluate(prepare);
    await enter(recipient, link, "recipient");
    assert.deepEqual(await recipient.evaluate(async () => [me.room.transfers.length, (await me.tallow.unfinished()).length, await me.stored()]), [0, 0, ["files", "receipt"]]);
  });

  await t.test("or discarded, after a reload or without its room: then nothing is left", async () => {
    for (const entered of [true, false]) {
      await recipient.evaluate(() => me.meets(1, 120_000));
      const accepted = recipient.evaluate(async () => (await me.offer()).accept().finished.then(({ files }) => files.length));
      await sender.evaluate(() => me.meets(1, 120_000));
      await sender.evaluate(() => me.room.send([{ path: "c.bin", file: me.blob(1000, 9) }]).finished);
      assert.equal(await accepted, 1);
      await until("the journal says so", () => recipient.evaluate(async () => (await me.stored()).includes("journal")));
      await recipient.reload();
      await recipient.evaluate(prepare);
      if (entered) {
        await enter(recipient, link, "recipient");
        await recipient.evaluate(async () => {
          await me.room.transfers[0].finished;
          await me.room.transfers[0].discard();
        });
      } else {
        await recipient.evaluate(async () => {
          const [item] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
          await item.discard();
        });
        await enter(recipient, link, "recipient");
      }
      assert.deepEqual(await recipient.evaluate(async () => [(await me.tallow.unfinished()).length, await me.stored()]), [0, ["files", "receipt"]]);
    }
  });
});

test("what has arrived and was not saved stays when the owner removes the member", { timeout: 200_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [sender, recipient] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  await fresh(sender);
  const link = await enter(sender, undefined, "sender");
  await fresh(recipient);
  await enter(recipient, link, "recipient");
  await sender.evaluate(() => me.meets(1, 120_000));
  const accepted = recipient.evaluate(async () => (await me.offer()).accept().finished.then(({ files }) => files.length));
  const hash = await sender.evaluate(async () => (await me.room.send(me.blob(1000, 9)).finished, me.sha256(me.blob(1000, 9))));
  assert.equal(await accepted, 1);
  await until("the journal says so", () => recipient.evaluate(async () => (await me.stored()).includes("journal")));
  await sender.evaluate(() => me.room.remove(me.room.peers[0].id));
  await recipient.evaluate(() => me.until(() => me.room.state === "closed"));
  const left = () =>
    recipient.evaluate(async () => {
      [me.item] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
      return me.sha256(await (await me.item.received()).files[0].file());
    });
  assert.equal(await left(), hash);
  await recipient.reload();
  await recipient.evaluate(prepare);
  assert.equal(await recipient.evaluate((to) => me.until(async () => (await me.tallow.remembered()).length > 0).then(() => me.code(me.tallow.joinRoom(to))), link), "removed");
  assert.equal(await left(), hash);
  assert.deepEqual(await recipient.evaluate(async () => (await me.item.discard(), [(await me.tallow.unfinished()).length, await me.stored()])), [0, []]);
});

/** Runs in the page before anything else: its clocks can be put forward, in ms. */
function skew() {
  const [{ now }, wall] = [Performance.prototype, Date.now];
  globalThis.ahead = 0;
  Performance.prototype.now = function () {
    return now.call(this) + globalThis.ahead;
  };
  Date.now = () => wall() + globalThis.ahead;
}

test("what was handed over is deleted an hour after it was last, while the page is open", { timeout: 200_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [sender, recipient] = [await startMember(browser, server.url), await startMember(browser, server.url, { before: skew })];
  await fresh(sender);
  const link = await enter(sender, undefined, "sender");
  await fresh(recipient);
  await enter(recipient, link, "recipient");
  await sender.evaluate(() => me.meets(1, 120_000));
  const accepted = recipient.evaluate(async () => {
    for (const name of ["folder", "saved", "unsaved"]) {
      me[name] = (await me.offer()).accept();
      await me[name].finished;
    }
  });
  await sender.evaluate(async () => {
    for (const what of [{ path: "empty", directory: true }, me.blob(1000, 8), me.blob(1000, 9)]) await me.room.send(what).finished;
  });
  await accepted;
  const folder = await recipient.evaluate(async () => {
    const before = me.folder.saved;
    await me.folder.saveAll();
    return [before, me.folder.saved];
  });
  assert.deepEqual(folder, [false, true], "an empty folder is saved by saving all, which downloads nothing");
  const told = await recipient.evaluate(async () => {
    const look = async () => [me.saved.saved, me.saved.available, me.unsaved.saved, me.unsaved.available, await me.stored()];
    await (await me.saved.finished).files[0].markSaved();
    await me.until(async () => (await me.stored()).filter((name) => name === "journal").length === 1);
    const before = await look();
    globalThis.ahead = 40 * 60_000;
    await (await me.saved.finished).files[0].markSaved();
    globalThis.ahead = 61 * 60_000;
    await me.until(() => !me.folder.available);
    const again = await me.code((await me.saved.finished).files[0].file());
    globalThis.ahead = 101 * 60_000;
    await me.until(() => !me.saved.available);
    return { before, again, after: await look(), code: await me.code((await me.saved.finished).files[0].file()), rest: (await (await me.unsaved.finished).files[0].file()).size };
  });
  assert.deepEqual(told, {
    before: [true, true, false, true, ["files", "files", "files", "journal", "receipt", "receipt"]],
    again: "resolved", // it was handed over once more
    after: [true, false, false, true, ["files", "journal"]],
    code: "storage-failed",
    rest: 1000,
  });
});

test("the page shows what has arrived and was not saved", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  // More than are saved unasked when they arrive.
  const files = await Promise.all(Array.from({ length: 21 }, (_, i) => writeFile(folder, `${i}.bin`, 1000 + i)));
  const ada = await Person.arrive(t, { name: "Ada" });
  const ben = await Person.arrive(t, { name: "Ben", alone: true });
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  await ben.open(link);
  await ada.meets(1);
  const deliver = async () => {
    await ada.choose(...files.map(({ file }) => file));
    await ada.press("Send");
    await (await ben.page.waitForSelector(".offer select"))?.select("files");
    await ben.press("Accept");
    await ada.seesDelivery("Ben", /^Done: verified on disk$/);
    await ben.sees(/Verified: 21 files\. Press “Save all”/);
  };
  /** What is left from earlier has been looked at. */
  const listed = () => ben.page.waitForSelector('#unfinished[aria-busy="false"]');
  const left = /Verified, not saved yet: 0\.bin and 20 more \(21\.2 kB\)\. It stays here until you save or clear it/;
  await deliver();

  await t.test("after a reload, in its room", async () => {
    await ben.page.reload();
    await ben.sees(left);
    await ben.press("Save 3.bin");
    await expectFiles(ben.downloads, [files[3]], 60_000);
    await ben.page.reload();
    await ben.sees(left);
  });

  await t.test("and from the front page, without it, where saving ends the matter", async () => {
    await ben.page.evaluate(() => sessionStorage.clear()); // as in a new tab
    await ben.page.goto("about:blank");
    await ben.open(`${server.url}/`);
    await ben.sees(/Unfinished[^]*Received 0\.bin and 20 more from Ada/);
    await ben.sees(left);
    // Each download waits its turn, so that there is time to look.
    const saving = await ben.page.evaluate(async () => {
      const card = /** @type {HTMLElement} */ (document.querySelector("#unfinished-list article"));
      const buttons = [...card.querySelectorAll("button")];
      buttons.find(({ textContent }) => textContent === "Save all")?.click();
      await new Promise((resolve) => setTimeout(resolve));
      return { text: card.innerText.includes("Saving…"), disabled: buttons.every(({ disabled }) => disabled), asks: !dispatchEvent(new Event("beforeunload", { cancelable: true })) };
    });
    assert.deepEqual(saving, { text: true, disabled: true, asks: true });
    await expectFiles(ben.downloads, files, 60_000);
    await until("an empty list", async () => !/Unfinished/.test(await ben.text()));
    await ben.page.reload();
    await listed();
    assert.doesNotMatch(await ben.text(), left);
  });

  await t.test("and what is cleared is gone", async () => {
    await ben.open(link);
    await ada.meets(1);
    await deliver();
    await ben.page.reload();
    await ben.sees(left);
    await ben.press("Save 3.bin"); // after which the copy stays for an hour
    await ben.press("Clear");
    await until("nothing unsaved", async () => !left.test(await ben.text()));
    await until("no journal", async () => (await ben.page.evaluate(journals)).length === 0);
    await ben.page.reload();
    await listed();
    assert.doesNotMatch(await ben.text(), left);
  });
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("a sender's page is reloaded", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [sender, recipient] = [await startMember(browser, server.url, { before: countSent }), await startMember(browser, server.url)];
  await fresh(sender);
  const link = await enter(sender, undefined, "sender");
  await fresh(recipient);
  await enter(recipient, link, "recipient");
  const size = 6 * MB;
  /** Sends two files, and reloads in the middle. @param {boolean} [kept] with handles of files that lie in the private file system */
  const interrupt = async (kept = false) => {
    await sender.evaluate(() => me.meets(1, 120_000));
    const accepted = recipient.evaluate(async () => {
      me.incoming = (await me.offer()).accept();
    });
    await sender.evaluate(
      async (n, limit, withHandles) => {
        let items = [{ path: "folder/a.bin", file: me.blob(n, 7) }, { path: "folder/b.bin", file: new File([me.blob(1_000_000, 8)], "b.bin", { lastModified: 1e12 }) }];
        if (withHandles) {
          const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine", { create: true });
          items = await Promise.all(
            items.map(async ({ path, file }, i) => {
              const handle = await folder.getFileHandle(String(i), { create: true });
              const out = await handle.createWritable();
              await out.write(file);
              await out.close();
              return { path, file: await handle.getFile(), handle, folder };
            }),
          );
        }
        me.transfer = me.room.send(items, { bandwidthLimitPerRecipient: limit });
      },
      size,
      held,
      kept,
    );
    await accepted;
    await goOn(sender, 1.5 * MB);
    const { told: had } = await count(sender);
    await sender.reload();
    await sender.evaluate(prepare);
    const left = await sender.evaluate(async () => {
      const [item] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
      return { direction: item.direction, entered: item.entered, names: item.names, total: item.total, remembered: item.remembered };
    });
    assert.deepEqual(left, { direction: "outgoing", entered: false, names: ["recipient"], total: size + MB, remembered: kept });
    await enter(sender, link, "sender");
    await sender.evaluate(async () => {
      me.transfer = me.room.transfers[0];
      [me.item] = await me.tallow.unfinished();
    });
    assert.deepEqual(await sender.evaluate(() => [me.item.id === me.transfer.id, me.item.entered, me.item.direction]), [true, true, "outgoing"]);
    // A page that took long to come back had been given up: what goes on then has a new end to wait for.
    await until("the recipient waits", () => recipient.evaluate(() => me.incoming.state === "paused"), 120_000);
    return had;
  };
  const received = () =>
    recipient.evaluate(async () => {
      const { files, failed } = await me.incoming.finished;
      const hashes = Object.fromEntries(await Promise.all(files.map(async (file) => [file.path, await me.sha256(await file.file())])));
      return { hashes, failed: failed.map(({ path, code }) => [path, code]) };
    });
  const hashes = await sender.evaluate(async (n) => ({ "folder/a.bin": await me.sha256(me.blob(n, 7)), "folder/b.bin": await me.sha256(me.blob(1_000_000, 8)) }), size);

  await t.test("and given the same files again, whatever folder they are in", async () => {
    const had = await interrupt();
    assert.equal(await sender.evaluate(() => me.code(me.item.continue())), "invalid-argument");
    const lacking = () => sender.evaluate(() => me.item.lacking.map(({ path }) => path));
    assert.deepEqual(await lacking(), ["folder/a.bin", "folder/b.bin"]);
    assert.equal(await sender.evaluate(() => me.code(me.item.continue([new File([me.blob(1_000_000, 8)], "b.bin")]))), "invalid-argument");
    assert.deepEqual(await lacking(), ["folder/a.bin"]);
    assert.deepEqual(await sender.evaluate(async () => (await me.tallow.unfinished())[0].lacking.map(({ path }) => path)), ["folder/a.bin"]);
    const before = await count(sender);
    await sender.evaluate((n) => me.item.continue([new File([me.blob(n, 7)], "a.bin")]), size);
    assert.deepEqual(await received(), { hashes, failed: [] });
    const result = await sender.evaluate(async () => ({ done: (await me.transfer.finished).successfulRecipients.length, left: (await me.tallow.unfinished()).length }));
    assert.deepEqual(result, { done: 1, left: 0 });
    const sent = (await count(sender)).sent - before.sent;
    assert.equal(await recipient.evaluate(() => me.incoming.stats().recipients[0].repeated), 0, "nothing came again that was on the disk");
    assert.ok(sent < size + MB - had + slack, `${sent} bytes were sent for the last ${size + MB - had}`);
    t.diagnostic(`${(sent / MB).toFixed(1)} MB were sent for the last ${((size + MB - had) / MB).toFixed(1)}`);
  });

  await t.test("and one of the files is another now", async () => {
    await interrupt();
    await sender.evaluate((n) => {
      const changed = new Blob([me.blob(n, 7).slice(0, 100), "x", me.blob(n, 7).slice(101)]); // where the recipient has it already
      return me.item.continue([{ path: "folder/a.bin", file: changed }, { path: "folder/b.bin", file: me.blob(1_000_000, 8) }]);
    }, size);
    assert.deepEqual(await received(), { hashes: { "folder/b.bin": hashes["folder/b.bin"] }, failed: [["folder/a.bin", "file-changed"]] });
    const failed = await sender.evaluate(async () => (await me.transfer.finished).failedRecipients.map(({ code }) => code));
    assert.deepEqual(failed, ["file-changed"]);
  });

  await t.test("and one that had not been read has been written to", async () => {
    await interrupt();
    await sender.evaluate((n) => {
      const written = new File([me.blob(1_000_000, 9)], "b.bin", { lastModified: 1e12 + 1 });
      return me.item.continue([{ path: "folder/a.bin", file: me.blob(n, 7) }, { path: "folder/b.bin", file: written }]);
    }, size);
    assert.deepEqual(await received(), { hashes: { "folder/a.bin": hashes["folder/a.bin"] }, failed: [["folder/b.bin", "file-changed"]] });
  });

  await t.test("and reads the files again by itself, where the browser has kept access to them, having asked once for their folder", async () => {
    await interrupt(true);
    const asked = await sender.evaluate(async () => {
      const [asked, answers] = [[], ["denied", "granted"]];
      let now = "prompt";
      Object.assign(FileSystemHandle.prototype, {
        queryPermission: async () => now, // what is in a folder follows it
        async requestPermission() {
          asked.push(`${this.kind} ${this.name}`);
          return (now = answers.shift());
        },
      });
      asked.push(await me.code(me.item.continue()));
      await me.item.continue();
      return asked;
    });
    assert.deepEqual(asked, ["directory mine", "file-unreadable", "directory mine"]);
    assert.deepEqual(await received(), { hashes, failed: [] });
  });

  await t.test("and keeps that access while it tries once more for somebody", async () => {
    const kept = await sender.evaluate(async () => {
      const handle = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("mine")).getFileHandle("0");
      const transfer = me.room.send([{ path: "a.bin", file: await handle.getFile(), handle }]);
      const { id } = await me.until(() => me.room.peers.find(({ state }) => state === "open"));
      const database = await new Promise((resolve) => Object.assign(indexedDB.open("tallow"), { onsuccess: (event) => resolve(event.target.result) }));
      const kept = () => new Promise((resolve) => Object.assign(database.transaction("handles").objectStore("handles").count(transfer.id), { onsuccess: (event) => resolve(event.target.result) }));
      const becomes = (n) => me.until(async () => transfer.id && (await kept()) === n);
      await becomes(1);
      await transfer.cancel(id);
      await transfer.finished.catch(() => {});
      await becomes(0);
      await transfer.retry(id);
      await becomes(1);
      await transfer.cancel();
      await becomes(0);
      database.close();
      return true;
    });
    assert.ok(kept);
  });

  await t.test("and one of the files that it kept access to is gone", async () => {
    await interrupt(true);
    const codes = await sender.evaluate(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine");
      await folder.removeEntry("1");
      const code = await me.code(me.item.continue());
      const lacking = me.item.lacking.map(({ path }) => path);
      await me.item.continue([], { without: true });
      return [code, lacking];
    });
    assert.deepEqual(codes, ["invalid-argument", ["folder/b.bin"]]);
    assert.deepEqual(await received(), { hashes: { "folder/a.bin": hashes["folder/a.bin"] }, failed: [["folder/b.bin", "file-unreadable"]] });
    assert.deepEqual(await sender.evaluate(async () => (await me.transfer.finished).failedRecipients.map(({ code }) => code)), ["file-unreadable"]);
  });

  await t.test("and discards it", async () => {
    await interrupt();
    await sender.evaluate(() => me.item.discard());
    assert.equal(await recipient.evaluate(() => me.code(me.incoming.finished)), "cancelled-by-peer");
    assert.equal(await sender.evaluate(async () => (await me.tallow.unfinished()).length), 0);
  });

  await t.test("two pages do not both go on with it; what is discarded in the list is gone", async () => {
    await interrupt();
    const second = await sender.browserContext().newPage();
    await loadMember(second, server.url);
    assert.equal(await second.evaluate(async () => (await me.tallow.unfinished()).length), 0, "another page has it");
    await sender.close();
    const listed = await second.evaluate(async () => {
      const [item] = await me.until(async () => ((list) => (list.length ? list : undefined))(await me.tallow.unfinished()));
      await item.discard();
      return (await me.tallow.unfinished()).length;
    });
    assert.deepEqual([listed, await second.evaluate(journals)], [0, []]);
  });
});

test("a reloaded page waits for itself to let go of the room, and says what it could not open", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const member = await startMember(await sharedBrowser(t), server.url);
  await fresh(member);
  const link = await enter(member, undefined, "member");
  const before = await member.evaluate(() => ({ id: me.room.self.id, resumable: me.room.resumable }));
  assert.equal(before.resumable, true);
  assert.equal(await member.evaluate(async () => (await me.tallow.createRoom({ remember: false })).resumable), false);
  const second = await member.browserContext().newPage();
  await second.goto(`${server.url}/healthz`);
  /** Takes the locks of that kind over from the member's page as soon as it ends. @param {string} kind */
  const takeOver = (kind) =>
    second.evaluate(async (prefix) => {
      const names = (await navigator.locks.query()).held.map(({ name }) => name).filter((name) => name.startsWith(prefix));
      globalThis.locks = names.map((name) => {
        const lock = { name };
        navigator.locks.request(name, () => {
          lock.taken = true;
          return new Promise((release) => (lock.release = release));
        });
        return lock;
      });
    }, kind);
  const taken = () => second.evaluate(() => globalThis.locks.length > 0 && globalThis.locks.every(({ taken }) => taken));
  const reload = async () => {
    await member.reload();
    await until("the locks have gone over", taken);
    await member.evaluate(prepare);
  };

  await takeOver("tallow identity ");
  await reload();
  const entering = member.evaluate(async (to) => {
    me.watch(await me.tallow.joinRoom(to));
    return { id: me.room.self.id, resumable: me.room.resumable };
  }, link);
  const entered = entering.then(() => true);
  // Whoever does not wait for the lock is in without it.
  const pending = () => second.evaluate(async () => (await navigator.locks.query()).pending.some(({ name }) => globalThis.locks.some((lock) => lock.name === name)));
  await until("somebody waits for the identity", async () => (await Promise.race([entered, pending()])) === true);
  await second.evaluate(() => globalThis.locks.forEach(({ release }) => release()));
  assert.deepEqual(await entering, before);

  await takeOver("tallow storage ");
  await reload();
  await member.evaluate(async (to) => me.watch(await me.tallow.joinRoom(to)), link);
  assert.deepEqual(await member.evaluate(() => ({ id: me.room.self.id, resumable: me.room.resumable })), { ...before, resumable: false });

  // Another tab is reloaded, too, by every link: what this one holds is not its to wait for.
  await second.reload();
  await second.evaluate(() => {
    const { request } = LockManager.prototype;
    globalThis.waited = [];
    LockManager.prototype.request = function (name, options, ...rest) {
      if (options.signal) globalThis.waited.push(name);
      return request.call(this, name, options, ...rest);
    };
  });
  await second.evaluate(prepare);
  await second.evaluate((to) => me.join(to), link);
  assert.notEqual(await second.evaluate(() => me.room.self.id), before.id);
  assert.deepEqual(await second.evaluate(() => globalThis.waited), []);
});

test("the page lists what is unfinished, and goes on with it", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const big = await writeFile(folder, "big.bin", 8 * MB);
  const small = await writeFile(folder, "small.bin", 1000);
  const other = await writeFile(folder, "other.bin", 1000);
  const ada = await Person.arrive(t, { name: "Ada" });
  let ben = await Person.arrive(t, { name: "Ben", alone: true });
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  await ben.open(link);
  await ada.meets(1);
  const slow = "0.05"; // MB/s: there is time to press what is to be pressed
  const pausedMidway = async () => {
    await ada.press("Send");
    await ada.limit(slow);
    await ben.press("Accept");
    await ada.seesDelivery("Ben", /^Transferring · [1-9]/);
    await ada.press("Pause");
    await ada.seesDelivery("Ben", /^Paused/);
  };
  await ada.choose(big.file, small.file);
  await pausedMidway();

  await t.test("a reload of the recipient goes on by itself", async () => {
    await ben.page.reload();
    await ben.meets(1);
    await ben.sees(/Receiving big\.bin and 1 more \(8 MB\) from Ada/);
    await ben.seesDelivery("Ada", /^Paused · [1-9]/);
  });

  await t.test("after a reload the sender chooses the files again", async () => {
    await ada.press("Resume");
    await ben.press("Pause"); // so that it does not go on before it is limited again
    await ada.seesDelivery("Ben", /^Paused/);
    await ada.page.reload();
    await ada.meets(1);
    await ada.sees(/Unfinished[^]*Sending big\.bin and 1 more \(8 MB\) to Ben[^]*Choose the same files again to go on/);
    const again = async (/** @type {string[]} */ ...files) => {
      const button = await ada.control("button", "Choose the files");
      const [chooser] = await Promise.all([ada.page.waitForFileChooser(), button.click()]);
      await chooser.accept(files);
    };
    await again(other.file);
    await ada.sees(/None of what is missing was among those\. Choose the 2 files that you were sending\./);
    await again(big.file);
    await ada.sees(/1 file is still missing: small\.bin\.[^]*Go on without it/);
    await again(small.file);
    await ada.limit(slow);
    await ben.press("Resume");
    await ada.seesDelivery("Ben", /^Transferring · [1-9]/);
    await ada.press("Pause");
    await ada.seesDelivery("Ben", /^Paused/);
    assert.doesNotMatch(await ada.text(), /Unfinished/);
  });

  await t.test("the recipient's browser is killed, and finds it again from the front page", async () => {
    const { profile } = ben;
    ben.page.browser().process()?.kill("SIGKILL");
    await ada.seesDelivery("Ben", /^Connection lost/, 60_000);
    ben = await Person.arrive(t, { name: "Ben", profile });
    await ben.open(`${server.url}/`);
    await ben.sees(/Unfinished[^]*Receiving big\.bin and 1 more \(8 MB\) from Ada[^]*Deleted on [^]*unless it goes on[^]*Continue[^]*Discard/, 60_000);
    await ben.press("Continue");
    await ben.meets(1);
    assert.equal(await ben.link(), link);
    await ada.seesDelivery("Ben", /^Paused/);
    await ada.limit("");
    await ada.press("Resume");
    await ada.seesDelivery("Ben", /^Done: verified on disk$/, 120_000);
    await ben.sees(/Verified, and handed to your browser’s downloads: 2 files/, 60_000);
    await expectFiles(ben.downloads, [big, small], 60_000);
    assert.doesNotMatch(await ben.text(), /Unfinished/);
  });

  await t.test("a folder that was dropped is read again without being chosen", async () => {
    const dropped = path.join(folder, "Dropped");
    fs.mkdirSync(path.join(dropped, "inner"), { recursive: true });
    fs.writeFileSync(path.join(dropped, "a.bin"), Buffer.alloc(3_000_000, 65));
    fs.writeFileSync(path.join(dropped, "inner", "b.txt"), "AAAAA");
    // For one on the disk the browser would ask, in a way that no test can answer; so the handle is of a copy in the private file system.
    const times = await ada.page.evaluate(async () => {
      const copy = await (await navigator.storage.getDirectory()).getDirectoryHandle("Dropped", { create: true });
      const inner = await copy.getDirectoryHandle("inner", { create: true });
      const made = [];
      for (const [where, name, size] of /** @type {const} */ ([[copy, "a.bin", 3_000_000], [inner, "b.txt", 5]])) {
        const handle = await where.getFileHandle(name, { create: true });
        const out = await handle.createWritable();
        await out.write(new Uint8Array(size).fill(65));
        await out.close();
        made.push((await handle.getFile()).lastModified);
      }
      Object.assign(DataTransferItem.prototype, { getAsFileSystemHandle: async () => copy });
      return made;
    });
    // The copy's time, or it would be taken for a file that has changed.
    for (const [i, file] of [path.join(dropped, "a.bin"), path.join(dropped, "inner", "b.txt")].entries()) fs.utimesSync(file, 0, (times[i] + 0.5) / 1000);
    await ada.drop(dropped);
    await ada.sees(/2 files, 3 MB/);
    await pausedMidway();
    await ada.page.reload();
    await ada.sees(/Unfinished[^]*Sending a\.bin and 1 more \(3 MB\) to Ben/);
    await ada.press("Continue");
    await ada.seesDelivery("Ben", /^Done: verified on disk$/, 120_000);
    await ben.sees(/Verified, and handed to your browser’s downloads as one zip: 2 files/, 60_000);
  });

  await t.test("what is discarded is gone, on both sides", async () => {
    await ada.choose(big.file);
    await pausedMidway();
    await ada.page.reload();
    await ada.press("Discard");
    await ben.sees(/Cancelled by the other side/, 60_000);
    await until("an empty list", async () => !/Unfinished/.test(await ada.text()));
  });
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("a sender's browser is killed, and the files on the disk are chosen again, one of them edited", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const folder = tempDir(t);
  const big = await writeFile(folder, "big.bin", 8 * MB);
  const edited = await writeFile(folder, "edited.bin", MB);
  let ada = await Person.arrive(t, { name: "Ada", alone: true });
  const ben = await Person.arrive(t, { name: "Ben" });
  await ada.open(`${server.url}/`);
  const link = await ada.link();
  await ben.open(link);
  await ada.meets(1);
  await ada.choose(edited.file, big.file);
  await ada.press("Send");
  await ada.limit("1"); // MB/s
  await ben.press("Accept");
  await ada.seesDelivery("Ben", /^Transferring · [3-9]\d %/);

  const { profile } = ada;
  ada.page.browser().process()?.kill("SIGKILL");
  await ben.seesDelivery("Ada", /^Connection lost/, 60_000);
  const bytes = fs.readFileSync(edited.file);
  bytes[1000] ^= 1;
  fs.writeFileSync(edited.file, bytes);
  ada = await Person.arrive(t, { name: "Ada", profile });
  await ada.open(`${server.url}/`);
  await ada.sees(/Unfinished[^]*Sending edited\.bin and 1 more \(9 MB\) to Ben/, 60_000);
  await ada.press("Continue");
  await ada.meets(1);
  const button = await ada.control("button", "Choose the files");
  const [chooser] = await Promise.all([ada.page.waitForFileChooser(), button.click()]);
  await chooser.accept([big.file, edited.file]);
  await ada.seesDelivery("Ben", /^Failed: The file was changed or removed since it was chosen/, 120_000);
  await ben.sees(/Incomplete: 1 file of 2 did not arrive/);
  await ben.press("Save big.bin");
  await expectFiles(ben.downloads, [big], 60_000);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("a sender is told where its browser does not store what going on takes", { timeout: 400_000 }, async (t) => {
  const server = await startServer(t);
  const small = await writeFile(tempDir(t), "small.bin", 1000);
  const ada = await Person.arrive(t, { name: "Ada", alone: true });
  const ben = await Person.arrive(t, { name: "Ben" });
  await ada.open(`${server.url}/`);
  await ben.open(await ada.link());
  await ada.meets(1);
  const told = /Keep this page open: the browser could not store what it takes to go on after a reload\./;
  const cdp = await ada.page.createCDPSession();
  await cdp.send("Storage.overrideQuotaForOrigin", { origin: server.url, quotaSize: 1 });
  await ada.choose(small.file);
  await ada.press("Send");
  await ada.sees(told);
  await ben.press("Accept");
  await ada.seesDelivery("Ben", /^Done/);
  await until("no note once it is over", async () => !told.test(await ada.text()), 60_000);
  await ada.press("Clear");
  await cdp.send("Storage.overrideQuotaForOrigin", { origin: server.url });
  await ada.choose(small.file);
  await ada.press("Send");
  await ben.sees(/wants to send you small\.bin/);
  assert.doesNotMatch(await ada.text(), told);
});
