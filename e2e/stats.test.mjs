// Quality and figures: in the API, and in the page behind the details of each person.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { CHUNK, frozen, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { findable, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { sharedBrowser } from "./shared.mjs";

const chunks = 8;
const size = chunks * CHUNK;

test("figures and quality in the API", { timeout: 480_000 }, async (t) => {
  const server = await startServer(t, { args: ["-turn=false"] }); // the way through a relay might be found first
  const browser = await sharedBrowser(t);
  const ann = await startMember(browser, server.url);
  const bob = await startMember(browser, server.url, { before: findable });
  const link = await ann.evaluate(async () => {
    me.watch(await me.tallow.createRoom({ name: "Ann" }));
    return me.room.link;
  });
  const refused = await bob.evaluate(async (to) => {
    const codes = [];
    for (const qualityThresholds of [{ excellent: 1, good: 1, fair: 2 }, { excellent: 3, good: 2, fair: 1 }, { excellent: 1, good: 2 }, { excellent: 0, good: 1, fair: 2 }, { excellent: 1, good: 2, fair: Infinity }])
      codes.push(await me.code(me.tallow.joinRoom(to, { qualityThresholds })));
    await me.join(to, { name: "Bob", qualityThresholds: { excellent: 0.001, good: 0.002, fair: 0.003 } });
    return codes;
  }, link);
  assert.deepEqual(refused, Array(5).fill("invalid-argument"));
  for (const page of [ann, bob]) await page.evaluate(() => me.meets(1, 120_000));

  await t.test("quality by the thresholds given", async () => {
    await bob.evaluate(() => me.until(() => me.room.peers[0].quality === "poor", 120_000));
    const quality = await ann.evaluate(() => me.until(() => me.room.peers[0].rtt > 0 && me.room.peers[0].quality, 120_000));
    assert.notEqual(quality, "disconnected");
  });

  const send = async () => {
    const received = bob.evaluate(async () => void (await (await me.offer()).accept().finished));
    await ann.evaluate(async (n) => void (await me.room.send(new File([me.blob(n, 1)], "a.bin")).finished), size);
    await received;
    await delay(60); // Chromium gives the same figures for 50 ms
  };
  const stats = (/** @type {import("puppeteer-core").Page} */ page) => page.evaluate(() => me.room.peers[0].stats());

  await t.test("what a transfer leaves", async () => {
    await send();
    const [sent, received] = [await stats(ann), await stats(bob)];
    const plausible = (/** @type {any} */ s) => {
      assert.equal(s.state, "open");
      assert.equal(s.route, "direct");
      assert.equal(s.protocol, "udp");
      assert.ok(s.uptime > 0 && s.rtt > 0 && s.currentRTT > 0, JSON.stringify(s));
      assert.ok(s.loss === -1 || (s.loss >= 0 && s.loss <= 1), JSON.stringify(s));
      for (const name of ["sendRate", "receiveRate"]) assert.ok(s[name] >= 0 && Number.isFinite(s[name]), JSON.stringify(s));
    };
    plausible(sent);
    plausible(received);
    // A busy machine may have lost the connection, and found another.
    assert.deepEqual([sent.chunksSent - sent.chunksResent, sent.payloadReceived, sent.chunksVerified], [chunks, 0, 0]);
    assert.equal(sent.payloadSent, sent.chunksSent * CHUNK);
    assert.deepEqual([received.payloadSent, received.chunksSent, received.chunksResent, received.payloadReceived, received.chunksVerified], [0, 0, 0, size, chunks]);
    for (const [bytes, packets] of [[sent.bytesSent, sent.packetsSent], [received.bytesReceived, received.packetsReceived]]) {
      // What SCTP takes for lost, it sends again.
      assert.ok(bytes > size && bytes < 4 * sent.payloadSent, `${bytes} bytes for ${sent.payloadSent}`);
      assert.ok(packets > bytes / 1500 && packets < bytes / 250, `${packets} packets for ${bytes} bytes`);
    }
    assert.ok(sent.meanSendRate > sent.meanReceiveRate && received.meanReceiveRate > received.meanSendRate);
    const all = await ann.evaluate(() => me.room.stats());
    assert.deepEqual(all.map((s) => [s.peer, s.payloadSent]), [[sent.peer, sent.payloadSent]]);
  });

  await t.test("loss is known after some checks", async () => {
    await until("a figure", async () => (await stats(ann)).loss >= 0, 120_000);
  });

  await t.test("another connection goes on counting", async () => {
    const before = await stats(ann);
    const cut = performance.now();
    await bob.evaluate(() => /** @type {any} */ (window).made.forEach((connection) => connection.close()));
    await until("another connection", async () => {
      const s = await stats(ann);
      return s.reconnects > before.reconnects && s.state === "open" && s.rtt > 0;
    }, 120_000);
    await bob.evaluate(() => me.meets(1, 120_000));
    await send();
    const after = await stats(ann);
    const since = (performance.now() - cut) / 1000;
    assert.equal(after.chunksSent - after.chunksResent, 2 * chunks);
    assert.equal((await stats(bob)).payloadReceived, 2 * size);
    assert.ok(after.bytesSent > before.bytesSent + size, `${before.bytesSent}, then ${after.bytesSent}`);
    assert.ok(after.uptime > 0 && after.uptime <= since, `of the present connection: ${after.uptime} s, and the cut was ${since} s ago`);
  });

  await t.test("not after the room", async () => {
    assert.equal(await ann.evaluate(async () => {
      const [peer] = me.room.peers;
      await me.room.leave();
      return me.code(peer.stats());
    }), "room-closed");
  });
});

test("the details of a connection in the page, in Chromium and in Firefox", { timeout: 480_000 }, async (t) => {
  const args = ["-turn=false"];
  const server = await startServer(t, { args });
  const file = await writeFile(tempDir(t), "big.bin", size);
  const before = () => {
    const violations = [];
    document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
    Object.assign(window, { violations });
  };
  const [ada, fay] = await Promise.all([Person.arrive(t, { name: "Ada", before: [before, findable] }), Person.arrive(t, { kind: "firefox", name: "Fay", before })]);
  await ada.open(`${server.url}/`);
  await fay.open(await ada.link());
  await Promise.all([ada, fay].map((person) => person.meets(1)));

  /** The details that are open: names and values, and what the plots say. @param {Person} person */
  const read = (person) =>
    person.page.evaluate(() => {
      const details = document.querySelector("details.figures[open]");
      const rows = [...(details?.querySelectorAll("dl > div") ?? [])];
      const plots = [...(details?.querySelectorAll(".plot > svg[role=img]") ?? [])];
      return {
        values: Object.fromEntries(rows.map((row) => [row.querySelector("dt")?.textContent, row.querySelector("dd")?.textContent])),
        plots: plots.map((plot) => plot.getAttribute("aria-label") ?? ""),
        points: plots.map((plot) => [...plot.querySelectorAll("path")].map((path) => (path.getAttribute("d") ?? "").split(/[ML]/).length - 1)),
      };
    });
  /** How many different chunks a figure tells of. @param {string | null | undefined} text */
  const told = (text) => {
    const [, all, again = "0"] = /^[\d.]+ MB in (\d+) chunks(?:, (\d+) of them again)?$/.exec(text ?? "") ?? [];
    return Number(all) - Number(again);
  };
  const send = async () => {
    await ada.choose(file.file);
    await ada.press("Send");
    await fay.press("Accept");
    await ada.seesDelivery("Fay", /^Done: verified on disk$/);
  };

  const summary = await ada.control("DisclosureTriangle", "Details of the connection to Fay");
  // What is above it may grow while a mouse is on its way.
  const details = { click: () => summary.evaluate((element) => /** @type {HTMLElement} */ (element).click()) };
  assert.deepEqual((await read(ada)).values, {}, "nothing is read before");
  await details.click();
  await fay.page.evaluate(() => /** @type {HTMLElement} */ (document.querySelector("details.figures > summary")).click());
  await send();

  // Our own counters are read when the browser's have come, and so are ahead of them.
  const sent = /^([2-9]|\d\d)(\.\d+)? MB in [\d,]+ packets$/;
  await until("Ada's figures", async () => {
    const { values } = await read(ada);
    return told(values["Files to them"]) === chunks && sent.test(values["Sent"] ?? "");
  });
  await until("Fay's figures", async () => (await read(fay)).values["Files from them"] === "2.1 MB in 8 chunks, verified");
  await until("a few points", async () => (await read(ada)).points.flat().every((n) => n >= 3));
  const [hers, theirs] = [await read(ada), await read(fay)];
  t.diagnostic(JSON.stringify(hers));
  t.diagnostic(JSON.stringify(theirs));
  assert.match(hers.values["Sent"] ?? "", sent);
  assert.match(theirs.values["Received"] ?? "", /^([2-9]|\d\d)(\.\d+)? MB$/, "Firefox counts no packets");
  assert.equal(theirs.values["Loss"], "not known");
  for (const { values, plots } of [hers, theirs]) {
    assert.match(values["Round trip"] ?? "", /^[\d.,]+ ms, the last one [\d.,]+ ms$/);
    assert.equal(values["Route"], "Direct, UDP");
    for (const way of ["Sending", "Receiving"]) assert.match(values[way] ?? "", /^[\d.]+ [kM]?B\/s, [\d.]+ [kM]?B\/s on average$/);
    assert.match(values["Connected"] ?? "", /^for \d+ (s|min)/);
    assert.match(plots[0], /^Rate over the last 60 seconds: Sending [\d.]+ k?M?B\/s now, [\d.]+ k?M?B\/s at most; Receiving /);
    assert.match(plots[1], /^Round trip over the last 60 seconds: Round trip [\d.–]+/);
  }
  assert.match(hers.plots[0], /Sending [^;]*, [\d.]+ [kM]B\/s at most/, "the transfer shows");

  await t.test("closed, nothing is read", async () => {
    await details.click();
    await ada.page.evaluate(() => {
      const seen = { changes: 0 };
      const figures = /** @type {HTMLDetailsElement} */ (document.querySelector("details.figures"));
      new MutationObserver(() => !figures.open && seen.changes++).observe(figures, { subtree: true, childList: true, characterData: true });
      Object.assign(window, { seen });
    });
    const last = () => fay.page.evaluate(() => document.querySelector("details.figures[open] dl")?.textContent);
    await send(); // which would change much
    for (let i = 0; i < 4; i++) {
      const before = await last();
      await until("another reading at Fay's", async () => (await last()) !== before); // there is one a second
    }
    // A reading that was under way at the click may still have come.
    assert.ok((await ada.page.evaluate(() => /** @type {any} */ (window).seen.changes)) <= 1);
    await details.click();
    await until("they go on", async () => told((await read(ada)).values["Files to them"]) === 2 * chunks);
  });

  await t.test("quality, and silence", async () => {
    await ada.sees(/Connected · (excellent|good|fair|poor)/);
    await frozen(fay.page.browser(), () => ada.sees(/Not answering/));
    await Promise.all([ada, fay].map((person) => person.meets(1)));
    await ada.sees(/Connected · (excellent|good|fair|poor)/);
  });

  assert.deepEqual(fay.errors, []); // of a server that is killed, and connections that fail, Firefox tells as of errors of the page
  await t.test("lost, picked all the same, and found", async () => {
    const found = async () => Number(/^for .*, lost and found (\d+) times?$/.exec((await read(ada)).values["Connected"] ?? "")?.[1] ?? 0);
    const before = await found();
    await server.kill();
    await ada.page.evaluate(() => /** @type {any} */ (window).made.forEach((connection) => connection.close()));
    await ada.sees(/Connecting/);
    await ada.choose(file.file);
    await ada.press("Send");
    await ada.seesDelivery("Fay", /^Connection lost/);
    await startServer(t, { args, addr: server.addr });
    await fay.press("Accept");
    await ada.seesDelivery("Fay", /^Done: verified on disk$/);
    await until("the details tell", async () => (await found()) > before, 120_000);
  });

  for (const person of [ada, fay]) {
    assert.deepEqual(await person.page.evaluate(() => /** @type {any} */ (window).violations), [], "the content security policy holds");
  }
  assert.deepEqual(ada.errors, []);
});
