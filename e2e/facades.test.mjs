// The facades of the API: the classes that older code knows, over the same rooms.

import assert from "node:assert/strict";
import test from "node:test";
import { startServer } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { sharedBrowser } from "./shared.mjs";

// Functions given to evaluate run in the page, where member.mjs has left "me".

/** A room of so many members. @param {import("node:test").TestContext} t @param {string[]} names @param {object} [options] */
async function roomOf(t, names, options = {}) {
  const server = await startServer(t, { args: ["-turn=false"] });
  const browser = await sharedBrowser(t);
  const pages = [];
  let link = "";
  for (const name of names) {
    const page = await startMember(browser, server.url);
    await page.evaluate(async () => {
      me.api = await import("/tallow.js");
    });
    link = await page.evaluate(
      async (to, given) => {
        if (to) await me.join(to, given);
        else me.watch(await me.tallow.createRoom(given));
        return me.room.link;
      },
      link,
      { name, ...options },
    );
    pages.push(page);
  }
  const others = names.length - 1;
  for (const page of pages) await page.evaluate((n) => me.until(() => me.room.peers.length === n, 120_000), others);
  return pages;
}

test("GroupTransferManager sends to two recipients, and tells", { timeout: 480_000 }, async (t) => {
  const [ann, bob, cleo] = await roomOf(t, ["Ann", "Bob", "Cleo"]);
  const received = [bob, cleo].map((page) =>
    page.evaluate(async () => {
      const { files } = await (await me.offer()).accept().finished;
      return me.sha256(await files[0].file());
    }),
  );
  const sent = await ann.evaluate(async () => {
    const progress = {};
    const completed = [];
    const manager = new me.api.GroupTransferManager({
      room: me.room,
      onRecipientProgress: (id, percent, speed) => (progress[id] ??= []).push([percent, speed]),
      onComplete: (results) => completed.push(results),
    });
    const before = [await me.code(manager.startKeyExchange()), await me.code(manager.sendToAll()), manager.getGroupId()];
    const blob = me.blob(3 << 20, 1);
    manager.initializeGroupTransfer([{ path: "a.bin", file: blob }], me.room.peers);
    const keys = await manager.startKeyExchange();
    const counts = [manager.getConnectedPeerCount(), me.room.peers.map((peer) => manager.getPeerQuality(peer))];
    const stranger = await me.code((async () => manager.getPeerQuality("f".repeat(32)))());
    const results = await manager.sendToAll();
    const stats = await manager.getDataChannelManager().getStats(me.room.peers[0]);
    const out = {
      before, counts, stranger, keys, again: await me.code(manager.sendToAll()),
      hash: await me.sha256(blob),
      group: manager.getGroupId().length,
      successful: results.successfulRecipients.map((r) => r.name).sort(),
      completed: completed.length === 1 && completed[0] === results,
      progress: me.room.peers.map(({ id }) => {
        const told = progress[id];
        return told.at(-1)[0] === 100 && told.every(([percent, speed], i) => percent >= (told[i - 1]?.[0] ?? 0) && speed >= 0);
      }),
      stats: [stats.peer === me.room.peers[0].id, stats.state],
    };
    await manager.destroy();
    const another = new me.api.GroupTransferManager({ room: me.room });
    const folder = await me.code((async () => another.initializeGroupTransfer({ path: "new", directory: true }))());
    return { ...out, folder, destroyed: await me.code((async () => manager.initializeGroupTransfer(["x"]))()), state: me.room.state };
  });
  assert.deepEqual(await Promise.all(received), [sent.hash, sent.hash]);
  assert.deepEqual(sent.before, ["invalid-argument", "invalid-argument", ""]);
  assert.deepEqual([sent.keys.ready.length, sent.keys.failed.length, sent.counts[0]], [2, 0, 2]);
  assert.ok(sent.counts[1].every((quality) => ["excellent", "good", "fair", "poor"].includes(quality)), JSON.stringify(sent.counts));
  assert.equal(sent.stranger, "unknown-peer");
  assert.equal(sent.folder, "resolved", "one folder is a list of one");
  assert.equal(sent.group, 64);
  assert.deepEqual(sent.successful, ["Bob", "Cleo"]);
  assert.ok(sent.completed, "onComplete is told once");
  assert.deepEqual(sent.progress, [true, true]);
  assert.deepEqual(sent.stats, [true, "open"]);
  assert.deepEqual([sent.again, sent.destroyed, sent.state], ["invalid-argument", "invalid-argument", "open"]);
});

test("DataChannelManager connects two pages by values that the caller carries", { timeout: 480_000 }, async (t) => {
  const pages = await roomOf(t, ["Ann", "Bob"], { connections: "manual" });
  for (const page of pages) {
    await page.evaluate(() => {
      me.states = [];
      me.manager = new me.api.DataChannelManager({ room: me.room, onConnectionStateChange: (id, state) => me.states.push(state) });
      me.step = (method, ...args) => me.manager[method](me.room.peers[0].id, ...args);
    });
  }
  const step = (/** @type {number} */ i, /** @type {string} */ method, /** @type {string[]} */ ...args) =>
    pages[i].evaluate((m, a) => me.code(me.step(m, ...a).then((v) => (me.value = v))).then((code) => (code === "resolved" ? me.value : { code })), method, args);
  const states = () => Promise.all(pages.map((page) => page.evaluate(() => me.room.peers.map((p) => p.state).join())));
  /** Carries until it is open. @param {number} from */
  const connect = async (from) => {
    /** @type {any} */
    let value = await step(from, "createConnection");
    const carried = [];
    for (let i = 1 - from, method = "acceptConnection"; value; i = 1 - i, method = "completeConnection") {
      assert.equal(typeof value, "string", JSON.stringify(value));
      carried.push(value);
      value = await step(i, method, value);
    }
    await Promise.all(pages.map((page) => page.evaluate(() => me.meets(1, 120_000))));
    return carried;
  };

  assert.deepEqual(await states(), ["closed", "closed"]);
  const first = await connect(0);
  assert.ok(first.every((value) => /^[\w-]+$/.test(value) && !/candidate|fingerprint/.test(atob(value.replaceAll("-", "+").replaceAll("_", "/")))), "nothing in the clear");
  assert.ok(first.length === 3 || first.length === 4, `${first.length} values`);
  const words = await Promise.all(pages.map((page) => page.evaluate(() => me.room.peers[0].safetyWords.join(" "))));
  assert.equal(words[0], words[1]);
  assert.equal(words[0].split(" ").length, 4);
  const [hash, got] = await Promise.all([
    pages[0].evaluate(async () => {
      const blob = me.blob(1 << 20, 2);
      const { successfulRecipients } = await me.room.send(blob).finished;
      return successfulRecipients.length === 1 && me.sha256(blob);
    }),
    pages[1].evaluate(async () => me.sha256(await (await (await me.offer()).accept().finished).files[0].file())),
  ]);
  assert.equal(got, hash);

  // Values that were carried already, or are damaged, open nothing and end nothing.
  assert.deepEqual(await step(1, "acceptConnection", "nonsense"), { code: "invalid-argument" });
  const last = /** @type {string} */ (first.at(-1));
  assert.deepEqual(await step(0, "addIceCandidate", `${last.slice(0, -6)}AAAAAA`).then((r) => r.code), "handshake-failed");
  assert.deepEqual(await states(), ["open", "open"]);

  await step(0, "disconnectPeer");
  for (const page of pages) await page.evaluate(() => me.until(() => me.states.at(-1) === "closed", 120_000));
  for (const page of pages) assert.deepEqual(await page.evaluate(() => me.states), ["connecting", "open", "closing", "closed"]);
  assert.deepEqual(await pages[0].evaluate(() => [me.manager.getConnectedPeers().length, me.room.peers.length]), [0, 1]);

  assert.equal((await connect(1)).length, 7 - first.length, "the lower id makes the offer, whoever begins");
  await pages[1].evaluate(() => me.manager.destroy());
  await pages[0].evaluate(() => me.until(() => me.room.peers[0].state === "closed", 120_000));
  assert.deepEqual(await states(), ["closed", "closed"]);
});

test("DataChannelManager connects two pages that both begin", { timeout: 480_000 }, async (t) => {
  const pages = await roomOf(t, ["Ann", "Bob"], { connections: "manual" });
  for (const page of pages) await page.evaluate(() => (me.manager = new me.api.DataChannelManager({ room: me.room }), undefined));
  const step = (/** @type {number} */ i, /** @type {string} */ method, /** @type {string[]} */ ...args) =>
    pages[i].evaluate((m, a) => me.manager[m](me.room.peers[0].id, ...a), method, args);
  /** @type {string[]} */
  const carried = [];
  /** Carries a value of a page, and what comes of it, until nothing does. @param {number} from @param {string | undefined} value */
  const carry = async (from, value) => {
    for (let i = 1 - from, method = "acceptConnection"; value; i = 1 - i, method = "completeConnection") {
      carried.push(`${i} ${value}`);
      value = await step(i, method, value);
    }
  };
  const values = await Promise.all([step(0, "createConnection"), step(1, "createConnection")]);
  await Promise.all(values.map((value, from) => carry(from, value)));
  await Promise.all(pages.map((page) => page.evaluate(() => me.meets(1, 120_000))));
  assert.equal(carried.length, 5, "a Knock, a Hello to each of the two who asked for it, an offer and an answer");
});

test("DataChannelManager waits no longer than a link lasts, though another one follows at once", { timeout: 480_000 }, async (t) => {
  const [ann] = await roomOf(t, ["Ann", "Bob"]);
  await ann.evaluate(() => me.meets(1, 120_000));
  const seen = await ann.evaluate(async () => {
    const [{ id }] = me.room.peers;
    const manager = new me.api.DataChannelManager({ room: me.room });
    me.events.length = 0;
    const states = () => me.events.filter((e) => e.type === "peerchange").map((e) => e.state).filter((state, i, all) => state !== all[i - 1]).join();
    const gone = me.code(manager.disconnectPeer(id)).then((code) => (me.gone = code));
    await manager.createConnection(id);
    await me.until(() => me.events.some((e) => e.state === "connecting") && me.room.peers[0].state === "open");
    const out = { states: states(), gone: await me.until(() => me.gone, 10_000).catch(() => "waits") };
    const cut = me.code(manager.disconnectPeer(id));
    const destroyed = await me.code(manager.destroy());
    return { ...out, cut: await cut, destroyed, end: me.room.peers[0].state, later: await me.code(manager.disconnectPeer(id)) };
  });
  assert.match(seen.states, /closing,connecting,open$/, "closed is not told");
  assert.deepEqual({ ...seen, states: "" }, { states: "", gone: "resolved", cut: "cancelled", destroyed: "resolved", end: "closed", later: "cancelled" });
});

test("what a facade ends, the end of the room ends as well", { timeout: 480_000 }, async (t) => {
  const [ann, bob] = await roomOf(t, ["Ann", "Bob"]);
  const seen = await ann.evaluate(async () => {
    await me.meets(1, 120_000);
    const channels = new me.api.DataChannelManager({ room: me.room });
    const others = new me.api.DataChannelManager({ room: me.room });
    const group = new me.api.GroupTransferManager({ room: me.room });
    group.initializeGroupTransfer(["text"]);
    group.sendToAll().catch(() => {}); // it may fail before the room has ended, or with it
    const [{ id }] = me.room.peers;
    const codes = await Promise.all([me.room.leave(), channels.disconnectPeer(id), others.destroy(), group.destroy()].map((one) => me.code(one)));
    return { codes, after: [await me.code(channels.disconnectPeer(id)), await me.code(others.destroy()), await me.code(group.destroy())] };
  });
  assert.deepEqual(seen, { codes: ["resolved", "resolved", "resolved", "resolved"], after: ["resolved", "resolved", "resolved"] });
  const ending = await bob.evaluate(async () => {
    const manager = new me.api.DataChannelManager({ room: me.room });
    return Promise.all([me.code(manager.destroy()), me.code(me.room.leave())]);
  });
  assert.deepEqual(ending, ["resolved", "resolved"]);
});

test("SignalingClient invites, tells who joined and left, and carries values", { timeout: 480_000 }, async (t) => {
  const pages = await roomOf(t, ["Ann", "Bob", "Cleo"], { connections: "manual" });
  // Each page connects what the server carries, each candidate by itself.
  for (const page of pages) {
    await page.evaluate(() => {
      me.group = { invites: [], joined: [], left: [], candidates: 0, errors: [] };
      const note = (promise) => promise.catch((error) => me.group.errors.push(error.code));
      me.manager = new me.api.DataChannelManager({ room: me.room, onIceCandidate: (id, value) => note(me.client.sendGroupIceCandidate(id, value)) });
      const answer = (id, value) => value && me.client.sendGroupAnswer(id, value);
      me.client = new me.api.SignalingClient({
        room: me.room,
        onGroupInvite: (invite) => me.group.invites.push(invite),
        onGroupJoined: (id, peer) => me.group.joined.push([id, peer]),
        onGroupLeft: (id, peer, code) => me.group.left.push([id, peer, code]),
        onGroupOffer: (id, value) => note(me.manager.acceptConnection(id, value).then((v) => answer(id, v))),
        onGroupAnswer: (id, value) => note(me.manager.completeConnection(id, value).then((v) => answer(id, v))),
        onGroupIceCandidate: (id, value) => {
          me.group.candidates++;
          note(me.manager.addIceCandidate(id, value));
        },
      });
    });
  }
  const [ann, bob, cleo] = pages;
  await ann.evaluate(async () => {
    for (const { id } of me.room.peers) {
      const value = await me.manager.createConnection(id);
      await me.client.sendGroupOffer(id, value);
    }
    await me.meets(2, 120_000);
  });
  let candidates = 0;
  for (const page of pages) {
    assert.deepEqual(await page.evaluate(() => me.group.errors), []);
    candidates += await page.evaluate(() => me.group.candidates);
  }
  assert.ok(candidates > 0, "candidates came by themselves");

  const group = await ann.evaluate(async () => {
    me.transfer = me.client.createGroupTransfer([{ path: "a.bin", file: me.blob(1 << 20, 3) }]);
    await me.until(() => me.transfer.id);
    return me.transfer.id;
  });
  for (const page of [bob, cleo]) {
    const invite = await page.evaluate(async () => {
      const { groupId, from, recipientCount, files, totalSize } = await me.until(() => me.group.invites[0]);
      return { groupId, from: from.name, recipientCount, files: files.map((f) => [f.name, f.size]), totalSize };
    });
    assert.deepEqual(invite, { groupId: group, from: "Ann", recipientCount: 2, files: [["a.bin", 1 << 20]], totalSize: 1 << 20 });
  }
  assert.equal(await bob.evaluate(() => me.code((async () => me.client.joinGroupTransfer("0".repeat(64)))())), "unknown-transfer");
  assert.deepEqual(await bob.evaluate(async (id) => (await me.client.joinGroupTransfer(id).finished).files.length, group), 1);
  await cleo.evaluate((id) => me.client.leaveGroupTransfer(id, "no"), group);
  const told = await ann.evaluate(async () => {
    const { successfulRecipients, failedRecipients } = await me.transfer.finished;
    await me.until(() => me.group.left.length);
    const name = (id) => me.room.peers.find((p) => p.id === id).name;
    return { ok: successfulRecipients.length, failed: failedRecipients.length, joined: me.group.joined.map(([id, p]) => [id, name(p)]), left: me.group.left.map(([id, p, code]) => [id, name(p), code]) };
  });
  assert.deepEqual(told, { ok: 1, failed: 1, joined: [[group, "Bob"]], left: [[group, "Cleo", "declined"]] });

  // The sender leaves: the invitation is withdrawn.
  await ann.evaluate(async () => {
    me.transfer = me.client.createGroupTransfer("text", { to: [me.room.peers.find((p) => p.name === "Cleo")] });
    await me.until(() => me.transfer.id);
  });
  await cleo.evaluate(() => me.until(() => me.group.invites[1]));
  await ann.evaluate(() => me.client.leaveGroupTransfer(me.transfer.id));
  const withdrawn = await cleo.evaluate(async () => {
    const [id, from, code] = await me.until(() => me.group.left[0]);
    return [id === me.group.invites[1].groupId, from === me.group.invites[1].from.id, code];
  });
  assert.deepEqual(withdrawn, [true, true, "cancelled-by-peer"]);
});
