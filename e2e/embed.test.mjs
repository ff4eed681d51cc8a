// What a page that embeds Tallow relies on: its own globals stay its own, failures to load have codes, and a reload finds its room again.

import assert from "node:assert/strict";
import test from "node:test";
import { startServer, until } from "./harness.mjs";
import { loadMember, prepare, startMember } from "./member.mjs";
import { sharedBrowser } from "./shared.mjs";

test("load leaves the page as it was", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const page = await (await browser.createBrowserContext()).newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`${server.url}/healthz`);
  const seen = await page.evaluate(async () => {
    // Names that Go's own script would take.
    const Go = class {};
    const fs = { mine: true };
    Object.assign(globalThis, { Go, fs });
    const before = new Set(Object.getOwnPropertyNames(globalThis));
    const { load } = await import("/tallow.js");
    const [one, two] = await Promise.all([load(), load()]);
    const added = Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name));
    const kept = globalThis.Go === Go && globalThis.fs === fs;
    await one.close();
    const room = await two.createRoom({ name: "still there" });
    await two.close();
    return { added, kept, features: { ...one.features, memoryLimit: one.features.memoryLimit === Infinity }, state: room.state };
  });
  assert.deepEqual(seen, { added: [], kept: true, features: { crypto: "webcrypto", storage: "opfs", memoryLimit: true }, state: "closed" });
  assert.deepEqual(errors, []);
});

test("what cannot be loaded has a code", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const page = await (await browser.createBrowserContext()).newPage();
  await page.goto(`${server.url}/healthz`);
  const codes = await page.evaluate(async () => {
    const { load } = await import("/tallow.js");
    const code = (options) => load(options).then(() => "loaded", (error) => error.code ?? String(error));
    const codes = [await code({ wasmURL: "/nothing.wasm" }), await code({ wasmURL: "/tallow.js" }), await code({ wasmURL: "data:," })];
    const { RTCPeerConnection } = globalThis;
    delete globalThis.RTCPeerConnection;
    codes.push(await code());
    Object.assign(globalThis, { RTCPeerConnection });
    codes.push(await code());
    return codes;
  });
  assert.deepEqual(codes, ["server-unreachable", "unsupported-browser", "invalid-argument", "unsupported-browser", "loaded"]);
});

test("a reload comes back as the same member, the owner as the owner", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const owner = await startMember(browser, server.url);
  const guest = await startMember(browser, server.url);
  const link = await owner.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "owner" }));
    return me.room.link;
  });
  const enter = (page, name) =>
    page.evaluate(async (to, as) => {
      await me.join(to, { name: as });
      return { ...me.room.self, link: me.room.link };
    }, link, name);
  const { id: guestID } = await enter(guest, "guest");
  const open = (page) => page.evaluate(() => me.meets(1));
  await Promise.all([open(owner), open(guest)]);

  // Whoever is in a room does not count as remembered; another tab of the same browser is somebody else.
  assert.deepEqual(await owner.evaluate(() => me.tallow.remembered()), []);
  const second = await owner.browserContext().newPage();
  await second.goto(`${server.url}/healthz`);
  const other = await second.evaluate(async (to) => {
    const { load } = await import("/tallow.js");
    const tallow = await load();
    const room = await tallow.joinRoom(to, { name: "second tab" });
    const { owner, id } = room.self;
    await tallow.close();
    return { owner, id, remembered: (await tallow.remembered()).length };
  }, link);
  assert.equal(other.owner, false);
  assert.equal(other.remembered, 0, "what was left is forgotten");
  await second.close();
  await open(owner);

  for (const [page, name, isOwner] of [[owner, "owner", true], [guest, "guest", false]]) {
    const before = await page.evaluate(() => me.room.self.id);
    await reload(page);
    const remembered = await page.evaluate(() => me.until(async () => (await me.tallow.remembered())[0]));
    assert.equal(remembered.link, link);
    assert.equal(remembered.owner, isOwner);
    assert.equal(remembered.name, name);
    const self = await enter(page, name);
    assert.deepEqual(self, { id: before, name, owner: isOwner, link });
    await Promise.all([open(owner), open(guest)]);
  }
  // The guest never had to join again while the owner reloaded.
  assert.equal(await guest.evaluate(() => me.room.self.id), guestID);

  await owner.evaluate(() => me.room.leave());
  assert.deepEqual(await owner.evaluate(() => me.tallow.remembered()), [], "leaving forgets");
  await reload(guest);
  await guest.evaluate(() => me.until(async () => (await me.tallow.remembered()).length === 1));
  assert.deepEqual(await guest.evaluate(async (to) => {
    await me.tallow.forget(to);
    return me.tallow.remembered();
  }, link), []);
});

test("who we are is kept while it is used, and 7 days longer", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const context = await browser.createBrowserContext();
  /** A page whose clock is ahead, and whose hours are short. @param {number} days */
  const visit = async (days) => {
    const page = await context.newPage();
    await page.evaluateOnNewDocument((given) => {
      const { now } = Date;
      globalThis.ahead = given;
      Date.now = () => now() + globalThis.ahead * 24 * 3600 * 1000;
      const every = globalThis.setInterval;
      globalThis.setInterval = /** @type {any} */ ((/** @type {() => void} */ fn, /** @type {number} */ ms) => every(fn, ms === 3600 * 1000 ? 50 : ms));
    }, days);
    await loadMember(page, server.url);
    return page;
  };
  const remembered = (/** @type {import("puppeteer-core").Page} */ page) => page.evaluate(async () => (await me.tallow.remembered()).map((r) => r.link));
  const used = (/** @type {import("puppeteer-core").Page} */ page) =>
    page.evaluate(
      () =>
        new Promise((resolve) => {
          indexedDB.open("tallow").onsuccess = ({ target }) => {
            const database = /** @type {any} */ (target).result;
            database.transaction("identities").objectStore("identities").getAll().onsuccess = (/** @type {any} */ e) => {
              database.close();
              resolve((e.target.result[0]?.used - Date.now()) / (24 * 3600 * 1000));
            };
          };
        }),
    );

  const owner = await visit(0);
  const link = await owner.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  let other = await visit(8);
  assert.deepEqual(await remembered(other), [], "another tab has it");
  await owner.close();
  await other.close();
  other = await visit(0);
  assert.deepEqual(await remembered(other), [link], "a visit deletes nothing that a tab has");

  // Entering again counts from the start, and so does each hour in the room.
  await other.close();
  other = await visit(5);
  await other.evaluate(async (to) => me.join(to), link);
  await until("its use is noted", async () => Math.abs(/** @type {number} */ (await used(other))) < 0.1);
  await other.evaluate(() => void (globalThis.ahead = 10));
  await until("its use is noted again", async () => Math.abs(/** @type {number} */ (await used(other))) < 0.1);
  await other.close();
  other = await visit(16.9);
  assert.deepEqual(await remembered(other), [link]);
  await other.close();
  assert.deepEqual(await remembered(await visit(17.1)), []);
});

test("an owner's reload keeps who may come in", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [owner, one, two, three] = await Promise.all([1, 2, 3, 4].map(() => startMember(browser, server.url)));
  const link = await owner.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "owner", admission: "approval", maxRecipients: 2 }));
    await me.room.lock();
    return me.room.link;
  });
  /** What joining ends with. @param {import("puppeteer-core").Page} page */
  const ask = (page) =>
    page.evaluate((to) => me.code(me.tallow.joinRoom(to, { name: "guest", remember: false, signal: AbortSignal.timeout(90_000) })), link);
  /** Lets in who asks. */
  const approve = () =>
    owner.evaluate(async () => {
      const { id } = await me.until(() => me.events.find((e) => e.type === "joinrequest"));
      me.events = [];
      await me.room.approve(id);
    });
  /** @param {any} [options] */
  const comeBack = async (options = {}) => {
    await reload(owner);
    return owner.evaluate(
      async (to, given) => {
        const room = await me.tallow.joinRoom(to, { name: "owner", ...given });
        me.watch(room);
        return { owner: room.self.owner, locked: room.locked };
      },
      link,
      options,
    );
  };

  assert.equal(await ask(one), "room-locked");
  assert.deepEqual(await comeBack(), { owner: true, locked: true });
  assert.equal(await ask(one), "room-locked", "it is still locked");
  await owner.evaluate(() => me.room.lock(false));
  for (const page of [one, two]) assert.deepEqual(await Promise.all([ask(page), approve()]), ["resolved", undefined], "the owner is still asked");
  assert.equal(await ask(three), "room-full", "the limit is still the same");

  assert.deepEqual(await comeBack({ admission: "auto", maxRecipients: 3 }), { owner: true, locked: false });
  assert.equal(await ask(three), "resolved", "what is given anew counts");
});

test("a page that is back in the network connects at once", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const page = await startMember(browser, server.url, {
    before: () => {
      const sockets = { opened: 0, closed: 0, openedAt: 0, closedAt: 0 };
      Object.assign(globalThis, { sockets });
      globalThis.WebSocket = class extends WebSocket {
        /** @param {[string, string[]]} args */
        constructor(...args) {
          super(...args);
          sockets.opened++;
          sockets.openedAt = performance.now();
          this.addEventListener("close", () => {
            sockets.closed++;
            sockets.closedAt = performance.now();
          });
        }
      };
    },
  });
  await page.evaluate(async () => me.watch(await me.tallow.createRoom()));
  await server.stop();
  await page.evaluate(() => me.until(() => me.room.state === "disconnected"));
  for (const [target, type] of [["window", "online"], ["window", "pageshow"], ["document", "visibilitychange"]]) {
    const pauses = await page.evaluate(
      async (on, name) => {
        // By itself it pauses half a second at least after an attempt that failed. A busy machine may need several tries to be quicker.
        const pauses = [];
        for (const end = performance.now() + 60_000; performance.now() < end && !(pauses.at(-1) < 500); ) {
          await me.until(() => sockets.opened === sockets.closed);
          const { opened, closedAt } = sockets;
          (on === "window" ? window : document).dispatchEvent(new Event(name));
          await me.until(() => sockets.opened > opened);
          pauses.push(sockets.openedAt - closedAt);
        }
        return pauses;
      },
      target,
      type,
    );
    assert.ok(pauses.at(-1) < 500, `${type}: the next attempt came after ${pauses} ms`);
  }
  await startServer(t, { addr: server.addr });
  await page.evaluate(() => me.until(() => me.room.state === "open"));
});

/** Loads the page anew, with the API. @param {import("puppeteer-core").Page} page */
async function reload(page) {
  await page.reload();
  await page.evaluate(prepare);
}
