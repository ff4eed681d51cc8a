// What is written straight into a picked folder while it arrives. The folder is one of the private file system, since nobody can press the browser's own picker.

import assert from "node:assert/strict";
import test from "node:test";
import { CHUNK, startBrowser, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { loadMember, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";

/** Runs in the page before anything else: a picked folder, what lies in it, and an eye on what is written to it. */
const folderStandIn = () => {
  const pick = async () => (await navigator.storage.getDirectory()).getDirectoryHandle("Picked", { create: true });
  const disk = {
    pick,
    /** Files that are being written, now and at most; those that are whole. */
    open: 0,
    most: 0,
    closed: 0,
    /** Whether the core has let go of a folder. */
    removed: false,
    /** Called with the name of a file before something is done. @type {(does: "write" | "close", name: string) => unknown} */
    before: () => {},
    /** Paths and SHA-256 of all that is there; of folders with nothing in them "". @returns {Promise<Record<string, string>>} */
    async tree() {
      /** @type {Record<string, string>} */
      const found = {};
      const walk = async (/** @type {any} */ folder, /** @type {string} */ prefix) => {
        const entries = [];
        for await (const entry of folder.entries()) entries.push(entry);
        if (entries.length === 0 && prefix) found[prefix] = "";
        for (const [name, handle] of entries) {
          if (handle.kind === "directory") await walk(handle, `${prefix}${name}/`);
          else {
            const digest = await crypto.subtle.digest("SHA-256", await (await handle.getFile()).arrayBuffer());
            found[`${prefix}${name}`] = [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
          }
        }
      };
      await walk(await pick(), "");
      return Object.fromEntries(Object.entries(found).sort());
    },
  };
  const { createWritable } = FileSystemFileHandle.prototype;
  FileSystemFileHandle.prototype.createWritable = async function (...args) {
    disk.most = Math.max(disk.most, ++disk.open);
    const out = await createWritable.apply(this, args);
    const { write, close, abort } = out;
    out.write = async (data) => (await disk.before("write", this.name), write.call(out, data));
    out.close = async () => {
      await disk.before("close", this.name);
      await close.call(out);
      disk.open--;
      disk.closed++;
    };
    out.abort = async (reason) => {
      if (out.locked) return;
      await abort.call(out, reason);
    };
    return out;
  };
  Object.assign(globalThis, { disk, showDirectoryPicker: pick });
};

/**
 * A room of a sender and a recipient, into whose folder something was put before.
 * @param {import("node:test").TestContext} t @param {"chromium" | "firefox"} [kind] of the recipient's browser
 */
async function pair(t, kind = "chromium") {
  const server = await startServer(t);
  const shared = await sharedBrowser(t);
  const owner = await startMember(shared, server.url);
  let member;
  if (kind === "firefox") {
    const { browser } = await startBrowser(t, { kind });
    [member] = await browser.pages();
    member.setDefaultTimeout(120_000);
    await member.evaluateOnNewDocument(folderStandIn);
    await loadMember(member, server.url);
  } else member = await startMember(shared, server.url, { before: folderStandIn });
  const link = await owner.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "owner" }));
    return me.room.link;
  });
  await member.evaluate((to) => me.join(to, { name: "member" }), link);
  await owner.evaluate(() => me.meets(1));
  const before = await member.evaluate(async () => {
    const folder = await disk.pick();
    const inner = await folder.getDirectoryHandle("there", { create: true });
    for (const [where, name] of [[folder, "big.bin"], [inner, "kept.txt"]]) {
      const out = await (await where.getFileHandle(name, { create: true })).createWritable();
      await out.write("what was there");
      await out.close();
    }
    Object.assign(disk, { open: 0, most: 0, closed: 0 });
    return disk.tree();
  });
  return { server, owner, member, before, link };
}

/** @param {import("puppeteer-core").Page} page */
const accept = (page) =>
  page.evaluate(async () => {
    const offer = await me.offer();
    me.incoming = offer.accept({ directory: await disk.pick(), directly: true });
    me.code(me.incoming.finished).then((code) => (me.ended = code));
  });

for (const kind of /** @type {const} */ (["chromium", "firefox"])) {
  test(`straight into a folder: bytes, structure and receipt (${kind})`, { timeout: 240_000 }, async (t) => {
    const { owner, member, before } = await pair(t, kind);
    const size = 300 * CHUNK + 1;
    const want = await owner.evaluate(async (n) => {
      const items = [{ path: "big.bin", file: me.blob(n, 1) }, { path: "empty.bin", file: new Blob([]) }, { path: "there/none/", directory: true }].map((item) => ({ ...item, path: item.path.replace(/\/$/, "") }));
      for (let i = 0; i < 300; i++) items.push({ path: `there/small/${i}.bin`, file: me.blob(i * 7, i + 2) });
      for (let i = 0; i < 12; i++) items.push({ path: `new/${i}.bin`, file: me.blob(700_000 + i, i + 400) });
      me.transfer = me.room.send(["hello", ...items]);
      const hashes = { "there/none/": "", text: await me.sha256(new Blob(["hello"])) };
      for (const { path, file } of items) if (file) hashes[path] = await me.sha256(file);
      return hashes;
    }, size);
    // The last file is not closed until it is let.
    await member.evaluate(async () => {
      const module = "/direct.js";
      const { DirectFolder } = await import(module);
      const { remove } = DirectFolder.prototype;
      DirectFolder.prototype.remove = function () {
        disk.removed = true;
        return remove.call(this);
      };
      disk.before = (does, name) => (does === "close" && name === "big (2).bin" ? new Promise((resolve) => (disk.let = resolve)) : undefined);
    });
    await accept(member);
    await member.evaluate(() => me.until(() => disk.let && me.incoming.state === "saving"));
    await owner.evaluate(() => me.until(() => me.transfer.state === "saving")); // no receipt while a file is not in the folder
    assert.equal(await member.evaluate(() => me.ended), undefined);
    await member.evaluate(() => disk.let());
    await owner.evaluate(async () => (me.result = await me.transfer.finished));
    assert.equal(await owner.evaluate(() => me.result.successfulRecipients.length), 1);

    const { tree, got, saved, most, open, stored, repeated } = await member.evaluate(async () => {
      const { files, failed } = await me.incoming.finished;
      if (failed.length > 0) throw new Error("failed");
      const got = {};
      for (const file of files) if (file.kind !== "directory") got[file.path] = await me.sha256(await file.file());
      const { most, open } = disk;
      return { tree: await disk.tree(), got, saved: me.incoming.saved && files.every((file) => file.saved), most, open, stored: await me.stored(), repeated: me.incoming.stats().recipients[0].repeated };
    });
    const { text, ...rest } = want;
    const name = Object.keys(tree).find((path) => tree[path] === text) ?? "";
    assert.match(name, /\.txt$/);
    const { "big.bin": big, ...others } = rest;
    assert.deepEqual(tree, Object.fromEntries(Object.entries({ ...before, ...others, "big (2).bin": big, [name]: text }).sort()));
    const { "there/none/": _, ...solid } = rest;
    assert.deepEqual(Object.keys(got).length, Object.keys(solid).length + 1);
    for (const [path, hash] of Object.entries(solid)) assert.equal(got[path], hash, path);
    assert.ok(saved);
    assert.ok(most > 1 && most <= 8, `${most} files at a time`);
    assert.equal(open, 0);
    assert.equal(repeated, 0);
    assert.deepEqual(stored, [], "nothing of it in the private file system");

    await member.evaluate(() => me.until(() => disk.removed)); // which removes nothing by now: Go has let go of it

    // A file that is of another size by now is not given out for what has arrived.
    const spoilt = await member.evaluate(async () => {
      const out = await (await (await (await disk.pick()).getDirectoryHandle("new")).getFileHandle("3.bin")).createWritable({ keepExistingData: true });
      await out.write({ type: "write", position: 1_000_000, data: "more" });
      await out.close();
      const { files } = await me.incoming.finished;
      return Promise.all([me.incoming.saveAll({ as: "zip" }), files.find(({ path }) => path === "new/3.bin").file()].map(me.code));
    });
    assert.deepEqual(spoilt, ["storage-failed", "storage-failed"]);

    // It is the person's: letting go of it deletes nothing.
    const after = await member.evaluate(async () => {
      const { files } = await me.incoming.finished;
      await me.incoming.discard();
      return [me.incoming.available, await me.code(files[1].file()), Object.keys(await disk.tree()).length];
    });
    assert.deepEqual(after, [false, "storage-failed", Object.keys(tree).length]);
  });
}

test("what is cancelled leaves nothing behind in the folder", { timeout: 240_000 }, async (t) => {
  const { owner, member, before } = await pair(t);
  for (const who of ["member", "owner", "room"]) {
    await owner.evaluate(() => {
      const items = [{ path: "there/first.bin", file: me.blob(1_000_000, 1) }, { path: "new/a/b.bin", file: me.blob(1_000_000, 2) }, { path: "there/big.bin", file: me.blob(40 << 20, 3) }];
      me.transfer = me.room.send(items, { bandwidthLimit: 4_000_000 });
      me.transfer.finished.catch(() => {});
    });
    await member.evaluate(() => Object.assign(me, { ended: undefined }));
    await accept(member);
    await member.evaluate(() => me.until(() => disk.closed >= 2 && me.incoming.stats().bytes > 3_000_000));
    const during = Object.keys(await member.evaluate(() => disk.tree()));
    for (const path of ["there/first.bin", "new/a/b.bin", "there/big.bin"]) assert.ok(during.includes(path), path);
    if (who === "member") await member.evaluate(() => me.incoming.cancel());
    else if (who === "owner") await owner.evaluate(() => me.transfer.cancel());
    else await member.evaluate(() => me.room.leave());
    await until(`its end (${who})`, () => member.evaluate(() => me.ended));
    assert.equal(await member.evaluate(() => me.ended), who === "owner" ? "cancelled-by-peer" : "cancelled");
    // What is being removed may be gone when it is looked at.
    await until("the folder is as before", async () => JSON.stringify(await member.evaluate(() => disk.tree().catch(() => undefined))) === JSON.stringify(before));
    await member.evaluate(() => (disk.closed = 0));
  }
});

test("a folder without room, or gone: it fails, says why at both ends, and leaves nothing behind", { timeout: 240_000 }, async (t) => {
  const { owner, member, before } = await pair(t);
  for (const [does, error, code] of [["write", "QuotaExceededError", "disk-full"], ["close", "QuotaExceededError", "disk-full"], ["write", "NotAllowedError", "storage-failed"]]) {
    await owner.evaluate(() => {
      me.transfer = me.room.send([{ path: "a.bin", file: me.blob(1_000_000, 1) }, { path: "new/b.bin", file: me.blob(4_000_000, 2) }, { path: "c.bin", file: me.blob(1_000_000, 3) }]);
    });
    await member.evaluate(
      (what, name) => {
        me.ended = undefined;
        let n = 0;
        disk.before = (doing, file) => {
          if (doing === what && file === "b.bin" && (what === "close" || ++n > 3)) throw new DOMException("not that", name);
        };
      },
      does,
      error,
    );
    await accept(member);
    assert.equal(await until("its end", () => member.evaluate(() => me.ended)), code);
    const { failedRecipients } = await owner.evaluate(() => me.transfer.finished);
    assert.deepEqual(failedRecipients.map((/** @type {any} */ { code }) => code), [code]);
    // What is being removed may be gone when it is looked at.
    await until("the folder is as before", async () => JSON.stringify(await member.evaluate(() => disk.tree().catch(() => undefined))) === JSON.stringify(before));
  }
});

test("of a file that its sender cannot read to the end nothing stays in the folder; the others do", { timeout: 240_000 }, async (t) => {
  const { owner, member, before } = await pair(t);
  const want = await owner.evaluate(async () => {
    me.handle = await (await navigator.storage.getDirectory()).getFileHandle("changed.bin", { create: true });
    me.change = async (/** @type {number} */ seed) => {
      const out = await me.handle.createWritable();
      await out.write(me.blob(24 << 20, seed));
      await out.close();
    };
    await me.change(1);
    const whole = me.blob(1_000_000, 2);
    me.transfer = me.room.send([{ path: "half/changed.bin", file: await me.handle.getFile() }, { path: "empty.bin", file: new Blob([]) }, { path: "whole.bin", file: whole }], { bandwidthLimit: 2_500_000 }); // ten seconds, in which it changes
    return { "empty.bin": await me.sha256(new Blob([])), "whole.bin": await me.sha256(whole) };
  });
  await accept(member);
  await member.evaluate(() => me.until(() => me.incoming.stats().bytes > 1_000_000));
  assert.ok("half/changed.bin" in (await member.evaluate(() => disk.tree())));
  await owner.evaluate(() => me.change(3));
  const outcome = await member.evaluate(async () => {
    const { files, failed } = await me.incoming.finished;
    const hashes = {};
    for (const file of files) hashes[file.path] = await me.sha256(await file.file());
    return [hashes, failed.map(({ path }) => path), me.incoming.state];
  });
  assert.deepEqual(outcome, [want, ["half/changed.bin"], "failed"]);
  assert.deepEqual(await member.evaluate(() => disk.tree()), Object.fromEntries(Object.entries({ ...before, ...want }).sort()));
});

test("whoever begins many files and ends none is not waited for", { timeout: 240_000 }, async (t) => {
  const { member, before } = await pair(t);
  const outcomes = await member.evaluate(async () => {
    const module = "/direct.js";
    const { DirectFolder } = await import(module);
    const files = Array.from({ length: 23 }, (_, index) => ({ index, path: `new/${index}.bin`, directory: false, size: 2 }));
    const folder = new DirectFolder(await disk.pick(), files);
    /** @type {string[]} */
    const outcomes = [];
    const write = (/** @type {number} */ at, n = 1) =>
      folder.write(at, new Uint8Array(n)).then(
        () => outcomes.push("written"),
        (/** @type {Error} */ { message }) => outcomes.push(message),
      );
    await Promise.all([1, 0, 3, 2, 5, 4, 7, 6].map((at) => write(at))); // four files, in whatever order
    await write(8, 17); // eight, and half of one
    for (let at = 26; at <= 38; at += 2) await write(at); // the halves of seven more
    await write(25); // one of them ends, and so another can begin
    await write(40);
    await Promise.all([write(27), write(42)]); // one that waits for another's end
    await write(44); // the eldest is given up
    await write(29);
    await folder.remove();
    return outcomes;
  });
  assert.deepEqual(outcomes, [...Array(21).fill("written"), "too many files are begun"]);
  assert.deepEqual(await member.evaluate(() => disk.tree()), before);

  // Whose sender cannot read the rest of many costs the others nothing.
  await member.evaluate(async () => {
    const module = "/direct.js";
    const { DirectFolder } = await import(module);
    const files = Array.from({ length: 20 }, (_, index) => ({ index, path: `new/${index}/a.bin`, directory: false, size: 2 }));
    const folder = new DirectFolder(await disk.pick(), [...files, { index: 20, path: "new/20", directory: true, size: 0 }]);
    for (let i = 0; i < 20; i++) await folder.write(2 * i, new Uint8Array(i === 19 ? 2 : 1));
    await folder.commit();
    await folder.keep([19, 20]);
  });
  const tree = await member.evaluate(() => disk.tree());
  assert.deepEqual(Object.keys(tree), [...Object.keys(before), "new/19/a.bin", "new/20/"].sort());
});

test("two deliveries into one folder take no name from each other", { timeout: 240_000 }, async (t) => {
  const { member } = await pair(t);
  const sizes = await member.evaluate(async () => {
    const module = "/direct.js";
    const { DirectFolder } = await import(module);
    const root = await disk.pick();
    const folders = [1, 2, 3].map((size) => new DirectFolder(root, [{ index: 0, path: "Sub/same.bin", directory: false, size }]));
    await Promise.all(folders.map((folder, i) => folder.write(0, new Uint8Array(i + 1))));
    await Promise.all(folders.map((folder) => folder.commit()));
    await Promise.all(folders.map((folder) => folder.keep([0])));
    const sub = await root.getDirectoryHandle("Sub");
    const sizes = [];
    for await (const handle of sub.values()) sizes.push((await handle.getFile()).size);
    return sizes.sort();
  });
  assert.deepEqual(sizes, [1, 2, 3]);

  // Nor does one that ends without anything take away a folder that another has found there.
  const left = await member.evaluate(async () => {
    const module = "/direct.js";
    const { DirectFolder } = await import(module);
    const root = await disk.pick();
    const half = [{ index: 0, path: "Other/half.bin", directory: false, size: 2 }];
    const one = new DirectFolder(root, half);
    await one.write(0, new Uint8Array(1));
    const other = new DirectFolder(root, [{ index: 0, path: "Other", directory: true, size: 0 }, { index: 1, path: "b.bin", directory: false, size: 2 }]);
    await other.write(0, new Uint8Array(2));
    await other.commit();
    await one.remove();
    await other.keep([0, 1]);
    const alone = new DirectFolder(root, half.map((file) => ({ ...file, path: "Third/half.bin" })));
    await alone.write(0, new Uint8Array(1));
    await alone.remove();
    return Object.keys(await disk.tree()).filter((path) => /^(Other|Third)/.test(path));
  });
  assert.deepEqual(left, ["Other/"]);
});

test("a sender that is away for a while is waited for; a reload of this page ends it", { timeout: 240_000 }, async (t) => {
  const { server, owner, member, link } = await pair(t);
  const start = () =>
    owner.evaluate(async () => {
      const file = me.blob(16 << 20, 4);
      me.transfer = me.room.send([{ path: "a.bin", file }, { path: "b.bin", file: me.blob(1000, 5) }], { bandwidthLimit: 3_000_000 });
      return me.sha256(file);
    });
  const want = await start();
  await accept(member);
  const had = await member.evaluate(() => me.until(() => me.incoming.stats().bytes > 3_000_000 && me.incoming.stats().bytes));
  await loadMember(owner, server.url);
  await owner.evaluate(async (to) => {
    await me.join(to);
    const [item] = await me.tallow.unfinished();
    me.transfer = await item.continue([{ path: "a.bin", file: me.blob(16 << 20, 4) }, { path: "b.bin", file: me.blob(1000, 5) }]);
  }, link);
  assert.equal(await until("its end", () => member.evaluate(() => me.ended)), "resolved");
  assert.equal((await member.evaluate(() => disk.tree()))["a.bin"], want);
  assert.equal(await member.evaluate(() => me.incoming.stats().recipients[0].repeated), 0);
  assert.ok((await owner.evaluate(() => me.transfer.stats().recipients[0].bytes)) > had);

  await start();
  await accept(member);
  await member.evaluate(() => me.until(() => me.incoming.stats().bytes > 3_000_000));
  await loadMember(member, server.url);
  assert.equal(await member.evaluate(async () => (await me.tallow.unfinished()).length), 0);
  await member.evaluate((to) => me.join(to), link);
  await owner.evaluate(() => me.transfer.setTotalBandwidthLimit(0));
  await owner.evaluate(() => me.transfer.setBandwidthLimit(0));
  await accept(member); // it is offered again, and begins anew
  assert.equal(await until("its end", () => member.evaluate(() => me.ended)), "resolved");
  const tree = await member.evaluate(() => disk.tree());
  assert.equal(Object.values(tree).filter((hash) => hash === want).length, 2);
});

test("the page offers it for what finds no room", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const ada = await Person.arrive(t, { name: "Ada" });
  const ben = await Person.arrive(t, { name: "Ben", before: folderStandIn });
  await ben.page.evaluateOnNewDocument(() => {
    const { estimate } = StorageManager.prototype;
    Object.assign(globalThis, { quota: 300_000 });
    StorageManager.prototype.estimate = async function () {
      const found = { ...(await estimate.call(this)), quota: /** @type {any} */ (globalThis).quota, usage: 0 };
      Object.assign(globalThis, { asked: true });
      return found;
    };
  });
  await ada.open(`${server.url}/`);
  await ben.open(await ada.link());
  await ada.meets(1);
  const folder = tempDir(t);
  const files = [await writeFile(folder, "a.bin", 100_000), await writeFile(folder, "b.bin", 200_000)];
  const offer = async () => {
    await ada.choose(...files.map(({ file }) => file));
    await ada.press("Send");
    await ben.sees(/Ada wants to send you/);
  };
  await offer();
  await ben.sees(/cannot be gone on with after a reload or a crash/);
  await ben.press("Save straight into a folder…");
  await ben.sees(/Verified and saved in the folder “Picked”: 2 files/);
  await ada.seesDelivery("Ben", /^Done: verified on disk$/);
  assert.deepEqual(await ben.page.evaluate(() => disk.tree()), Object.fromEntries(files.map(({ name, sha256 }) => [name, sha256])));

  await ben.page.evaluate(() => Object.assign(globalThis, { quota: 1e9, asked: false }));
  await offer();
  await ben.control("button", "Accept");
  await ben.page.evaluate(async () => {
    while (!globalThis.asked) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setTimeout(resolve, 100)); // for what follows upon it
  });
  assert.doesNotMatch(await ben.page.evaluate(() => document.body.innerText), /straight into a folder/);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});
