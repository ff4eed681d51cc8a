// The promises of trust that only a browser can break: what the signaling server, a stranger's file names and injected scripts get out of
// the page. Long forms: trust.soak.mjs.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import test from "node:test";
import { BLIND, INSIDER, secrets, startEvil, survive } from "./evil.mjs";
import { expectFiles, startBrowser, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { loadMember, startMember } from "./member.mjs";
import { Person } from "./person.mjs";
import { reloads } from "./reloads.mjs";
import { sharedBrowser } from "./shared.mjs";

test("a server that meddles: right bytes or a typed error", { timeout: 420_000 }, async (t) => {
  await survive(t, [...BLIND, ...Object.keys(INSIDER)]);
});

test("nonces never repeat, whatever is reloaded", { timeout: 240_000 }, async (t) => {
  await reloads(t, 5);
});

test("a hidden tab rekeys, while it sends", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const { browser } = await startBrowser(t, { throttled: true });
  // Two tabs of a window; a third covers both, so that whoever initiates the rekey is hidden.
  const context = await browser.createBrowserContext();
  const [sender, recipient] = [await context.newPage(), await context.newPage()];
  for (const page of [sender, recipient]) {
    page.setDefaultTimeout(120_000);
    await page.evaluateOnNewDocument(skewClock);
    await page.evaluateOnNewDocument(watchRecords);
    await loadMember(page, server.url);
  }
  const link = await sender.evaluate(async () => (me.watch(await me.tallow.createRoom()), me.room.link));
  await recipient.evaluate(async (to) => me.join(to), link);
  await sender.evaluate(() => me.meets(1));
  const front = await context.newPage();
  await front.bringToFront();
  for (const page of [sender, recipient]) await page.waitForFunction(() => document.visibilityState === "hidden", { polling: 100 });

  const sent = sender.evaluate(async () => {
    const blob = me.blob(8 << 20, 1);
    me.transfer = me.room.send(new File([blob], "slow.bin"), { bandwidthLimitPerRecipient: 300_000 });
    const { successfulRecipients } = await me.transfer.finished;
    return { done: successfulRecipients.length, sha256: await me.sha256(blob) };
  });
  const received = recipient.evaluate(async () => {
    const { files } = await (await me.offer()).accept().finished;
    return me.sha256(await files[0].file());
  });
  await sender.waitForFunction(() => globalThis.records.has("bulk 2 0") && me.transfer.state === "transferring", { polling: 100 });
  const epochs = (/** @type {number} */ epoch) => ["control", "bulk"].map((channel) => `${channel} 2 ${epoch}`);
  for (const page of [sender, recipient]) assert.deepEqual(await page.evaluate(() => [...globalThis.records].filter((r) => !/ 0$/.test(r))), [], "one epoch so far");
  for (const page of [sender, recipient]) await page.evaluate(() => void (globalThis.skew += 5 * 60_000 + 1));
  await sender.waitForFunction((all) => all.every((r) => globalThis.records.has(r)), { polling: 100 }, epochs(1));
  assert.equal(await sender.evaluate(() => me.transfer.state), "transferring", "it runs on");
  await sender.evaluate(() => me.transfer.setBandwidthLimit(0));
  const { done, sha256 } = await sent;
  assert.deepEqual([done, await received], [1, sha256]);
  for (const page of [sender, recipient]) {
    const records = await page.evaluate(() => [...globalThis.records]);
    for (const channel of ["control", "bulk"]) assert.ok(records.includes(`${channel} 3 0`), `a key record ends the old epoch: ${records}`);
    assert.deepEqual(await page.evaluate(() => me.events.filter((e) => e.type === "error" || (e.type === "peerchange" && e.state !== "open" && e.state !== "connecting"))), []);
    assert.equal(await page.evaluate(() => document.visibilityState), "hidden");
  }
});

test("two people over a server that meddles", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const [ada, ben] = await Promise.all([Person.arrive(t, { name: "Ada Lovelace" }), Person.arrive(t, { name: "Ben Franklin" })]);

  await t.test("an insider between them: no link, no words, nobody to send to", async (t) => {
    const evil = await startEvil(t, server.url, "answer-keys");
    await ada.open(`${evil.url}/`);
    const link = await ada.link();
    await evil.tell("answer-keys", link);
    await ben.open(link);
    await until("it is at work", async () => (await evil.report("answer-keys")).meddled >= 2);
    for (const person of [ada, ben]) {
      await person.sees(/Connecting|No connection/);
      assert.doesNotMatch(await person.text(), /Connected/);
      assert.equal(await person.page.evaluate(() => document.querySelector(".words")?.textContent), "");
    }
    assert.equal(await ada.page.evaluate(() => document.querySelector("#peers input")?.matches(":disabled")), true, "Ben cannot be picked");
    assert.equal((await evil.report("answer-keys")).pairs, 0);
  });

  await t.test("damaged envelopes: the words are the same, the file arrives, the server has read nothing", async (t) => {
    const evil = await startEvil(t, server.url, "damage");
    const file = await writeFile(tempDir(t), "for Ben alone.bin", 2_000_000);
    const mark = fs.readFileSync(file.file).subarray(1000, 1064);
    await ada.open(`${evil.url}/`);
    const link = await ada.link();
    await ben.open(link);
    await Promise.all([ada.meets(1), ben.meets(1)]);
    const words = (/** @type {Person} */ person) => person.page.evaluate(() => document.querySelector(".words")?.textContent);
    assert.match((await words(ada)) ?? "", /^\w+ \w+ \w+ \w+$/);
    assert.equal(await words(ben), await words(ada));
    await ada.choose(file.file);
    await ada.press("Send");
    await ben.press("Accept");
    await ada.seesDelivery("Ben Franklin", /^Done/);
    await expectFiles(ben.downloads, [file]);

    await (await ada.control("DisclosureTriangle", "Verify Ben Franklin")).click();
    await ada.press("They match");
    await ada.sees(/Connected · \w+( · relayed)? · verified/);
    const old = await words(ben);
    await ben.page.reload();
    await until("words of a new link", async () => /\w/.test((await words(ben)) ?? "") && (await words(ben)) !== old);
    await ada.meets(1);
    await ada.sees(/Connected · \w+( · relayed)? · verified/);
    assert.ok((await evil.report("damage")).meddled > 20);
    evil.hasNot(["Ada Lovelace", "Ben Franklin", "for Ben alone", mark, "candidate:", "fingerprint", ...secrets(link)]);
  });
  for (const person of [ada, ben]) assert.deepEqual(person.errors, []);
});

test("names that a stranger chose", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const name = "<img src=//evil.test onerror=pwned=1>\u202e";
  const ben = await Person.arrive(t, { name: "Ben" });
  const browser = await sharedBrowser(t);
  const eve = await startMember(browser, server.url);
  const link = await eve.evaluate(async (named, pageURL) => (me.watch(await me.tallow.createRoom({ name: named, pageURL })), me.room.link), name, `${server.url}/`);
  /** @type {string[]} */
  const requests = [];
  ben.page.on("request", (request) => requests.push(request.url()));
  await ben.open(link);
  await ben.meets(1);

  const unique = path.basename(ben.downloads);
  const names = [
    `../../${unique}-up.txt`, `/tmp/${unique}-absolute.txt`, `..\\..\\${unique}-back.txt`, "C:\\Windows\\drive.dll", "a/../../b/./c.txt",
    "nul\0.txt", "\x1b[2Jansi.txt", "photo\u202egpj.exe", "CON", "com1.tar.gz", "dots. . .", " ", "..", "Case.txt", "case.txt",
    "caf\u00e9.txt", "cafe\u0301.txt", "<img src=//evil.test onerror=pwned=1>.txt", `${"long".repeat(1000)}.txt`,
  ];
  const sent = eve.evaluate(async (all) => {
    const transfer = me.room.send(all.map((n, i) => new File([`file ${i}`], n)));
    const { successfulRecipients } = await transfer.finished;
    return successfulRecipients.length;
  }, names);
  await ben.sees(/<img src=\/\/evil\.test onerror=pwned=1>.* wants to send you/);
  await ben.page.select(".offer select", "files"); // as a zip, since some are in folders, it would be a single download
  await ben.press("Accept");
  assert.equal(await sent, 1);
  await ben.sees(/Verified, and handed to your browser’s downloads: 19 files/);
  await until("19 downloads", () => fs.readdirSync(ben.downloads).filter((n) => !n.endsWith(".crdownload")).length === names.length);

  const unsafe = /[\x00-\x1f\x7f<>:"|?*\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|^\.\.?$|[. ]$|^(con|com1)(\.|$)/i;
  const onDisk = fs.readdirSync(ben.downloads);
  const contents = onDisk.map((n) => fs.readFileSync(path.join(ben.downloads, n), "utf8"));
  assert.deepEqual(contents.sort(), names.map((_, i) => `file ${i}`).sort(), "each arrives once, with its own bytes");
  const shown = await ben.page.evaluate(() => [...document.querySelectorAll("article .files .name")].map((e) => e.textContent ?? ""));
  assert.equal(shown.length, names.length);
  for (const list of [onDisk, shown]) {
    assert.deepEqual(list.filter((n) => n.split("/").some((element) => unsafe.test(element) || element === "" || Buffer.byteLength(element) > 255)), []);
    const folded = list.map((n) => n.normalize("NFC").toLowerCase());
    assert.equal(new Set(folded).size, list.length, `no two are the same where case and normalisation do not count: ${list}`);
  }
  for (const folder of [path.dirname(ben.downloads), path.dirname(path.dirname(ben.downloads)), "/tmp"])
    assert.deepEqual(fs.readdirSync(folder).filter((n) => n.startsWith(`${unique}-`)), [], `nothing in ${folder}`);

  const found = await ben.page.evaluate(() => ({
    pwned: "pwned" in globalThis,
    elements: document.querySelectorAll("main :is(img, script, iframe, b, style)").length,
    direction: /[\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText),
  }));
  assert.deepEqual(found, { pwned: false, elements: 0, direction: false });
  assert.deepEqual(requests.filter((url) => !url.startsWith(server.url) && !url.startsWith(`blob:${server.url}`)), []);
  const refused = await eve.evaluate(() => {
    const code = (/** @type {string} */ p) => {
      try {
        me.room.send({ path: p, file: new Blob(["x"]) });
        return "sent";
      } catch (error) {
        return error.code;
      }
    };
    return ["../x", "/x", "a//b", "x".repeat(10_000)].map(code);
  });
  assert.deepEqual(refused, refused.map(() => "invalid-argument"), "the API itself takes no such path");
});

test("a script that gets into the page does not run", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  let reached = 0;
  const stranger = createServer((request, response) => {
    if (request.url !== "/") reached++;
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><title>stranger</title><iframe src="${server.url}/"></iframe>`);
  });
  await new Promise((resolve) => stranger.listen(0, "127.0.0.1", () => resolve(0)));
  t.after(() => stranger.close());
  const elsewhere = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (stranger.address()).port}`;
  const person = await Person.arrive(t);
  await person.open(`${server.url}/`);
  await person.link();

  const outcomes = await person.page.evaluate(async (other) => {
    await new Promise((resolve) => setTimeout(resolve)); // the driver's own call may do more than a page
    const pwn = "globalThis.pwned = (globalThis.pwned ?? 0) + 1";
    const blob = URL.createObjectURL(new Blob([pwn], { type: "text/javascript" }));
    const script = (/** @type {(s: HTMLScriptElement) => void} */ fill) => () => {
      const element = document.createElement("script");
      fill(element);
      document.body.append(element);
      element.remove();
    };
    const link = (/** @type {string} */ href) => {
      const a = document.createElement("a");
      a.href = href;
      document.body.append(a);
      a.click();
      a.remove();
    };
    /** What must throw or reject, and what may seem to work and has no effect. @type {Record<string, () => unknown>} */
    const throwing = {
      eval: () => (0, eval)(pwn),
      Function: () => new Function(pwn)(),
      "setTimeout of a string": () => /** @type {any} */ (setTimeout)(pwn),
      innerHTML: () => (document.createElement("p").innerHTML = "<b>x</b>"),
      outerHTML: () => (document.querySelector("footer p").outerHTML = "<b>x</b>"),
      insertAdjacentHTML: () => document.body.insertAdjacentHTML("beforeend", "<b>x</b>"),
      "document.write": () => document.write("<b>x</b>"),
      "text of a script": script((s) => (s.text = pwn)),
      "src of a script": script((s) => (s.src = "data:text/javascript," + pwn)),
      "import of data:": () => import(`data:text/javascript,${pwn}`),
      "import of blob:": () => import(blob),
      "import from elsewhere": () => import(`${other}/x.js`),
      "worker of blob:": () => new Worker(blob),
      "a policy of its own": () => trustedTypes.createPolicy("mine", {}),
      "the page's policy, again": () => trustedTypes.createPolicy("tallow-worker", {}),
      "fetch elsewhere": () => fetch(`${other}/fetch`, { mode: "no-cors" }),
    };
    const silent = {
      "inline script": script((s) => s.append(pwn)),
      "javascript: link": () => link(`javascript:${pwn}`),
      "event handler": () => {
        const b = document.createElement("button");
        try {
          b.setAttribute("onclick", pwn);
        } catch {}
        document.body.append(b);
        b.click();
        b.remove();
      },
      "image from elsewhere": () => void (new Image().src = `${other}/image`),
      beacon: () => navigator.sendBeacon(`${other}/beacon`, "x"),
      socket: () => void new WebSocket(`${other.replace("http", "ws")}/socket`),
      "inline style": () => {
        const style = document.createElement("style");
        style.append(`body { background: url(${other}/style) }`);
        document.head.append(style);
      },
      "form elsewhere": () => {
        const form = document.createElement("form");
        form.action = `${other}/form`;
        document.body.append(form);
        form.submit();
      },
      frame: () => {
        const frame = document.createElement("iframe");
        frame.src = `${other}/frame`;
        document.body.append(frame);
      },
      base: () => {
        const base = document.createElement("base");
        base.href = `${other}/`;
        document.head.append(base);
      },
    };
    const worked = [];
    for (const [name, attempt] of Object.entries(throwing)) {
      try {
        await attempt();
        worked.push(name);
      } catch {
        // as it should be
      }
    }
    for (const attempt of Object.values(silent)) {
      try {
        attempt();
      } catch {
        // even better
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 300)); // for what would run or be sent later
    return { worked, pwned: "pwned" in globalThis, base: document.baseURI };
  }, elsewhere);
  assert.deepEqual(outcomes, { worked: [], pwned: false, base: `${server.url}/` });
  assert.equal(reached, 0, "nothing was asked of another server");

  // From the outside: no frame, no handle on the window, no reading of its files.
  const outside = await person.page.browserContext().newPage();
  await outside.goto(`${elsewhere}/`);
  const [, frame] = outside.frames();
  assert.match(frame.url(), /^chrome-error:/, "the page is in nobody's frame");
  const seen = await outside.evaluate(async (url) => {
    const read = await fetch(`${url}/tallow.js`, { mode: "no-cors" }).then(() => "read", () => "refused");
    const opened = window.open(`${url}/`);
    for (let i = 0; i < 1200 && !opened?.closed; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    return { read, severed: opened?.closed };
  }, server.url);
  assert.deepEqual(seen, { read: "refused", severed: true });
});

test("the link's secret leaves the address, and is kept where it can be deleted", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const evil = await startEvil(t, server.url); // only listens
  const [ada, ben] = await Promise.all([Person.arrive(t, { name: "Ada" }), Person.arrive(t, { name: "Ben" })]);
  await ada.open(`${evil.url}/`);
  const link = await ada.link();
  const [secret] = secrets(link);
  await ben.open(link);
  await ben.meets(1);
  const traces = (/** @type {import("puppeteer-core").Page} */ page) =>
    page.evaluate(async (text) => {
      const folder = await navigator.storage.getDirectory();
      const files = [];
      const walk = async (/** @type {any} */ from) => {
        for await (const [name, handle] of from) handle.kind === "directory" ? await walk(handle) : files.push(name);
      };
      await walk(folder);
      const databases = [];
      for (const { name } of await indexedDB.databases()) {
        const database = await new Promise((resolve) => (indexedDB.open(/** @type {string} */ (name)).onsuccess = (e) => resolve(/** @type {any} */ (e.target).result)));
        for (const store of database.objectStoreNames)
          databases.push(await new Promise((resolve) => (database.transaction(store).objectStore(store).getAll().onsuccess = (e) => resolve({ name, store, all: e.target.result }))));
        database.close();
      }
      const places = {
        address: [location.href, document.URL, document.baseURI, document.referrer, window.name],
        history: [/** @type {any} */ (window).navigation?.entries().map((e) => e.url), history.state],
        performance: performance.getEntries().map((e) => e.toJSON()),
        localStorage: { ...localStorage },
        sessionStorage: { ...sessionStorage },
        cookie: document.cookie,
        caches: await caches.keys(),
        workers: (await navigator.serviceWorker.getRegistrations()).length,
        files,
        databases,
      };
      return Object.entries(places).filter(([, what]) => JSON.stringify(what).includes(text)).map(([where]) => where);
    }, secret);
  assert.deepEqual(await traces(ben.page), ["databases"], "where the guest has the secret");
  assert.deepEqual(await traces(ada.page), ["databases"], "where the owner has the secret");

  await t.test("a room that cannot be entered: in the tab until it is forgotten, and still to be tried again", async (t) => {
    const cleo = await Person.arrive(t, { name: "Cleo" });
    await ada.press("Lock the room");
    await cleo.open(link);
    await cleo.sees(/This room is locked/);
    assert.deepEqual(await traces(cleo.page), ["sessionStorage"]);
    await cleo.press("You are Cleo");
    await cleo.sees(/keeps the key of a room/);
    await cleo.press("Forget closed rooms");
    await until("it is forgotten", async () => (await traces(cleo.page)).length === 0);
    await cleo.press("Cancel");
    await ada.press("Lock the room");
    await ada.sees(/Locked, it lets nobody new in/);
    await cleo.press("Try again");
    await cleo.meets(2);
    assert.deepEqual(await traces(cleo.page), ["databases"]);
    await cleo.press("You are Cleo");
    await cleo.press("Save and open a new room");
    await ada.meets(1);
  });
  await t.test("a link that does not work is not kept", async (t) => {
    const cleo = await Person.arrive(t, { name: "Cleo" });
    await cleo.open(link.slice(0, -2));
    await cleo.sees(/This link does not work/);
    assert.equal(await cleo.page.evaluate(() => sessionStorage.length), 0);
  });
  await t.test("leaving the room deletes it", async () => {
    await ben.press("You are Ben");
    await ben.press("Save and open a new room");
    await until("another room", async () => !(await ben.link()).includes(secret) && (await ben.link()).includes("#v1."));
    assert.deepEqual(await traces(ben.page), []);
  });
  await t.test("rooms that were closed can be forgotten", async () => {
    await ada.open("about:blank");
    const other = await ada.page.browserContext().newPage();
    const again = new Person(other, ada.downloads);
    await again.open(`${evil.url}/`);
    await again.link();
    assert.deepEqual(await traces(other), ["databases"], "it can be come back to");
    await again.press("You are Ada");
    await again.sees(/keeps the key of a room that you closed/);
    await again.press("Forget closed rooms");
    await until("it is forgotten", async () => (await traces(other)).length === 0);
    await other.close();
  });
  await t.test("a visit more than 7 days later deletes it", async () => {
    const page = ben.page;
    const own = secrets(await ben.link())[0];
    const kept = () =>
      page.evaluate(
        (text) =>
          new Promise((resolve) => {
            indexedDB.open("tallow").onsuccess = ({ target }) => {
              const database = /** @type {any} */ (target).result;
              database.transaction("identities").objectStore("identities").getAll().onsuccess = (/** @type {any} */ e) => {
                database.close();
                resolve(JSON.stringify(e.target.result).includes(text));
              };
            };
          }),
        own,
      );
    const later = (/** @type {number} */ days) => {
      const now = Date.now;
      Date.now = () => now() + days * 24 * 3600 * 1000;
    };
    for (const [days, still] of /** @type {[number, boolean][]} */ ([[6.9, true], [7.1, false]])) {
      await page.goto("about:blank");
      const { identifier } = await page.evaluateOnNewDocument(later, days);
      await page.evaluateOnNewDocument(() => location.protocol.startsWith("http") && sessionStorage.clear());
      await ben.open(`${evil.url}/`);
      await ben.link();
      assert.equal(await kept(), still, `after ${days} days`);
      await page.removeScriptToEvaluateOnNewDocument(identifier);
    }
  });
  evil.hasNot(secrets(link));
});

test("the page names the program that it runs", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const program = await (await fetch(`${server.url}/tallow.wasm`)).arrayBuffer();
  const sha256 = (/** @type {Uint8Array} */ bytes) => createHash("sha256").update(bytes).digest("hex");
  const true_ = sha256(new Uint8Array(program));
  const person = await Person.arrive(t);
  await person.open(`${server.url}/`);
  await person.link();
  await person.sees(new RegExp(`code hash ${true_.slice(0, 16)}`));
  await (await person.control("DisclosureTriangle", "About")).click();
  await person.sees(new RegExp(`Version \\S+, SHA-256 of the code: ${true_}`));
  assert.doesNotMatch(await person.text(), /its server names/);

  // The same program but for a section that does nothing, while the server names the true one.
  const other = Buffer.concat([Buffer.from(program), Buffer.from([0, 2, 1, 0x61])]);
  await person.page.setRequestInterception(true);
  person.page.on("request", (request) =>
    new URL(request.url()).pathname === "/tallow.wasm" ? request.respond({ contentType: "application/wasm", body: other }) : request.continue(),
  );
  await person.page.reload();
  await person.link();
  await person.sees(new RegExp(`runs the code ${sha256(other).slice(0, 16)}, and its server names ${true_.slice(0, 16)}[^]*before you trust it`));
  assert.deepEqual(person.errors, []);
});

test("a server that is being upgraded is not complained about", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const person = await Person.arrive(t);
  let asked = 0;
  await person.page.setRequestInterception(true);
  person.page.on("request", (request) =>
    new URL(request.url()).pathname === "/version" && ++asked === 1 ? request.respond({ contentType: "application/json", body: `{"wasmSHA256":"${"0".repeat(64)}"}` }) : request.continue(),
  );
  const second = person.page.waitForResponse((response) => new URL(response.url()).pathname === "/version" && asked === 2);
  await person.open(`${server.url}/`);
  await person.sees(/code hash/);
  const answer = await second;
  assert.equal(answer.status(), 200);
  await answer.json();
  assert.doesNotMatch(await person.text(), /its server names/);
});

// These run in the page, before its scripts.

/** Lets a test put the clock of Go's runtime forward. */
function skewClock() {
  const now = performance.now.bind(performance);
  globalThis.skew = 0;
  performance.now = () => now() + globalThis.skew;
}

/** Collects "channel type epoch" of the records that are sent: PROTOCOL.md section 8. */
function watchRecords() {
  globalThis.records = new Set();
  const left = new WeakMap(); // of the record that a channel is in
  const send = RTCDataChannel.prototype.send;
  RTCDataChannel.prototype.send = function (data) {
    const message = new DataView(data.buffer, data.byteOffset, data.byteLength);
    let rest = left.get(this) ?? 0;
    if (rest === 0) {
      rest = 4 + message.getUint32(0);
      globalThis.records.add(`${this.label} ${message.getUint8(4)} ${message.getUint32(5)}`);
    }
    left.set(this, rest - message.byteLength);
    return send.call(this, data);
  };
}
