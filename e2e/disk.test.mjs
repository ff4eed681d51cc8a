// Recipients whose disk is slow, or full, or who have not answered: they hold up nobody but themselves, and get everything in the end.

import assert from "node:assert/strict";
import test from "node:test";
import { CHUNK, startBrowser, startServer, until } from "./harness.mjs";
import { loadMember, prepare, startMember } from "./member.mjs";
import { sharedBrowser } from "./shared.mjs";

const MiB = 1 << 20;
/** What may wait for a recipient's disk: transfer.CreditBudget. */
const CREDIT = 16 * MiB;

/** Makes a room of these pages. @param {import("puppeteer-core").Page[]} pages the owner's first */
async function together(...pages) {
  const [owner, ...members] = pages;
  const link = await owner.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "owner" }));
    return me.room.link;
  });
  await Promise.all(members.map((page, i) => page.evaluate((to, name) => me.join(to, { name }), link, `member ${i + 1}`)));
  await owner.evaluate((n) => me.meets(n, 120_000), members.length);
  await Promise.all(members.map((page) => page.evaluate(() => me.meets(me.room.peers.length, 120_000))));
}

/** @param {import("puppeteer-core").Page} page */
const id = (page) => page.evaluate(() => me.room.self.id);

/** How the newest transfer stands for a recipient, as the sender sees it. @param {import("puppeteer-core").Page} sender @param {string} peer */
const delivery = (sender, peer) =>
  sender.evaluate((to) => {
    const { state, code, bytes } = me.transfer.recipients.find((d) => d.peer === to);
    return { state, code: code ?? "", bytes };
  }, peer);

/** What a member was sent. @param {import("puppeteer-core").Page} sender @param {string} peer */
const sent = (sender, peer) =>
  sender.evaluate(async (to) => {
    const { chunksSent, chunksResent, payloadSent } = await me.room.peers.find((p) => p.id === to).stats();
    return { chunksSent, chunksResent, payloadSent };
  }, peer);

/** Accepts the next offer; what comes of it is me.received, and its hash me.hash. @param {import("puppeteer-core").Page} page */
const accept = (page) =>
  page.evaluate(async () => {
    const offer = await me.offer();
    me.hash = undefined;
    me.incoming = offer.accept();
    me.incoming.finished.then(async ({ files }) => (me.hash = await me.sha256(await files[0].file())));
  });

/** @param {import("puppeteer-core").Page} page */
const hash = (page) => until("everything", () => page.evaluate(() => me.hash), 120_000);

test("a disk that takes nothing for a while, and a person who does not answer", { timeout: 240_000 }, async (t) => {
  const size = 40 * MiB;
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [owner, fast, undecided] = [await startMember(browser, server.url), await startMember(browser, server.url), await startMember(browser, server.url)];
  const slow = await startMember(browser, server.url, {
    // What the page has its storage worker write waits until release().
    before: () => {
      const Real = Worker;
      /** @type {(() => void)[]} */
      let held = [];
      let open = false;
      const disk = {
        get held() {
          return held.length;
        },
        release() {
          open = true;
          for (const write of held) write();
          held = [];
        },
      };
      Object.assign(globalThis, {
        disk,
        Worker: class extends Real {
          /** @param {any} message @param {any} transfer */
          postMessage(message, transfer) {
            if (message.kind === "write" && !open) held.push(() => super.postMessage(message, transfer));
            else super.postMessage(message, transfer);
          }
        },
      });
    },
  });
  await together(owner, fast, slow, undecided);
  const want = await owner.evaluate(async (n) => {
    const file = me.blob(n, 5);
    me.transfer = me.room.send([{ path: "a.bin", file }]);
    return me.sha256(file);
  }, size);
  await accept(slow);
  await until("writes that wait", () => slow.evaluate(() => /** @type {any} */ (globalThis).disk.held));
  await accept(fast);
  assert.equal(await hash(fast), want);
  await until("done for the fast one", async () => (await delivery(owner, await id(fast))).state === "done");
  assert.deepEqual(await sent(owner, await id(fast)), { chunksSent: size / CHUNK, chunksResent: 0, payloadSent: size }, "the fast one was sent what it would be alone");
  const behind = await sent(owner, await id(slow));
  assert.ok(behind.payloadSent > 0 && behind.payloadSent <= CREDIT, `${behind.payloadSent} bytes for a disk that takes nothing`);
  assert.deepEqual(await delivery(owner, await id(slow)), { state: "transferring", code: "", bytes: 0 });
  assert.deepEqual(await delivery(owner, await id(undecided)), { state: "offered", code: "", bytes: 0 });
  assert.equal((await sent(owner, await id(undecided))).payloadSent, 0);

  await slow.evaluate(() => /** @type {any} */ (globalThis).disk.release());
  assert.equal(await hash(slow), want);
  assert.deepEqual(await sent(owner, await id(slow)), { chunksSent: size / CHUNK, chunksResent: 0, payloadSent: size });
  await accept(undecided);
  assert.equal(await hash(undecided), want);
});

test("a disk that is full: the delivery waits, says so at both ends, and goes on when there is room", { timeout: 240_000 }, async (t) => {
  const size = 12 * MiB;
  const server = await startServer(t);
  const owner = await startMember(await sharedBrowser(t), server.url);
  const { browser } = await startBrowser(t);
  const [member] = await browser.pages(); // of the profile that is on disk
  await member.goto(`${server.url}/healthz`);
  await member.evaluate(prepare);
  await together(owner, member);
  const peer = await id(member);
  const cdp = await member.createCDPSession();
  const quota = (/** @type {number | undefined} */ quotaSize) => cdp.send("Storage.overrideQuotaForOrigin", { origin: server.url, quotaSize });
  const send = (/** @type {number} */ seed) =>
    owner.evaluate(
      async (n, x) => {
        const file = me.blob(n, x);
        me.transfer = me.room.send([{ path: "a.bin", file }]);
        return me.sha256(file);
      },
      size,
      seed,
    );
  const full = async () => {
    await until("paused at the sender", async () => (await delivery(owner, peer)).code === "disk-full");
    assert.deepEqual(await delivery(owner, peer), { state: "paused", code: "disk-full", bytes: 0 });
    await member.evaluate(() => me.until(() => me.incoming.stats().recipients[0].code === "disk-full"));
    assert.equal(await member.evaluate(() => me.incoming.state), "paused");
  };
  const twice = async () => {
    assert.equal((await sent(owner, peer)).chunksResent, 0);
    assert.equal(await member.evaluate(() => me.incoming.stats().recipients[0].repeated), 0);
  };

  await quota(20 * MiB);
  const first = await send(1);
  await accept(member);
  assert.equal(await hash(member), first);

  await t.test("what was received before is deleted", async () => {
    await member.evaluate(() => (me.first = me.incoming));
    const second = await send(2);
    await accept(member);
    await full();
    await member.evaluate(() => me.first.discard());
    assert.equal(await hash(member), second);
    await twice();
  });

  await t.test("by itself", async () => {
    const third = await send(3);
    await accept(member);
    await full();
    await quota(undefined);
    assert.equal(await hash(member), third);
    await twice();
  });

  await t.test("on resume", async () => {
    await quota(20 * MiB);
    const fourth = await send(4);
    await accept(member);
    await full();
    await member.evaluate(() => me.incoming.resume());
    await full();
    await quota(undefined);
    await member.evaluate(() => me.incoming.resume());
    assert.equal(await hash(member), fourth);
    await twice();
  });
});

test("what a receipt is for has been flushed to the disk, and what tells of it beside it", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const owner = await startMember(browser, server.url);
  const member = await (await browser.createBrowserContext()).newPage();
  member.setDefaultTimeout(120_000);
  await member.setBypassCSP(true); // for a worker of our own
  // Tells what the storage worker writes and flushes, in order.
  await member.evaluateOnNewDocument(() => {
    const spy = () => {
      const told = new BroadcastChannel("disk");
      const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
      FileSystemFileHandle.prototype.createSyncAccessHandle = async function () {
        const handle = await createSyncAccessHandle.call(this);
        for (const does of /** @type {const} */ (["write", "flush"])) {
          const real = handle[does].bind(handle);
          handle[does] = (/** @type {any[]} */ ...args) => (told.postMessage(`${does} ${this.name}`), real(...args));
        }
        return handle;
      };
    };
    const Real = Worker;
    Object.assign(globalThis, {
      disk: [],
      Worker: class extends Real {
        constructor(/** @type {string | URL} */ url, /** @type {WorkerOptions} */ options) {
          super(URL.createObjectURL(new Blob([`(${spy})(); importScripts(${JSON.stringify(new URL(url, location.href).href)});`])), options);
        }
      },
    });
    new BroadcastChannel("disk").onmessage = ({ data }) => /** @type {any} */ (globalThis).disk.push(data);
  });
  await loadMember(member, server.url);
  await together(owner, member);
  await owner.evaluate(() => void (me.transfer = me.room.send([{ path: "a.bin", file: me.blob(1_000_000, 1) }])));
  await accept(member);
  await hash(member);
  await member.evaluate(() => me.incoming.finished);
  assert.equal(await member.evaluate(() => me.tallow.features.storage), "opfs");
  /** @type {string[]} */
  const disk = await until("the last note", () => member.evaluate(() => /** @type {any} */ (globalThis).disk.at(-1) === "write journal" && /** @type {any} */ (globalThis).disk));
  const data = disk.findLast((event) => event.startsWith("flush") && event !== "flush journal");
  assert.ok(data, disk.join(", "));
  // The last note says that it is done; all before it were durable then, after the data.
  assert.deepEqual(disk.slice(disk.lastIndexOf(data)), [data, "flush journal", "write journal"], disk.join(", "));
});
