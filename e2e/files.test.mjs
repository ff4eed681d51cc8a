// What the page does with files before they are sent and after they have come: what cannot be read, the tree of an offer, and saving into a folder.

import assert from "node:assert/strict";
import test from "node:test";
import { startServer } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";
import { distinct } from "../web/folder.js";

test("an offer of folders without end takes no more memory than its paths", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const page = await startMember(await sharedBrowser(t), server.url);
  const seen = await page.evaluate(async () => {
    const module = "/tree.js";
    const { FileTree } = await import(module);
    // No two have a folder in common, and each has 1,000 of them.
    const files = Array.from({ length: 2000 }, (_, index) => ({ index, kind: "file", name: "f", size: 1, path: `${index}/${"a/".repeat(1000)}f` }));
    const tree = new FileTree(files, () => {});
    document.body.append(tree.element);
    Object.assign(globalThis, { tree });
    const open = async (/** @type {Element | null} */ details) => {
      const opened = new Promise((resolve) => details?.addEventListener("toggle", resolve, { once: true }));
      Object.assign(/** @type {any} */ (details), { open: true });
      await opened;
    };
    await open(tree.element.querySelector("details"));
    await open(tree.element.querySelector("details details"));
    const box = tree.element.querySelector("details details input");
    box.click();
    const outer = tree.element.querySelector("input");
    return { rows: tree.element.querySelectorAll("li").length, summary: tree.summary, chosen: tree.chosen.length, first: tree.chosen[0], outer: outer.checked };
  });
  assert.deepEqual(seen, { rows: 103, summary: "1999 of 2000 items, 2 kB", chosen: 1999, first: 1, outer: false });
  const { JSHeapUsedSize } = await page.metrics();
  assert.ok((JSHeapUsedSize ?? Infinity) < 64 << 20, `${JSHeapUsedSize} bytes of JavaScript objects`);
});

test("names that others are given at the same moment", { timeout: 240_000 }, async (t) => {
  assert.deepEqual(distinct(["a.txt", "a.txt", "x/A.TXT", "x/a.txt", "a (2).txt", "b"]), ["a.txt", "a (3).txt", "x/A.TXT", "x/a (2).txt", "a (2).txt", "b"]);
  const server = await startServer(t);
  const page = await startMember(await sharedBrowser(t), server.url);
  const found = await page.evaluate(async () => {
    const module = "/folder.js";
    const { saveInto } = await import(module);
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("saved", { create: true });
    await root.getFileHandle("old.txt", { create: true });
    // As texts are, whose names get an ending; and two that come to "old (2).txt".
    const texts = ["one", "two", "three", "four"];
    const items = [...texts.map((text) => ({ path: "a.txt", file: async () => new Blob([text]) })), ...texts.map((text) => ({ path: "old.txt", file: async () => new Blob([text]) }))];
    await saveInto(root, items);
    const saved = {};
    for await (const [name, handle] of root.entries()) saved[name] = await (await handle.getFile()).text();
    return saved;
  });
  assert.deepEqual(Object.keys(found).sort(), ["a (2).txt", "a (3).txt", "a (4).txt", "a.txt", "old (2).txt", "old (3).txt", "old (4).txt", "old (5).txt", "old.txt"]);
  assert.deepEqual(Object.values(found).sort(), ["", ..."four four one one three three two two".split(" ")]);
});

test("what cannot be read in a folder is named", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const ada = await Person.arrive(t, { name: "Ada" });
  await ada.open(`${server.url}/`);
  await ada.link();
  await ada.page.evaluate(() => {
    const refused = new DOMException("no", "NotReadableError");
    const folder = (/** @type {string} */ name, /** @type {any[]} */ children) => {
      const batches = [children, []];
      return { isDirectory: true, name, createReader: () => ({ readEntries: (/** @type {Function} */ done) => done(batches.shift()) }) };
    };
    const file = (/** @type {string} */ name) => ({ isFile: true, name, file: (/** @type {Function} */ done) => done(new File(["x"], name)) });
    const bad = { isFile: true, name: "bad.txt", file: (/** @type {Function} */ _done, /** @type {Function} */ fail) => fail(refused) };
    const closed = { isDirectory: true, name: "closed", createReader: () => ({ readEntries: (/** @type {Function} */ _done, /** @type {Function} */ fail) => fail(refused) }) };
    const items = [{ kind: "file", webkitGetAsEntry: () => folder("Mine", [file("good.txt"), bad, closed]), getAsFile: () => null }];
    document.dispatchEvent(Object.assign(new Event("drop"), { dataTransfer: { types: ["Files"], items } }));
  });
  await ada.sees(/2 files or folders could not be read and will not be sent: Mine\/bad\.txt, and 1 more\./);
  await ada.sees(/1 file, 1 B/);
  assert.deepEqual(ada.errors, []);
});
