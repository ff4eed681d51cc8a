// A disk that is really full: the recipient's profile lies on a file system of the test's own, whose room something else takes under way.
// Needs root.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { startBrowser, startServer, tempDir, until } from "./harness.mjs";
import { loadMember, prepare, startMember } from "./member.mjs";
import { sharedBrowser } from "./shared.mjs";

const MiB = 1 << 20;

/**
 * A file system of that size, in memory.
 * @param {import("node:test").TestContext} t @param {number} size in bytes
 */
function mount(t, size) {
  const dir = path.join(tempDir(t), "disk");
  fs.mkdirSync(dir);
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tallow-e2e", dir]);
  const filler = path.join(dir, "filler");
  return {
    dir,
    /** Takes its room but for so many bytes. @param {number} left */
    fill(left) {
      for (let tries = 1; ; tries++) {
        const { bavail, bsize } = fs.statfsSync(dir);
        try {
          execFileSync("fallocate", ["-l", String(bavail * bsize - left), filler], { stdio: "pipe" });
          return;
        } catch (error) {
          if (tries === 10) throw error; // the browser has taken some meanwhile
        }
      }
    },
    free: () => fs.rmSync(filler),
    /** Before the folder that it is in is removed; a browser may still be ending. */
    unmount: () => execFileSync("umount", ["--lazy", dir]),
  };
}

/** The tab that a browser begins with, as a member. @param {import("puppeteer-core").Browser} browser @param {{ url: string }} server */
async function firstPage(browser, server) {
  const [page] = await browser.pages();
  page.setDefaultTimeout(120_000);
  return loadMember(page, server.url);
}

/**
 * A sender, and a recipient whose browser's profile is on a disk of its own.
 * @param {import("node:test").TestContext} t @param {"chromium" | "firefox"} kind
 */
async function together(t, kind) {
  const server = await startServer(t);
  const sender = await startMember(await sharedBrowser(t), server.url);
  /** @type {ReturnType<typeof mount> | undefined} */
  let disk;
  t.after(() => disk?.unmount());
  disk = mount(t, 512 * MiB);
  const { browser } = await startBrowser(t, { kind, profile: path.join(disk.dir, "profile") });
  const recipient = await firstPage(browser, server);
  const link = await sender.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  await recipient.evaluate((to) => me.join(to), link);
  await sender.evaluate(() => me.meets(1));
  assert.equal(await recipient.evaluate(() => me.tallow.features.storage), "opfs");
  /** How the newest transfer stands for the recipient, as the sender sees it. */
  const state = () => sender.evaluate(() => (({ state, code, bytes }) => ({ state, code, bytes }))(me.transfer.recipients[0]));
  return {
    server,
    disk,
    link,
    sender,
    recipient,
    state,
    /** Offers a file, has it accepted, and returns its hash. @param {number} size @param {number} [limit] in bytes per second */
    async send(size, limit = 0) {
      const want = await sender.evaluate(
        async (n, bandwidthLimitPerRecipient) => {
          const file = me.blob(n, n);
          me.transfer = me.room.send([{ path: "a.bin", file }], { bandwidthLimitPerRecipient });
          return me.sha256(file);
        },
        size,
        limit,
      );
      await recipient.evaluate(async () => void (me.incoming = (await me.offer()).accept()).finished.catch(() => {}));
      return want;
    },
    /** Waits until both know that the disk is full. */
    waits: () =>
      until("both know that the disk is full", async () => {
        const { state: theirs, code } = await state();
        if (theirs !== "paused" || code !== "disk-full") return false;
        return recipient.evaluate(() => me.incoming.state === "paused" && me.incoming.stats().recipients[0].code === "disk-full");
      }),
    /** The hash of what has been received. */
    hash: (page = recipient) => page.evaluate(async () => me.sha256(await (await me.incoming.finished).files[0].file())),
  };
}

for (const kind of /** @type {const} */ (["chromium", "firefox"])) {
  test(`${kind}: something else fills the disk, the page is reloaded, and there is room again`, { timeout: 240_000 }, async (t) => {
    const size = 24 * MiB;
    const { disk, link, server, sender, recipient, state, send, waits, hash } = await together(t, kind);
    const want = await send(size, 1e6); // so slowly that the disk is full before the end
    await until("bytes", async () => (await state()).bytes > 0);
    disk.fill(2 * MiB);
    await waits();
    const { bytes } = await state();
    assert.ok(bytes > 0 && bytes < size, `${bytes} bytes`);

    const rejoin = (/** @type {import("puppeteer-core").Page} */ page) =>
      page.evaluate(async (to) => {
        await me.join(to);
        me.incoming = await me.until(() => me.room.transfers[0]);
      }, link);
    await recipient.reload();
    await recipient.evaluate(prepare);
    await rejoin(recipient);
    assert.equal(await recipient.evaluate(() => me.tallow.features.storage), "opfs", "a full disk is no reason to keep files in memory");
    await waits();
    const after = (await state()).bytes;
    assert.ok(after >= bytes && after < size, `what had come counts: ${after} bytes after ${bytes}`);
    disk.free();
    await sender.evaluate(() => me.transfer.setBandwidthLimit(0));
    let page = recipient;
    if (kind === "firefox") {
      // One that has loaded a page on a full disk opens no file for writing until it is started again, whatever room there is.
      await recipient.browser().close();
      page = await firstPage((await startBrowser(t, { kind, profile: path.join(disk.dir, "profile") })).browser, server);
      await rejoin(page);
    }
    assert.equal(await hash(page), want);
    assert.equal(await page.evaluate(() => me.incoming.stats().recipients[0].repeated), 0);
  });

  test(`${kind}: accepted while the disk is full; what was received before stays`, { timeout: 240_000 }, async (t) => {
    const { disk, recipient, send, waits, hash } = await together(t, kind);
    const first = await send(MiB);
    assert.equal(await hash(), first);
    await recipient.evaluate(() => (me.first = me.incoming));
    disk.fill(kind === "firefox" ? 0 : 256 << 10); // of none at all Chromium may die
    const second = await send(2 * MiB);
    await waits();
    const again = () => recipient.evaluate(async () => me.sha256(await (await me.first.finished).files[0].file()));
    assert.equal(await again(), first);
    disk.free();
    assert.equal(await hash(), second);
    assert.equal(await again(), first);
  });
}

// Firefox lets a site have a tenth of the disk.
test("firefox: more than the site may have", { timeout: 240_000 }, async (t) => {
  const { recipient, sender, send, waits } = await together(t, "firefox");
  await send(64 * MiB);
  await waits();
  await recipient.evaluate(() => me.incoming.cancel());
  await until("told", () => sender.evaluate(() => me.transfer.recipients[0].state === "cancelled"));
});
