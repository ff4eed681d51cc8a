// Transfers through a relay that outlast many times the credentials they began with: a minute, the least that the server takes. Browsers renew their
// permissions every 4 minutes and the allocation after 9, each time with the credentials that they made it with.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { until } from "./harness.mjs";
import { startMember } from "./member.mjs";
import { Network } from "./netns.mjs";
import { COTURN_PORT, coturnOnly, deliver, meet } from "./relay.mjs";
import { MB } from "./underway.mjs";

const secret = "a secret that both have";
const size = 72 * MB;
const rate = 1; // Mbit/s

describe("credentials expire under way", { concurrency: true }, () => {
  for (const kind of ["the server's own TURN", "coturn"]) {
    test(kind, { timeout: 1_800_000 }, async (t) => {
      const serverArgs = ["-relay-only", "-turn-ttl", "1m", ...(kind === "coturn" ? coturnOnly(secret) : [])];
      const network = await Network.start(t, 2, { serverArgs });
      if (kind === "coturn") await network.startCoturn(t, { secret, port: COTURN_PORT });
      const browsers = [];
      for (const host of network.hosts) browsers.push((await host.startBrowser(t)).browser);
      const { sender, recipient } = await meet(network, browsers);
      await network.hosts[0].cap({ up: rate });
      const start = performance.now();
      await deliver(sender, recipient, size, { patience: 1_500_000 });
      const minutes = (performance.now() - start) / 60_000;
      t.diagnostic(`${minutes.toFixed(1)} minutes`);
      assert.ok(minutes > 10, "longer than an allocation lives that is not refreshed");
      for (const page of [sender, recipient]) {
        const states = await page.evaluate(() => me.events.filter(({ type }) => type === "peerchange").map(({ state }) => state));
        const opened = states.indexOf("open");
        assert.ok(opened >= 0);
        assert.deepEqual(states.slice(opened).filter((state) => state !== "open"), [], "over one connection");
        assert.equal(await page.evaluate(() => me.room.peers[0].route), "relay");
      }
      // Who comes now connects with credentials that are good now, on all sides.
      const third = await startMember(browsers[1], network.url);
      await third.evaluate(async (link) => me.join(link, { name: "third" }), await sender.evaluate(() => me.room.link));
      await third.evaluate(() => me.meets(2, 120_000));
      await until("a route", () => third.evaluate(() => me.room.peers.every(({ route }) => route === "relay")), 60_000);
    });
  }
});
