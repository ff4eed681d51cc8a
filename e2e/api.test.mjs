// The JS API alone, as tallow.d.ts describes it.

import assert from "node:assert/strict";
import fs from "node:fs";
import test from "node:test";
import { CHUNK, startServer, tempDir, writeFile } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { sharedBrowser } from "./shared.mjs";

// Functions given to evaluate run in the page, where member.mjs has left "me".

/** @param {import("puppeteer-core").Page} page @param {any} [options] */
const create = (page, options = {}) =>
  page.evaluate(async (given) => {
    me.watch(await me.tallow.createRoom(given));
    return me.room.link;
  }, options);

/** @param {import("puppeteer-core").Page} page @param {string} link @param {any} [options] */
const join = (page, link, options = {}) =>
  page.evaluate(
    async (to, given) => {
      await me.join(to, given);
    },
    link,
    options,
  );

/** A room with an owner and that many members, all connected. @param {import("node:test").TestContext} t @param {number} n */
async function roomOf(t, n) {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const pages = [];
  for (let i = 0; i <= n; i++) pages.push(await startMember(browser, server.url));
  const [owner, ...members] = pages;
  const link = await create(owner, { name: "owner" });
  await Promise.all(members.map((page, i) => join(page, link, { name: `member ${i + 1}` })));
  await Promise.all(pages.map((page) => page.evaluate((count) => me.meets(count, 60_000), n)));
  return { server, browser, owner, members, link };
}

test("ten recipients get several files, verified; an eleventh is refused", { timeout: 240_000 }, async (t) => {
  const { server, browser, owner, members, link } = await roomOf(t, 10);

  const eleventh = await startMember(browser, server.url);
  const refused = await eleventh.evaluate((to) => {
    return me.code(me.tallow.joinRoom(to));
  }, link);
  assert.equal(refused, "room-full");

  const sent = owner.evaluate(
    async (chunk) => {
      const blobs = [0, 1, chunk - 1, chunk, chunk + 1, 5 * chunk + 7].map((size, i) => me.blob(size, i + 1));
      const transfer = me.room.send([...blobs.map((file, i) => ({ path: `folder/file ${i}.bin`, file })), "a text"]);
      const progress = [];
      transfer.addEventListener("progress", (e) => progress.push(e.detail));
      const result = await transfer.finished;
      const last = progress.at(-1);
      return {
        hashes: await Promise.all(blobs.map(me.sha256)),
        total: result.totalRecipients,
        successful: result.successfulRecipients.map((r) => r.name).sort(),
        failed: result.failedRecipients.length,
        files: result.files.map((f) => [f.path, f.size, f.root.length]),
        ledger: result.ledger.map((e) => [e.state, e.inMemory, e.files.every((f) => f.outcome === "verified"), e.signature.length > 0]),
        state: transfer.state,
        last: { state: last.state, percent: last.percent, recipients: last.recipients.length },
        monotonic: progress.every((p, i) => i === 0 || p.bytes >= progress[i - 1].bytes),
      };
    },
    CHUNK,
  );
  const received = Promise.all(
    members.map((page) =>
      page.evaluate(async () => {
        const offer = await me.offer();
        const offered = { from: offer.from.name, total: offer.totalSize, files: offer.files.length };
        const transfer = offer.accept();
        const { files, failed } = await transfer.finished;
        const out = [];
        for (const file of files)
          out.push({ path: file.path, kind: file.kind, size: file.size, text: file.kind === "text" ? await file.text() : "", hash: await me.sha256(await file.file()) });
        return { offered, files: out, failed: failed.length, state: transfer.state, open: me.room.offers.length };
      }),
    ),
  );
  const result = await sent;
  assert.equal(result.total, 10);
  assert.deepEqual(result.successful, members.map((_, i) => `member ${i + 1}`).sort());
  assert.equal(result.failed, 0);
  assert.ok(result.files.slice(0, 6).every(([, , root]) => root === 64), JSON.stringify(result.files));
  assert.deepEqual(result.ledger, members.map(() => ["done", false, true, true]));
  assert.equal(result.state, "done");
  assert.deepEqual(result.last, { state: "done", percent: 100, recipients: 10 });
  assert.ok(result.monotonic, "progress never goes back");
  for (const member of await received) {
    assert.deepEqual(member.offered, { from: "owner", total: 8 * CHUNK + 8 + 6, files: 7 });
    assert.equal(member.failed, 0);
    assert.equal(member.state, "done");
    assert.equal(member.open, 0);
    assert.deepEqual(
      member.files.slice(0, 6).map(({ path, hash }) => [path, hash]),
      result.hashes.map((hash, i) => [`folder/file ${i}.bin`, hash]),
    );
    assert.equal(member.files[6].kind, "text");
    assert.equal(member.files[6].text, "a text");
  }
});

test("decline, cancel, signal, arguments, events, close", { timeout: 240_000 }, async (t) => {
  const { owner, members, link } = await roomOf(t, 3);
  const [one, two, three] = members;

  await t.test("events tell who came, in order, and in a later task", async () => {
    const events = await owner.evaluate(() => me.events.filter((e) => e.type.startsWith("peer")));
    for (let i = 1; i <= 3; i++) {
      const own = events.filter((e) => e.name === `member ${i}`);
      assert.equal(own[0].type, "peerjoin");
      assert.equal(own.filter((e) => e.type === "peerjoin").length, 1);
      assert.ok(own.some((e) => e.state === "open"));
    }
    const words = await Promise.all([owner, one].map((page) => page.evaluate(() => me.room.peers.map((p) => [p.name, p.safetyWords]))));
    const atOwner = words[0].find(([name]) => name === "member 1")[1];
    assert.equal(atOwner.length, 4);
    assert.deepEqual(words[1].find(([name]) => name === "owner")[1], atOwner);
  });

  await t.test("a decline is a failure with a reason, the others succeed", async () => {
    const sent = owner.evaluate(async () => {
      const result = await me.room.send(new File([me.blob(1000, 1)], "a.bin")).finished;
      const outcome = (r) => [r.name, r.code, r.reason];
      return { ok: result.successfulRecipients.map(outcome).sort(), bad: result.failedRecipients.map(outcome) };
    });
    await Promise.all([
      one.evaluate(async () => (await me.offer()).decline("not now")),
      two.evaluate(async () => void (await (await me.offer()).accept().finished)),
      three.evaluate(async () => void (await (await me.offer()).accept().finished)),
    ]);
    const { ok, bad } = await sent;
    assert.deepEqual(ok.map(([name]) => name), ["member 2", "member 3"]);
    assert.deepEqual(bad, [["member 1", "declined", "not now"]]);
  });

  await t.test("cancel for one, then for all; an offer that is open is withdrawn", async () => {
    const outcome = owner.evaluate(async () => {
      const transfer = me.room.send(new File([me.blob(1 << 20, 2)], "b.bin"));
      const [first] = transfer.recipients;
      await transfer.cancel(first.peer);
      await me.until(() => transfer.recipients[0].state === "cancelled");
      const others = transfer.recipients.slice(1).map((r) => r.state);
      await transfer.cancel();
      const result = await transfer.finished;
      await transfer.cancel();
      return { others, codes: result.failedRecipients.map((r) => r.code), state: transfer.state };
    });
    const { others, codes, state } = await outcome;
    assert.ok(others.every((s) => s !== "cancelled"), String(others));
    assert.deepEqual(codes, ["cancelled", "cancelled", "cancelled"]);
    assert.equal(state, "cancelled");
    for (const page of members) await page.evaluate(() => me.until(() => me.room.offers.length === 0));
  });

  await t.test("an abort signal cancels on either side", async () => {
    const sent = owner.evaluate(async () => {
      const to = me.room.peers.filter((p) => p.name !== "member 3");
      const transfer = me.room.send(new File([me.blob(64 << 20, 3)], "c.bin"), { to });
      const result = await transfer.finished;
      return result.failedRecipients.map((r) => [r.name, r.code]).sort();
    });
    const [code] = await Promise.all([
      one.evaluate(async () => {
        const controller = new AbortController();
        const transfer = (await me.offer()).accept({ signal: controller.signal });
        transfer.addEventListener("progress", () => controller.abort(), { once: true });
        return transfer.finished.then(
          () => "resolved",
          (e) => e.code ?? e.name,
        );
      }),
      two.evaluate(async () => (await me.offer()).decline()),
    ]);
    assert.ok(["cancelled", "AbortError"].includes(code), code);
    assert.deepEqual(await sent, [["member 1", "cancelled-by-peer"], ["member 2", "declined"]]);

    const aborted = await owner.evaluate(async () => {
      const controller = new AbortController();
      const transfer = me.room.send("never", { signal: controller.signal });
      controller.abort();
      const result = await transfer.finished;
      return result.failedRecipients.map((r) => r.code);
    });
    assert.deepEqual(aborted, ["cancelled", "cancelled", "cancelled"]);
    for (const page of members) await page.evaluate(() => me.until(() => me.room.offers.length === 0));
  });

  await t.test("wrong arguments throw at once, with a code", async () => {
    const codes = await owner.evaluate(async () => {
      const thrown = (f) => {
        try {
          f();
          return "nothing";
        } catch (e) {
          return e.code ?? String(e);
        }
      };
      return [
        thrown(() => me.room.send([])),
        thrown(() => me.room.send(42)),
        thrown(() => me.room.send("x", { to: ["ff".repeat(16)] })),
        thrown(() => me.room.send("x", { to: [] })),
        await me.code(me.tallow.joinRoom("no link")),
        await me.code(me.tallow.createRoom({ maxRecipients: 0 })),
        await me.code(me.tallow.createRoom({ reconnectAttempts: 21 })),
      ];
    });
    assert.deepEqual(codes, ["invalid-argument", "invalid-argument", "unknown-peer", "no-recipients", "bad-link", "invalid-argument", "invalid-argument"]);
  });

  await t.test("only some of the files", async () => {
    const sent = owner.evaluate(async () => {
      const to = me.room.peers.filter((p) => p.name === "member 1");
      const result = await me.room.send([new File([me.blob(10, 1)], "x"), new File([me.blob(20, 2)], "y")], { to }).finished;
      return result.ledger[0].files.map((f) => [f.path, f.outcome]);
    });
    const got = await one.evaluate(async () => {
      const { files } = await (await me.offer()).accept({ files: [1] }).finished;
      return files.map((f) => f.path);
    });
    assert.deepEqual(got, ["y"]);
    assert.deepEqual(await sent, [["x", "not-wanted"], ["y", "verified"]]);
  });

  await t.test("removed, locked, left, closed", async () => {
    await owner.evaluate(async () => {
      await me.room.remove(me.room.peers.find((p) => p.name === "member 3").id);
      await me.room.lock();
    });
    const closed = await three.evaluate(() => {
      return me.until(() => me.events.find((e) => e.type === "statechange" && e.state === "closed"));
    });
    assert.equal(closed.code, "removed");
    const retry = await three.evaluate((to) => {
      return me.code(me.tallow.joinRoom(to, { remember: false }));
    }, link);
    assert.equal(retry, "room-locked");

    const after = await two.evaluate(async () => {
      await me.room.leave();
      await me.room.leave();
      let code;
      try {
        me.room.send("x");
      } catch (e) {
        code = e.code;
      }
      await me.tallow.close();
      await me.tallow.close();
      return { state: me.room.state, code, again: await me.code(me.tallow.createRoom()) };
    });
    assert.deepEqual(after, { state: "closed", code: "room-closed", again: "room-closed" });
    await owner.evaluate(() => me.until(() => me.room.peers.length === 1));
  });
});

test("whoever was not let in comes again as the same newcomer", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t, { args: ["-max-members", "2"] });
  const browser = await sharedBrowser(t);
  const [owner, guest] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  const link = await create(owner);
  await owner.evaluate(() => me.room.lock());
  // Its connection lingers, as on a network that has gone: the server keeps the place for it.
  await guest.evaluate(() => {
    WebSocket.prototype.close = function () {
      this.dispatchEvent(new CloseEvent("close"));
    };
  });
  assert.equal(await guest.evaluate((to) => me.code(me.tallow.joinRoom(to)), link), "room-locked");
  await owner.evaluate(() => me.room.lock(false));
  await join(guest, link);
  await guest.evaluate(() => me.meets(1, 60_000));
});

test("a file that fails costs only itself, and is told", { timeout: 240_000 }, async (t) => {
  const { owner, members } = await roomOf(t, 2);
  const folder = tempDir(t);
  const gone = await writeFile(folder, "gone.bin", CHUNK + 1);
  const stays = await writeFile(folder, "stays.bin", 2 * CHUNK);
  const input = await owner.evaluateHandle(() => document.body.appendChild(Object.assign(document.createElement("input"), { type: "file", multiple: true })));
  const chooser = /** @type {import("puppeteer-core").ElementHandle<HTMLInputElement>} */ (input.asElement());
  await chooser.uploadFile(gone.file);
  fs.rmSync(gone.file);
  // Nobody has looked at it, and now it seems to be empty.
  assert.match(await owner.evaluate((chosen) => me.code(me.room.send(chosen.files).finished), chooser), /^file-(changed|unreadable)$/);

  await writeFile(folder, "gone.bin", CHUNK + 1);
  await chooser.uploadFile(gone.file, stays.file);
  assert.deepEqual(await chooser.evaluate((chosen) => Array.from(chosen.files ?? [], (file) => file.size)), [CHUNK + 1, 2 * CHUNK]);
  fs.rmSync(gone.file);
  const sent = owner.evaluate(async (chosen) => {
    const { successfulRecipients, failedRecipients, ledger } = await me.room.send(chosen.files).finished;
    return {
      successful: successfulRecipients.length,
      failed: failedRecipients.map((r) => r.name).sort(),
      ledger: ledger.find((entry) => entry.name === "member 1").files.map((f) => f.outcome),
    };
  }, chooser);
  const [both, onlyGone] = await Promise.all(
    members.map((page, i) =>
      page.evaluate(async (wanted) => {
        const transfer = (await me.offer()).accept({ files: wanted });
        try {
          const { files, failed } = await transfer.finished;
          return { state: transfer.state, files: await Promise.all(files.map(async (f) => [f.path, await me.sha256(await f.file())])), failed };
        } catch (error) {
          return { state: transfer.state, code: error.code };
        }
      }, [[0, 1], [0]][i]),
    ),
  );
  assert.deepEqual(both.files, [["stays.bin", stays.sha256]]);
  assert.deepEqual(both.failed.map((f) => [f.name, f.path, f.complete]), [["gone.bin", "gone.bin", false]]);
  assert.match(both.failed[0].code, /^file-(changed|unreadable)$/);
  assert.equal(both.state, "failed", "part of a delivery is no success");
  assert.match(onlyGone.code, /^file-(changed|unreadable)$/, "nothing has arrived: it rejects");
  assert.deepEqual(await sent, {
    successful: 0,
    failed: ["member 1", "member 2"],
    ledger: ["failed", "verified"],
  });
});

test("what is sent to nobody in particular is for whoever is still connecting, too", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [sender, recipient] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  const link = await create(sender);
  const sent = sender.evaluate(
    () =>
      new Promise((resolve, reject) =>
        me.room.addEventListener("peerjoin", ({ detail }) => {
          try {
            me.room.send("a text").finished.then(({ successfulRecipients }) => resolve([detail.state, successfulRecipients.length]), reject);
          } catch (error) {
            reject(error);
          }
        }),
      ),
  );
  await recipient.evaluate(async (to) => me.join(to), link);
  assert.equal(await recipient.evaluate(async () => (await (await me.offer()).accept().finished).files[0].text()), "a text");
  assert.deepEqual(await sent, ["connecting", 1]);
});

test("each save waits its turn, however many they are and whatever the clock says", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const browser = await sharedBrowser(t);
  const [sender, recipient] = [await startMember(browser, server.url), await startMember(browser, server.url)];
  const link = await sender.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  await recipient.evaluate(async (to) => me.join(to), link);
  await sender.evaluate(() => me.meets(1));
  const received = recipient.evaluate(async () => {
    const { files } = await (await me.offer()).accept().finished;
    me.file = files[0];
  });
  await sender.evaluate(() => me.room.send("a text").finished);
  await received;
  const { pauses, began } = await recipient.evaluate(async () => {
    let began = 0;
    HTMLAnchorElement.prototype.click = () => void began++;
    /** @type {number[]} */
    const pauses = []; // what the turns wait, which is not waited for here
    const wait = globalThis.setTimeout;
    globalThis.setTimeout = /** @type {any} */ ((/** @type {() => void} */ fn, /** @type {number} */ ms) => {
      if (!/downloadTurn/.test(new Error().stack ?? "")) return wait(fn, ms);
      pauses.push(ms);
      return wait(fn, 0);
    });
    await me.file.save();
    const { now } = Date;
    Date.now = () => now() - 3_600_000;
    const moment = performance.now();
    performance.now = () => moment; // all of them are called at once
    await Promise.all(Array.from({ length: 600 }, () => me.file.save()));
    return { pauses, began };
  });
  assert.equal(began, 601);
  assert.ok(pauses.length >= 599, `${pauses.length} waited`); // the first may be late enough not to
  assert.ok(pauses[0] <= 120, `the first of them waits ${pauses[0]} ms`);
  for (const [i, pause] of pauses.entries()) assert.ok(Math.abs(pause - pauses[0] - 120 * i) < 1, `turn ${i} is after ${pause} ms`);
});

test("a retry ends, whoever it is for", { timeout: 240_000 }, async (t) => {
  const { owner, members } = await roomOf(t, 2);
  const [leaves, stays] = members;
  const ids = owner.evaluate(async () => {
    const transfer = me.room.send(new File([me.blob(1000, 1)], "a.bin"));
    Object.assign(me, { transfer });
    await transfer.finished;
    return Object.fromEntries(transfer.recipients.map((r) => [r.name, r.peer]));
  });
  await Promise.all(members.map((page) => page.evaluate(async () => (await me.offer()).decline())));
  const { "member 1": left, "member 2": there } = await ids;
  await leaves.evaluate(() => me.room.leave());
  await owner.evaluate(() => me.meets(1));

  const retry = (id) =>
    owner.evaluate(async (to) => {
      const before = me.transfer.finished;
      await me.transfer.retry(to);
      const { finished } = me.transfer;
      const result = await Promise.race([finished, new Promise((resolve) => setTimeout(resolve, 60_000, "never settled"))]);
      if (typeof result === "string") return result;
      return { again: finished !== before, codes: Object.fromEntries(result.ledger.map((entry) => [entry.peer, entry.code ?? entry.state])) };
    }, id);
  assert.deepEqual(await retry(left), { again: true, codes: { [left]: "peer-gone", [there]: "declined" } });
  assert.deepEqual(await retry(left), { again: true, codes: { [left]: "peer-gone", [there]: "declined" } });
  const [result] = await Promise.all([retry(there), stays.evaluate(async () => void (await (await me.offer()).accept().finished))]);
  assert.deepEqual(result, { again: true, codes: { [left]: "peer-gone", [there]: "done" } });
  assert.deepEqual(await retry(there), { again: false, codes: { [left]: "peer-gone", [there]: "done" } }, "nothing to do for one who has it");

  const refused = await owner.evaluate(async (to) => {
    const before = me.transfer.finished;
    await me.room.leave();
    return { code: await me.code(me.transfer.retry(to)), same: me.transfer.finished === before };
  }, left);
  assert.deepEqual(refused, { code: "room-closed", same: true }, "a retry that is refused changes nothing");
});

test("a signal outlasts the end, as long as something may follow it", { timeout: 240_000 }, async (t) => {
  const { owner, members } = await roomOf(t, 1);
  const [member] = members;
  await Promise.all([
    owner.evaluate(async () => {
      me.abort = new AbortController();
      me.transfer = me.room.send(new File([me.blob(1000, 1)], "a.bin"), { signal: me.abort.signal });
      await me.transfer.finished;
    }),
    member.evaluate(async () => (await me.offer()).decline()),
  ]);
  await owner.evaluate(() => me.transfer.retry(me.transfer.recipients[0].peer));
  await member.evaluate(async () => void (await me.offer()));
  const code = await owner.evaluate(async () => {
    me.abort.abort();
    const result = await Promise.race([me.transfer.finished, new Promise((resolve) => setTimeout(resolve, 60_000))]);
    return result?.failedRecipients[0].code;
  });
  assert.equal(code, "cancelled");
});

test("an accept that fails leaves the offer to be answered", { timeout: 240_000 }, async (t) => {
  const { owner, members, browser, server, link } = await roomOf(t, 0);
  // Without a private file system there is memory, of which there is never enough for this.
  const member = await startMember(browser, server.url, { before: () => void delete (/** @type {any} */ (StorageManager.prototype).getDirectory) });
  assert.equal(members.length, 0);
  await join(member, link, { name: "member" });
  await Promise.all([owner, member].map((page) => page.evaluate(() => me.meets(1))));
  await owner.evaluate(() => {
    const part = me.blob(1 << 20, 1);
    me.transfer = me.room.send([{ path: "huge.bin", file: new Blob(Array(600).fill(part)) }, { path: "a.bin", file: me.blob(1000, 1) }]);
  });
  const accept = (/** @type {number[] | undefined} */ files) =>
    member.evaluate(async (wanted) => {
      const offer = await me.offer();
      const code = await me.code(offer.accept({ files: wanted }).finished);
      return { code, open: me.room.offers.map((other) => other === offer) };
    }, files);
  assert.deepEqual(await accept(undefined), { code: "disk-full", open: [true] });
  assert.deepEqual(await accept([0]), { code: "disk-full", open: [true] });
  assert.deepEqual(await accept([1]), { code: "resolved", open: [] });
  const told = await owner.evaluate(async () => {
    const { successfulRecipients, ledger } = await me.transfer.finished;
    const { entries } = await me.transfer.ledger();
    return [successfulRecipients, ledger, entries, me.transfer.recipients, me.transfer.stats().recipients].map((list) => list.map((one) => one.inMemory));
  });
  assert.deepEqual(told, Array(5).fill([true]), "the sender knows that it is in memory only");
});

test("ICE servers are replaced, for the connections that there are and for those to come", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t, { args: ["-turn=false"] });
  const browser = await sharedBrowser(t);
  const configurations = () => {
    const given = { made: [], set: [] };
    const Real = globalThis.RTCPeerConnection;
    globalThis.RTCPeerConnection = class extends Real {
      constructor(configuration) {
        super(configuration);
        given.made.push(configuration?.iceServers?.map((one) => one.username).join());
      }
      setConfiguration(configuration) {
        super.setConfiguration(configuration);
        given.set.push(configuration.iceServers.map((one) => one.username).join());
      }
    };
    Object.assign(globalThis, { given });
  };
  const owner = await startMember(browser, server.url, { before: configurations });
  const iceServers = (/** @type {string} */ username) => [{ urls: "turn:127.0.0.1:9?transport=udp", username, credential: "password" }];
  const link = await create(owner, { iceServers: iceServers("one") });
  await join(await startMember(browser, server.url), link);
  await owner.evaluate(() => me.meets(1, 120_000));
  await owner.evaluate((servers) => me.room.setIceServers(servers), iceServers("two"));
  await owner.evaluate(() => me.until(() => given.set.at(-1) === "two", 120_000));
  await join(await startMember(browser, server.url), link);
  await owner.evaluate(() => me.meets(2, 120_000));
  const { made, set } = await owner.evaluate(() => given);
  assert.deepEqual([made[0], made.at(-1), [...new Set(set)]], ["one", "two", ["two"]], JSON.stringify({ made, set }));

  const codes = await owner.evaluate(async () => {
    const wrong = [];
    const exposed = async () => JSON.stringify(await me.room.exposure());
    const first = await exposed();
    const user = { username: "u", credential: "p" };
    for (const servers of [
      undefined, 42, "turn:x", [{}], [{ urls: [] }], [{ urls: "turn:x", username: 1 }],
      [{ urls: "turn:x" }], [{ urls: ["stun:x", "TURNS:x"], username: "u" }], [{ urls: "turn:x", credential: "p" }],
      [{ urls: "https://x", ...user }], [{ urls: "x", ...user }], [{ urls: "turn:", ...user }], [{ urls: "turn:x:port", ...user }], [{ urls: "turn:x", ...user }, { urls: "" }],
    ]) {
      wrong.push(await me.code(me.room.setIceServers(servers)));
      if (servers !== undefined) wrong.push(await me.code(me.tallow.createRoom({ iceServers: servers })));
    }
    const changed = (await exposed()) !== first;
    const stun = [{ urls: "stun:127.0.0.1:9" }];
    const before = await me.code(me.room.setIceServers(stun));
    const hidden = await me.tallow.createRoom({ relayOnly: true, iceServers: [{ urls: "turn:127.0.0.1:9", username: "u", credential: "p" }] });
    const relay = [await me.code(hidden.setIceServers(stun)), await me.code(hidden.setIceServers([])), (await hidden.exposure()).filter(({ what }) => what === "turn").length];
    const none = await me.code(me.room.setIceServers([]));
    await me.room.leave();
    return { wrong, changed, before, relay, none, after: await me.code(me.room.setIceServers(stun)) };
  });
  assert.deepEqual(codes, { wrong: Array(27).fill("invalid-argument"), changed: false, before: "resolved", relay: ["no-relay", "no-relay", 1], none: "resolved", after: "room-closed" });
});
