// Relay only: whom the browsers of members talk to, packet by packet, and what of their addresses they tell; with the server's own TURN and
// with coturn, over UDP and TCP. One network and three browsers serve for all of it, one part after the other. Those on the first and the third host name their
// addresses by multicast DNS, as people's browsers do: Chromium announces the name on its local network, whatever it may gather, and no page can keep it from that.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { tempDir, until, writeFile } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { Network } from "./netns.mjs";
import { Person } from "./person.mjs";
import { COTURN_PORT, coturnOnly, deliver, disobey, iceServer, meet, record, TURN_PORT, unbound } from "./relay.mjs";
import { MB } from "./underway.mjs";

const secret = "a secret that both have";
const size = 2 * MB;

/** Packets that any host sends, by which those of one network find each other: ARP, IPv6 neighbours, multicast groups. */
const usual = (/** @type {{ protocol: string }} */ { protocol }) => ["arp", "icmpv6", "igmp"].includes(protocol);

const relaysOf = (/** @type {Network} */ { address }) => [TURN_PORT, COTURN_PORT].map((port) => `${address}:${port}`);

/** Where multicast DNS goes. */
const mdns = ["224.0.0.251:5353", "[ff02::fb]:5353"];

/**
 * The addresses that a message of multicast DNS gives random names, "" for none; undefined if it says anything else.
 * @param {string} said
 */
function announced(said) {
  const b = Buffer.from(said, "base64");
  if (b.readUInt16BE(2) !== 0x8400 || b.readUInt16BE(4) !== 0 || b.readUInt16BE(8) !== 0) return undefined; // it asks something
  const addresses = [];
  let at = 12;
  for (let left = b.readUInt16BE(6) + b.readUInt16BE(10); left > 0; left--) {
    if (!/^\$[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\x05local\0$/.test(b.toString("latin1", at, at + 44))) return undefined;
    const type = b.readUInt16BE(at + 44);
    const data = b.subarray(at + 54, at + 54 + b.readUInt16BE(at + 52));
    if (type === 1) addresses.push(data.join("."));
    else if (type === 28) addresses.push(data.toString("hex"));
    else if (type !== 47) return undefined; // NSEC: the name has nothing else
    at += 54 + data.length;
  }
  return at === b.length ? addresses.map((address) => address.replace(/^(0\.0\.0\.0|0{32})$/, "")) : undefined;
}

/** Whether a flow is nothing but Chromium's naming the host's own addresses, or none. @param {import("./netns.mjs").Flow} flow @param {string[]} addresses */
const announces = ({ out, protocol, remote, said = [] }, addresses) =>
  out && protocol === "udp" && mdns.includes(remote) && said.every((one) => announced(one)?.every((address) => ["", ...addresses].includes(address)));

/**
 * What of a capture went neither to the relays nor to the origin, nor was the first host's announcement of its own name.
 * @param {import("./netns.mjs").Flow[]} flows @param {Network} network @param {number} i of whose host it is
 */
function elsewhere(flows, network, i) {
  const { host: origin, hostname } = new URL(network.url);
  const relays = relaysOf(network);
  // A packet that comes for a socket just closed is answered with ICMP, by the kernel.
  const refused = (/** @type {any} */ flow) => flow.protocol === "icmp" && flow.remote === hostname;
  const { addresses } = network.hosts[0];
  const heard = (/** @type {any} */ flow) => !flow.out && flow.protocol === "udp" && addresses.some((address) => flow.remote === `${address}:5353`);
  const named = (/** @type {any} */ flow) => (i === 0 ? announces(flow, addresses) : heard(flow));
  return flows.filter(
    (flow) => !usual(flow) && !refused(flow) && !named(flow) && !(flow.protocol === "tcp" && flow.remote === origin) && !(["udp", "tcp"].includes(flow.protocol) && relays.includes(flow.remote)),
  );
}

/** What the descriptions and candidates that a page was given name, other than the relay. @param {{ descriptions: string[], candidates: string[] }} seen @param {string} relay */
function strangers({ descriptions, candidates }, relay) {
  const lines = [...descriptions.flatMap((sdp) => sdp.split(/\r?\n/)), ...candidates];
  return lines.filter((line) => {
    const others = (line.match(/\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f]*:[0-9a-f:]+|\S+\.local/gi) ?? []).filter(
      (name) => name !== relay && name !== "0.0.0.0" && !line.startsWith("a=fingerprint:"),
    );
    return others.length > 0 || (/candidate:/.test(line) && !/ typ relay /.test(line));
  });
}

const close = (/** @type {Record<string, import("puppeteer-core").Page>} */ { sender, recipient }) =>
  Promise.all([sender, recipient].map((page) => page.browserContext().close()));

test("relay only", { timeout: 900_000 }, async (t) => {
  const network = await Network.start(t, 3, { serverArgs: ["-relay-only", "-turn-secret", secret] });
  await network.startCoturn(t, { secret, port: COTURN_PORT });
  const captures = await Promise.all(network.hosts.map((host) => host.capture(t)));
  const browsers = [];
  // They would look up names of their maker's.
  const args = [`--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE ${network.address}`];
  for (const [i, host] of network.hosts.slice(0, 2).entries()) browsers.push((await host.startBrowser(t, { args, mdns: i === 0 })).browser);
  const { browser: firefox } = await network.hosts[2].startFirefox(t, { mdns: true });

  await t.test("the server demands it: both keep to its relay", async () => {
    const { sender, recipient } = await meet(network, browsers);
    await deliver(sender, recipient, size);
    for (const page of [sender, recipient]) await hidden(page, network);
    await close({ sender, recipient });
  });

  await t.test("so does Firefox", async () => {
    const { sender, recipient } = await meet(network, [firefox, browsers[0]]);
    await deliver(sender, recipient, size);
    await deliver(recipient, sender, size);
    for (const page of [sender, recipient]) await hidden(page, network);
    await close({ sender, recipient });
  });

  await t.test("the page shows that the server demands it, and who learns the address", async () => {
    const page = await settings(browsers[0], network.url);
    const shown = await page.evaluate(() => ({
      banner: document.querySelector('#banners [data-key="relay"]')?.textContent,
      checked: document.querySelector("#relay-only").checked,
      disabled: document.querySelector("#relay-only").disabled,
      exposures: [...document.querySelectorAll("#exposures li")].map((line) => line.dataset.what),
    }));
    assert.match(shown.banner, /^Relay only, as this server demands: the others do not learn your network address\.$/);
    assert.ok(shown.checked && shown.disabled);
    assert.deepEqual(shown.exposures, ["signaling", "plain-server", "turn", "plain-relay", "turn", "plain-relay"]);
    await page.browserContext().close();
  });

  for (const transport of ["udp", "tcp"]) {
    await t.test(`the server's own TURN over ${transport}`, async () => {
      const iceServers = [iceServer(`turn:${network.address}:${TURN_PORT}?transport=${transport}`, secret, 600)];
      await relayed(await meet(network, browsers, { options: [{ iceServers }, { iceServers }] }), transport);
    });
  }

  // Its credentials come from the server, in the format that it shares with coturn.
  for (const transport of ["udp", "tcp"]) {
    await t.test(`coturn over ${transport}`, async () => {
      await network.restartServer(t, 0, ["-relay-only", ...coturnOnly(secret, transport)]);
      await relayed(await meet(network, browsers), transport);
    });
  }

  await t.test("all packets so far went to the relays and the origin, but for the name that Chromium announces on its own network", async () => {
    const relays = relaysOf(network);
    for (const [i, end] of captures.entries()) {
      const flows = await end();
      assert.deepEqual(elsewhere(flows, network, i), []);
      const names = flows.filter((flow) => announces(flow, [network.hosts[i].address])).flatMap(({ said }) => said.flatMap(announced));
      assert.equal(names.includes(network.hosts[i].address), i === 0, "the first Chromium is as people have it");
      const ways = i === 2 ? [{ relay: relays[0], over: ["udp", "tcp"] }] : relays.flatMap((relay) => [{ relay, over: ["udp"] }, { relay, over: ["tcp"] }]); // Firefox had the choice
      for (const { relay, over } of ways) {
        const bytes = flows.filter((flow) => flow.remote === relay && over.includes(flow.protocol)).reduce((sum, flow) => sum + flow.bytes, 0);
        assert.ok(bytes > size, `${bytes} bytes over ${over} to and from ${relay}: the file went there, and was counted`);
      }
    }
  });

  await network.restartServer(t, 0, ["-relay-only", "-turn-secret", secret]);

  // The browser is made to gather what it should not, or there would be nothing to keep back.
  await t.test("the server demands it: a member that takes whatever comes hears of no address, nor is one taken from it", async () => {
    for (const browser of [browsers[0], firefox]) {
      const { sender, recipient } = await meet(network, [browser, browsers[1]], { before: [[disobey, record], [unbound, record]], routed: false });
      for (const page of [recipient, sender]) await tells(page, network);
      const bound = await Promise.all([sender, recipient].map((page) => page.evaluate(() => me.room.relayOnly)));
      assert.deepEqual(bound, [true, false]);
      assert.equal(await until("a route", () => sender.evaluate(() => me.room.peers[0]?.route), 120_000), "relay");
      const gathered = await recipient.evaluate(async () => (await me.room.exposure()).map(({ what, detail }) => `${what} ${detail}`));
      assert.ok(gathered.includes("candidate host"), "it had other addresses to tell");
      await close({ sender, recipient });
    }
  });

  // The recipient takes whatever comes, so that it would notice. Firefox's connections are made anew rather than restarted.
  for (const [i, name] of /** @type {[number, string][]} */ ([[0, "Chromium"], [2, "Firefox"]])) {
    await t.test(`what ${name} does after a failure tells of nothing but the relay, and no packet goes elsewhere`, async () => {
      const host = network.hosts[i];
      const end = await host.capture(t);
      const { sender, recipient } = await meet(network, [i === 0 ? browsers[0] : firefox, browsers[1]], { before: [record, [unbound, record]], routed: false });
      const failures = {
        "the interface is down": async () => {
          await host.link(false);
          await delay(6000, undefined, { signal: t.signal });
          await host.link(true);
        },
        "the address changes": () => host.readdress(100 + i),
      };
      for (const [failure, fail] of Object.entries(failures)) {
        const seen = () => recipient.evaluate(() => ({ restarts: seen.restarts, connections: seen.configurations.length, candidates: seen.candidates.length }));
        const before = await seen();
        await fail();
        await until(`a restart, or another connection, when ${failure}`, async () => {
          const now = await seen();
          return now.candidates > before.candidates && (now.restarts > before.restarts || now.connections > before.connections);
        }, 120_000);
        const whole = () => me.room.state === "open" && me.room.peers[0]?.state === "open" && me.room.peers[0].quality !== "disconnected" && me.room.peers[0].route;
        assert.equal(await until(`a route when ${failure}`, () => sender.evaluate(whole), 120_000), "relay");
        await until(`the other end's route when ${failure}`, () => recipient.evaluate(whole), 120_000);
        await deliver(sender, recipient, size);
      }
      if (name === "Chromium") assert.ok((await recipient.evaluate(() => seen.restarts)) > 0, "a restart is among it");
      await tells(recipient, network);
      await close({ sender, recipient });
      assert.deepEqual(elsewhere(await end(), network, i), []);
    });
  }

  await network.restartServer(t, 0, ["-turn-secret", secret]);

  await t.test("a person chooses it in the page, and it stays", async () => {
    const page = await settings(browsers[0], network.url);
    assert.equal(await page.$('#banners [data-key="relay"]'), null);
    const exposures = () => page.$$eval("#exposures li", (lines) => lines.map((line) => line.dataset.what));
    assert.ok((await exposures()).includes("direct"));
    assert.ok(!(await exposures()).includes("route"), "nobody is there");
    const other = await startMember(browsers[1], network.url);
    await other.evaluate(async (link) => me.join(link), await page.$eval("#link", (field) => field.value));
    await until("the list has whom we are connected with now", async () => (await exposures()).includes("route"), 120_000);
    await other.evaluate(() => me.room.leave());
    await other.browserContext().close();
    await page.$eval("#exposure", (list) => (list.open = false)); // it may grow while a mouse is on its way
    await page.click("#relay-only");
    await Promise.all([page.waitForNavigation(), page.click("#settings-save")]);
    const chosen = () => page.$eval('#banners [data-key="relay"]', (line) => line.textContent).catch(() => "");
    await until("the banner", async () => /^Relay only: the others/.test(await chosen()), 120_000);
    await page.reload();
    await until("the banner after a reload", async () => /^Relay only: the others/.test(await chosen()), 120_000);

    // What the person then sends goes the same way.
    const end = await network.hosts[0].capture(t);
    const guest = await startMember(browsers[1], network.url, { before: record });
    await guest.evaluate(async (link) => me.join(link), await page.$eval("#link", (field) => field.value));
    const received = guest.evaluate(async () => me.sha256(await (await (await me.offer()).accept().finished).files[0].file()));
    const file = await writeFile(tempDir(t), "file.bin", size);
    const person = new Person(page, "");
    await person.sees(/Connected · \w+ · relayed/, 120_000);
    await person.choose(file.file);
    await person.press("Send");
    assert.equal(await received, file.sha256);
    const flows = await end();
    assert.deepEqual(elsewhere(flows, network, 0), []);
    assert.ok(flows.some(({ remote, bytes }) => remote === relaysOf(network)[0] && bytes > size), "the file went to the relay");
    await tells(guest, network);
    await guest.browserContext().close();

    await page.click("#open-settings");
    assert.equal(await page.$eval("#relay-only", (box) => box.checked && !box.disabled), true);
    await page.browserContext().close();
  });

  await t.test("who was in the room relay only comes back so", async () => {
    const enter = (/** @type {import("puppeteer-core").Page} */ page, /** @type {object} */ given) =>
      page.evaluate(async (options) => {
        const { load } = await import("/tallow.js");
        const tallow = await load();
        const [known] = await tallow.remembered();
        const room = known ? await tallow.joinRoom(known.link, options) : await tallow.createRoom(options);
        return room.relayOnly;
      }, given);
    const page = await (await browsers[0].createBrowserContext()).newPage();
    const results = [];
    for (const options of [{ relayOnly: true }, {}, { relayOnly: false }, {}]) {
      await page.goto(`${network.url}/healthz`);
      results.push(await enter(page, options));
    }
    assert.deepEqual(results, [true, true, false, false]);
    await page.browserContext().close();
  });

  await t.test("a browser that gathers what it should not: nobody hears of it, and the page says so", async () => {
    // The recipient takes whatever comes.
    const { sender, recipient } = await meet(network, browsers, { before: [disobey, record], options: [{ relayOnly: true }, {}] });
    assert.equal(await sender.evaluate(() => me.room.peers[0].route), "relay");
    await until("the leak is told", () => sender.evaluate(() => me.events.some(({ type, code }) => type === "error" && code === "address-leak")), 120_000);
    await tells(recipient, network);
    const leaks = await sender.evaluate(async () => (await me.room.exposure()).filter(({ leak }) => leak));
    assert.ok(leaks.some(({ what, to, detail }) => what === "candidate" && to === "nobody" && detail === "host"), JSON.stringify(leaks));
    await close({ sender, recipient });
  });

  await t.test("Firefox tells a member that takes whatever comes of nothing but its relay", async () => {
    const { sender, recipient } = await meet(network, [firefox, browsers[0]], { options: [{ relayOnly: true }, {}] });
    await tells(recipient, network);
    await close({ sender, recipient });
  });

  await t.test("without it they talk directly: the capture sees it", async () => {
    const end = await network.hosts[0].capture(t);
    const { sender, recipient } = await meet(network, browsers);
    // A busy machine may have found the way through the relay first.
    for (const page of [sender, recipient]) await until("a direct route", () => page.evaluate(() => me.room.peers[0].route === "direct"), 120_000);
    await deliver(sender, recipient, size);
    const { relayOnly, exposure } = await sender.evaluate(async () => ({
      relayOnly: me.room.relayOnly,
      exposure: (await me.room.exposure()).map(({ what, detail, leak }) => `${what} ${detail} ${leak}`),
    }));
    assert.equal(relayOnly, false);
    for (const line of ["direct  false", "candidate host false", `stun stun:${network.address}:${TURN_PORT} false`]) assert.ok(exposure.includes(line), line);
    assert.ok(exposure.some((line) => line.startsWith("route ")));
    const flows = await end();
    assert.ok(flows.some(({ remote, bytes }) => remote.startsWith(`${network.hosts[1].address}:`) && bytes > size));
    assert.notDeepEqual(strangers(await recipient.evaluate(() => globalThis.seen), network.address), []);
    await close({ sender, recipient });
  });
});

/**
 * What a page was given of the other one names nothing but the relay. That says what the other one told only where the page's own member is not
 * relay only: such a one drops the rest itself.
 * @param {import("puppeteer-core").Page} page @param {Network} network
 */
async function tells(page, network) {
  const seen = await page.evaluate(() => globalThis.seen);
  assert.ok(seen.descriptions.length > 0 && seen.candidates.length > 0, "something was told");
  assert.deepEqual(strangers(seen, network.address), []);
}

/**
 * What a member whom the server hides knows of itself.
 * @param {import("puppeteer-core").Page} page @param {Network} network
 */
async function hidden(page, network) {
  const { relayOnly, route, exposure, configurations, errors } = await page.evaluate(async () => ({
    relayOnly: me.room.relayOnly,
    route: me.room.peers[0].route,
    exposure: await me.room.exposure(),
    configurations: globalThis.seen.configurations,
    errors: me.events.filter(({ type }) => type === "error"),
  }));
  assert.ok(relayOnly);
  assert.equal(route, "relay");
  assert.ok(configurations.length > 0);
  assert.deepEqual(configurations.map((c) => c.iceTransportPolicy), configurations.map(() => "relay"));
  assert.deepEqual(errors, []);
  const ws = `${network.url.replace("http", "ws")}/ws`;
  const turn = ["udp", "tcp"].map((transport) => `turn:${network.address}:${TURN_PORT}?transport=${transport}`);
  assert.deepEqual(exposure, [
    { what: "signaling", to: "server", detail: ws, leak: false },
    { what: "plain-server", to: "network", detail: ws, leak: false },
    ...turn.flatMap((detail) => [
      { what: "turn", to: "server", detail, leak: false },
      { what: "plain-relay", to: "network", detail, leak: false },
    ]),
  ]);
}

/**
 * The page, in a room of its own, with its settings open and the list of exposures in them.
 * @param {import("puppeteer-core").Browser} browser @param {string} url
 */
async function settings(browser, url) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(120_000);
  await page.setViewport({ width: 900, height: 1000 });
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector("#link").value !== "");
  await page.click("#open-settings");
  await page.waitForSelector("#exposure:not([hidden])");
  await page.click("#exposure summary");
  return page;
}

/**
 * Delivers through a relay that is reached over that protocol.
 * @param {Record<string, import("puppeteer-core").Page>} pages @param {string} transport
 */
async function relayed({ sender, recipient }, transport) {
  for (const page of [sender, recipient]) {
    const { route, protocol } = await page.evaluate(() => ({ route: me.room.peers[0].route, protocol: me.room.peers[0].protocol }));
    assert.deepEqual({ route, protocol }, { route: "relay", protocol: transport });
  }
  await deliver(sender, recipient, size);
  await close({ sender, recipient });
}
