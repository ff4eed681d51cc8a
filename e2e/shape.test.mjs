// Any shape: folders with their structure, thousands of small files, empty ones, names in any script; saved as single files, as a zip, or
// into a folder; all of it or some.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { expectFiles, startServer, tempDir, until } from "./harness.mjs";
import { prepare, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";
import { readTree, unzip } from "./tree.mjs";

/** A person's folder, "Album", with a bit of everything. @param {import("node:test").TestContext} t */
function album(t) {
  const dir = path.join(tempDir(t), "Album");
  const files = {
    "read me.txt": "hello",
    "empty.bin": "",
    "2011/caf\u00e9.txt": "composed",
    "2011/cafe\u0301.txt": "decomposed",
    "2011/12/שלום עולם.txt": "from right to left",
    "2011/12/😀 日本語 \u{1f468}\u200d\u{1f469}\u200d\u{1f467}.bin": "x".repeat(300_000),
    "2012/.hidden": "hidden",
  };
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    fs.writeFileSync(path.join(dir, name), text);
  }
  for (const [i, name] of Object.keys(files).entries()) {
    const when = new Date(Date.UTC(2011, i, 2, 3, 4, 5));
    fs.utimesSync(path.join(dir, name), when, when);
  }
  fs.mkdirSync(path.join(dir, "2012", "nothing yet"), { recursive: true });
  return dir;
}

/**
 * A tree to compare with another: the two cafés would be one file on some systems, so on the way one of them, whichever comes second, gets a number; folders
 * have no time.
 * @param {ReturnType<typeof readTree>} tree @param {string} [top]
 */
function comparable(tree, top = "") {
  const name = (/** @type {string} */ p, /** @type {string} */ hash) => (/cafe\u0301( \(2\))?\.txt$/.test(p.normalize("NFD")) ? `café ${hash}` : p);
  return Object.fromEntries(Object.entries(tree).map(([p, { sha256, mtime }]) => [name(`${top}${p}`, sha256), sha256 ? { sha256, mtime } : { sha256 }]));
}

/** Two people in a room. @param {import("node:test").TestContext} t @param {() => void} [beforeBen] */
async function pair(t, beforeBen) {
  const server = await startServer(t);
  const [ada, ben] = await Promise.all([Person.arrive(t, { name: "Ada" }), Person.arrive(t, { name: "Ben", before: beforeBen })]);
  await ada.open(`${server.url}/`);
  await ben.open(await ada.link());
  await Promise.all([ada.meets(1), ben.meets(1)]);
  return { ada, ben };
}

/** The folder that the person picks: one in the private file system, since no test can use the browser's own dialogue. It stays open while it is held. */
const pickerStandIn = () => {
  const picker = { shown: false, held: Promise.resolve(), answer() {} };
  Object.assign(window, {
    picker,
    async showDirectoryPicker() {
      picker.shown = true;
      await picker.held;
      return (await navigator.storage.getDirectory()).getDirectoryHandle("Picked", { create: true });
    },
  });
};

/** What lies in that folder, as text. @param {Person} person @returns {Promise<Record<string, string>>} */
const picked = (person) =>
  person.page.evaluate(async () => {
    /** @type {Record<string, string>} */
    const found = {};
    const walk = async (/** @type {any} */ folder, /** @type {string} */ prefix) => {
      let empty = true;
      for await (const [name, handle] of folder.entries()) {
        empty = false;
        if (handle.kind === "directory") await walk(handle, `${prefix}${name}/`);
        else found[`${prefix}${name}`] = await (await handle.getFile()).text();
      }
      if (empty) found[prefix] = "";
    };
    await walk(await (await navigator.storage.getDirectory()).getDirectoryHandle("Picked", { create: true }), "");
    return found;
  });

/** @param {Person} person @param {string} name the only download */
async function downloaded(person, name) {
  await until(`${name} in ${person.downloads}`, () => fs.readdirSync(person.downloads).join("\n") === name);
  return path.join(person.downloads, name);
}

test("a folder is chosen, and arrives as a zip with names and times", { timeout: 240_000 }, async (t) => {
  const dir = album(t);
  const { ada, ben } = await pair(t);
  const button = await ada.control("button", "Choose a folder");
  const [chooser] = await Promise.all([ada.page.waitForFileChooser(), button.click()]);
  await chooser.accept([dir]);
  await ada.sees(/7 files, 300 kB/);
  await ada.sees(/Empty folders come along when you drop the folder here instead\./);
  await ada.press("Send");
  await ben.sees(/Ada wants to send you .* and 6 more/);
  await ben.sees(/Album\//);
  await ben.press("Accept");
  await ben.sees(/Verified, and handed to your browser’s downloads as one zip: 7 files/);
  const tree = comparable(readTree(dir), "Album/");
  delete tree["Album/2012/nothing yet/"]; // the browser's own chooser does not tell of it
  assert.deepEqual(comparable(readTree(unzip(t, await downloaded(ben, "Album.zip")))), tree);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("a folder is dropped, with what is empty in it; unticked files do not come", { timeout: 240_000 }, async (t) => {
  const dir = album(t);
  const { ada, ben } = await pair(t);
  await ada.drop(dir);
  await ada.sees(/7 files, 300 kB and 1 empty folder/);
  await ada.press("Send");

  await (await ben.control("DisclosureTriangle", "8 items")).click();
  await (await ben.control("checkbox", "2012/")).click();
  await ben.sees(/Chosen: 6 of 8 items, 300 kB/);
  await (await ben.control("checkbox", "empty.bin")).click();
  await ben.sees(/Chosen: 5 of 8 items/);
  await (await ben.control("checkbox", "2012/")).click();
  await ben.sees(/Chosen: 7 of 8 items/);
  const mixed = await ben.page.$$eval(".offer input[type=checkbox]", (boxes) => boxes.map((b) => /** @type {HTMLInputElement} */ (b).indeterminate));
  assert.equal(mixed.filter(Boolean).length, 1, "the folder that lacks a file is neither ticked nor not");
  await ben.press("Accept");
  await ben.sees(/Verified, and handed to your browser’s downloads as one zip: 6 files/);
  const tree = comparable(readTree(dir), "Album/");
  assert.ok("Album/2012/nothing yet/" in tree);
  delete tree["Album/empty.bin"];
  assert.deepEqual(comparable(readTree(unzip(t, await downloaded(ben, "Album.zip")))), tree);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

test("into a picked folder, which has some of it", { timeout: 240_000 }, async (t) => {
  const { ada, ben } = await pair(t, pickerStandIn);
  const fill = (/** @type {Person} */ person, /** @type {Record<string, string>} */ files) =>
    person.page.evaluate(async (given) => {
      for (const [name, text] of Object.entries(given)) {
        let folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("Picked", { create: true });
        const elements = name.split("/");
        for (const element of elements.slice(0, -1)) folder = await folder.getDirectoryHandle(element, { create: true });
        if (name.endsWith("/")) continue;
        const out = await (await folder.getFileHandle(elements.at(-1) ?? "", { create: true })).createWritable();
        await out.write(text);
        await out.close();
      }
    }, files);
  const dir = path.join(tempDir(t), "Picked");
  for (const name of ["deep/er", "hollow/in", "name"]) fs.mkdirSync(path.join(dir, name), { recursive: true });
  for (const [name, text] of Object.entries({ "a.txt": "new a", "a (2).txt": "new a 2", "deep/er/b": "new b", "name/c": "new c" })) fs.writeFileSync(path.join(dir, name), text);
  await fill(ben, { "Picked/a.txt": "old a", "Picked/name": "a file" });
  await ada.drop(dir);
  await ada.sees(/4 files, 22 B and 1 empty folder/);
  await ada.press("Send");
  await ben.sees(/wants to send/);
  await ben.page.select(".offer select", "folder");
  await ben.page.evaluate(() => {
    const { picker } = /** @type {any} */ (window);
    picker.held = new Promise((resolve) => (picker.answer = resolve));
  });
  await ben.press("Accept");
  await ben.page.waitForFunction(() => /** @type {any} */ (window).picker.shown);
  await delay(1000);
  await ada.seesDelivery("Ben", /^Waiting for an answer$/);
  await ben.page.evaluate(() => /** @type {any} */ (window).picker.answer());
  await ben.sees(/Verified and saved in the folder “Picked”: 4 files/);
  assert.deepEqual(await picked(ben), {
    "Picked/a.txt": "old a",
    "Picked/a (3).txt": "new a",
    "Picked/a (2).txt": "new a 2",
    "Picked/deep/er/b": "new b",
    "Picked/hollow/in/": "",
    "Picked/name": "a file",
    "Picked/name (2)/c": "new c",
  });
  await expectFiles(ben.downloads, []);
  assert.deepEqual([...ada.errors, ...ben.errors], []);
});

/** A member of the API, and a room of theirs. @param {import("node:test").TestContext} t */
async function owner(t) {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const page = await startMember(browser, server.url);
  const link = await page.evaluate(async (pageURL) => (me.watch(await me.tallow.createRoom({ name: "Ada", pageURL })), me.room.link), `${server.url}/`);
  return { server, browser, page, link };
}

/** Offers that many files of up to 2 kB in two folders and one at the top. @param {import("puppeteer-core").Page} page @param {number} n @param {number} [limit] bytes per second */
const sendCrowd = (page, n, limit = 0) =>
  page.evaluate(
    async (count, bandwidthLimit) => {
      const all = me.blob(count * 2000, 3);
      me.files = Array.from({ length: count }, (_, i) => ({ path: i % 10 === 0 ? `few/${i}` : `many/${i}`, file: all.slice(i * 2000, i * 2000 + (i * 7) % 2001) }));
      me.transfer = me.room.send([{ path: "top", file: all.slice(0, 5) }, ...me.files], { bandwidthLimit });
      me.transfer.finished.then((result) => (me.result = result));
    },
    n,
    limit,
  );

test("ten thousand small files: the page stays small, and takes those that are ticked", { timeout: 240_000 }, async (t) => {
  const n = 10_000;
  const { page, link } = await owner(t);
  const ben = await Person.arrive(t, { name: "Ben" });
  await ben.open(link);
  await page.evaluate(() => me.meets(1));
  await sendCrowd(page, n);
  await ben.sees(/Ada wants to send you top and 10000 more/);
  const size = () => ben.page.evaluate(() => document.querySelectorAll("*").length);
  const before = await size();
  assert.ok(before < 500, `${before} elements`);
  await (await ben.control("DisclosureTriangle", "9000 items")).click();
  await ben.sees(/1 to 100 of 9000/);
  for (let i = 0; i < 3; i++) await ben.press("Next");
  await ben.sees(/301 to 400 of 9000/);
  assert.ok((await size()) < before + 600, `${await size()} elements with a page of files`);
  await (await ben.control("checkbox", "many/")).click();
  await ben.sees(/Chosen: 1001 of 10001 items/);
  await (await ben.control("checkbox", "337")).click(); // the 301st to 400th of those that do not end in 0
  await ben.sees(/Chosen: 1002 of 10001 items/);
  await ben.press("Accept");
  await ben.sees(/Verified, and handed to your browser’s downloads as one zip: 1002 files/, 120_000);
  const found = readTree(unzip(t, await downloaded(ben, "files.zip")));
  const hashes = await page.evaluate(async () =>
    Object.fromEntries(await Promise.all(me.files.filter(({ path: p }) => p.startsWith("few/") || p === "many/337").map(async ({ path: p, file }) => [p, await me.sha256(file)]))),
  );
  assert.deepEqual(Object.fromEntries(Object.entries(found).filter(([name]) => name !== "top").map(([name, { sha256 }]) => [name, sha256])), hashes);
  assert.ok((await size()) < 1500, `${await size()} elements at the end`);
  const { JSHeapUsedSize } = await ben.page.metrics();
  assert.ok((JSHeapUsedSize ?? 0) < 60 << 20, `${JSHeapUsedSize} bytes of JavaScript objects`);
  t.diagnostic(`${await size()} elements, ${((JSHeapUsedSize ?? 0) / 1e6).toFixed(1)} MB of JavaScript objects`);
  assert.deepEqual(ben.errors, []);
});

test("the API: small files after a reload, a zip, a folder of the person's", { timeout: 240_000 }, async (t) => {
  const n = 2000;
  const { page, browser, server, link } = await owner(t);
  const recipient = await startMember(browser, server.url);
  const join = () => recipient.evaluate(async (to) => me.join(to, { name: "Ben" }), link);
  await join();
  await page.evaluate(() => me.meets(1));
  await sendCrowd(page, n, 300_000);
  await recipient.evaluate(async () => void (await me.offer()).accept());
  // It is held by the page itself, so that however slow this process is, it is not over by then.
  const had = await page.evaluate(async () => {
    await me.until(async () => (await me.room.stats())[0].payloadSent > 700_000);
    await me.transfer.setTotalBandwidthLimit(1);
    await me.until(() => me.transfer.recipients[0].bytes > 300_000);
    return me.transfer.recipients[0].bytes;
  });
  await recipient.reload();
  await recipient.evaluate(prepare);
  await join();
  await recipient.evaluate(async (bytes) => {
    const transfer = await me.until(() => me.room.transfers[0]);
    await me.until(() => transfer.state === "transferring" && transfer.stats().bytes >= bytes); // what was there still is
  }, had);
  await page.evaluate(() => me.transfer.setTotalBandwidthLimit(0));
  const received = await recipient.evaluate(async () => {
    const [transfer] = me.room.transfers;
    const { files, failed } = await transfer.finished;
    const [{ repeated }] = transfer.stats().recipients;
    const zips = [];
    const { createObjectURL } = URL;
    URL.createObjectURL = (blob) => (zips.push(blob), createObjectURL(blob));
    await transfer.saveAll({ as: "zip", files: files.filter((file) => file.path.startsWith("few/")) });
    URL.createObjectURL = createObjectURL;
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine", { create: true });
    await transfer.saveAll({ directory: folder, files: files.slice(0, 20) });
    const names = [];
    for await (const name of (await folder.getDirectoryHandle("many")).keys()) names.push(name);
    const codes = [];
    for (const bad of [{ as: "tar" }, { directory: {} }, { files: [1] }, { name: "a/b", as: "zip" }]) codes.push(await me.code(transfer.saveAll(bad)));
    const hashes = await Promise.all(files.map(async (file) => me.sha256(await file.file())));
    await transfer.discard();
    return { count: files.length, failed: failed.length, repeated, hashes, zips: zips.map(({ name }) => name), zip: zips[0].size, names: names.length, codes, gone: await me.code(transfer.saveAll({ as: "zip" })) };
  });
  assert.deepEqual(received.hashes.slice(1), await page.evaluate(() => Promise.all(me.files.map(({ file }) => me.sha256(file)))));
  assert.deepEqual([received.count, received.failed, received.zips, received.names], [n + 1, 0, ["few.zip"], 17]);
  assert.ok(received.zip > 200_000, `a zip of ${received.zip} bytes`);
  assert.deepEqual(received.codes, Array(4).fill("invalid-argument"));
  assert.equal(received.gone, "storage-failed");
  assert.equal(received.repeated, 0, "nothing came again that was on disk");
  await until("the sender's end", () => page.evaluate(() => me.result?.successfulRecipients.length === 1));

  // Into a folder as part of accepting, and a folder that cannot be written to.
  for (const bad of [false, true]) {
    await page.evaluate(() => void me.room.send([{ path: "x/y", file: new Blob(["hello"]) }, { path: "x/z", directory: true }]));
    const outcome = await recipient.evaluate(async (broken) => {
      const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle("accepted", { create: true });
      if (broken) await (await navigator.storage.getDirectory()).removeEntry("accepted", { recursive: true });
      const { getDirectoryHandle } = directory;
      let during = "";
      directory.getDirectoryHandle = (...args) => {
        during ||= transfer.state;
        return getDirectoryHandle.apply(directory, args);
      };
      const transfer = (await me.offer()).accept({ directory });
      const code = await me.code(transfer.finished);
      if (broken) return [code, during, transfer.state];
      const folder = await directory.getDirectoryHandle("x");
      const kinds = {};
      for await (const [name, handle] of folder.entries()) kinds[name] = handle.kind;
      return [code, during, transfer.state, kinds];
    }, bad);
    assert.deepEqual(outcome, bad ? ["storage-failed", "saving", "done"] : ["resolved", "saving", "done", { y: "file", z: "directory" }]);
  }
});
