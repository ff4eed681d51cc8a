// A network of the test's own: the server and each browser in a network namespace, joined by a bridge, with links whose rate can be capped
// and that can be cut. Needs root. Everything is removed when the test ends.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { captureBinary, chromium, firefox, startBrowser, startServer, tempDir, until } from "./harness.mjs";

const run = promisify(execFile);
let networks = 0;

/** The hub's address, in every Network. */
export const HUB = "10.77.0.1";

/**
 * Packets of a kind, one way (e2e/capture). said: what multicast DNS told everybody with them, in base64.
 * @typedef {{ out: boolean, protocol: string, remote: string, packets: number, bytes: number, said?: string[] }} Flow
 */

/** A host of a Network. */
class Host {
  /** @param {Network} network @param {number} number */
  constructor(network, number) {
    this.network = network;
    this.namespace = `${network.prefix}h${number}`;
    /** The host's end of its link, and the bridge's end of it in the hub's namespace. */
    this.device = `${network.prefix}v${number}`;
    this.port = `${network.prefix}p${number}`;
    this.address = `10.77.0.${number + 1}`;
    /** All that it has had. */
    this.addresses = [this.address];
  }

  /** Runs a command on this host. @param {...string} command */
  run(...command) {
    return run("ip", ["netns", "exec", this.namespace, ...command]);
  }

  /**
   * Caps the link with HTB.
   * @param {{ up?: number, down?: number }} rates in Mbit/s; undefined: not capped
   */
  async cap({ up, down }) {
    await cap(this.namespace, this.device, up);
    await cap(this.network.hub, this.port, down);
  }

  /** Takes the link down, or up again. @param {boolean} up */
  async link(up) {
    await this.run("ip", "link", "set", this.device, up ? "up" : "down");
    if (up) await this.route();
  }

  /** Gives the host another address. @param {number} number the last of its four parts */
  async readdress(number) {
    await this.run("ip", "addr", "flush", "dev", this.device);
    this.address = `10.77.0.${number}`;
    this.addresses.push(this.address);
    await this.run("ip", "addr", "add", `${this.address}/24`, "dev", this.device);
    await this.route();
  }

  /** What has gone out over the link so far, in bytes, with every header. */
  async sent() {
    const { stdout } = await this.run("ip", "-s", "-j", "link", "show", "dev", this.device);
    return JSON.parse(stdout)[0].stats64.tx.bytes;
  }

  /** What waits before the capped link now, in bytes, with every header. */
  async queued() {
    const { stdout } = await this.run("tc", "-s", "-j", "qdisc", "show", "dev", this.device, "root");
    return JSON.parse(stdout)[0].backlog;
  }

  /**
   * Counts every packet that enters or leaves this host from now on.
   * @param {import("node:test").TestContext} t
   * @returns {Promise<() => Promise<Flow[]>>} ends it
   */
  async capture(t) {
    const child = spawn("ip", ["netns", "exec", this.namespace, captureBinary], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => child.kill());
    const ended = once(child, "exit").then(([code]) => Promise.reject(new Error(`capture ended at once: ${code}`)));
    ended.catch(() => {}); // later on it is to end
    const [ready] = await Promise.race([once(child.stdout, "data"), ended]);
    if (String(ready) !== "ready\n") throw new Error(`capture said ${ready}`);
    return async () => {
      const output = text(child.stdout);
      child.stdin.end();
      const { flows, dropped } = JSON.parse(await output);
      if (dropped > 0) throw new Error(`${dropped} packets were not seen`);
      return flows;
    };
  }

  /** Browsers look for the address of their default route. */
  route() {
    return this.run("ip", "route", "replace", "default", "via", this.network.address);
  }

  /**
   * A Chromium on this host. Pages of the network's server count as secure.
   * @param {import("node:test").TestContext} t @param {{ args?: string[], throttled?: boolean, mdns?: boolean }} [options]
   */
  startBrowser(t, { args = [], ...rest } = {}) {
    return startBrowser(t, {
      ...rest,
      executable: this.network.wrapper(t, this, chromium),
      args: [`--unsafely-treat-insecure-origin-as-secure=${this.network.url}`, ...args],
    });
  }

  /**
   * A Firefox on this host, which looks up no names. Pages of the network's server count as secure.
   * @param {import("node:test").TestContext} t @param {{ mdns?: boolean }} [options]
   */
  async startFirefox(t, options) {
    return startBrowser(t, {
      ...options,
      kind: "firefox",
      executable: this.network.wrapper(t, this, firefox),
      port: await this.forward(t),
      preferences: { "dom.securecontext.allowlist": this.network.address, "network.dns.disabled": true },
    });
  }

  /** A port of ours whose connections go on to the same port of this host's loopback: the driver talks to Firefox over one. @param {import("node:test").TestContext} t */
  async forward(t) {
    const server = net.createServer((socket) => {
      const { port } = /** @type {net.AddressInfo} */ (server.address());
      const program = `const s = require("node:net").connect(${port}, "127.0.0.1"); process.stdin.pipe(s).pipe(process.stdout); s.on("close", () => process.exit())`;
      const child = spawn("ip", ["netns", "exec", this.namespace, process.execPath, "-e", program], { stdio: ["pipe", "pipe", "inherit"] });
      socket.pipe(child.stdin);
      child.stdout.pipe(socket);
      for (const end of [socket, child.stdin]) end.on("error", () => child.kill()); // either browser or driver has gone
    });
    t.after(() => server.close());
    await once(server.listen(0, "127.0.0.1"), "listening");
    return /** @type {net.AddressInfo} */ (server.address()).port;
  }
}

/** @param {string} namespace @param {string} device @param {number | undefined} rate in Mbit/s */
async function cap(namespace, device, rate) {
  const tc = (/** @type {string[]} */ ...args) => run("ip", ["netns", "exec", namespace, "tc", ...args]);
  await tc("qdisc", "del", "dev", device, "root").catch(() => {}); // there may be none
  if (rate === undefined) return;
  await tc("qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1");
  await tc("class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", "rate", `${rate}mbit`, "burst", "15k");
}

export class Network {
  /**
   * @param {import("node:test").TestContext} t
   * @param {number} hosts
   * @param {{ serverArgs?: string[] }} [options]
   */
  static async start(t, hosts, { serverArgs = [] } = {}) {
    if (process.getuid?.() !== 0) throw new Error("network namespaces need root: run this as root or with sudo");
    const network = new Network();
    t.after(() => network.remove());
    await network.make(hosts);
    await network.startServer(t, serverArgs);
    return network;
  }

  constructor() {
    this.prefix = `tlw${process.pid.toString(36)}${(networks++).toString(36)}`;
    this.hub = `${this.prefix}hub`;
    this.address = HUB;
    /** @type {Host[]} */
    this.hosts = [];
    this.url = "";
  }

  /** @param {number} hosts */
  async make(hosts) {
    const inHub = (/** @type {string[]} */ ...args) => run("ip", ["-n", this.hub, ...args]);
    const bridge = `${this.prefix}br`;
    await run("ip", ["netns", "add", this.hub]);
    await inHub("link", "set", "lo", "up");
    await inHub("link", "add", bridge, "type", "bridge");
    await inHub("addr", "add", `${this.address}/24`, "dev", bridge);
    await inHub("link", "set", bridge, "up");
    for (let i = 1; i <= hosts; i++) {
      const host = new Host(this, i);
      this.hosts.push(host);
      await run("ip", ["netns", "add", host.namespace]);
      await inHub("link", "add", host.port, "type", "veth", "peer", "name", host.device, "netns", host.namespace);
      await inHub("link", "set", host.port, "master", bridge, "up");
      await host.run("ip", "link", "set", "lo", "up");
      await host.run("ip", "addr", "add", `${host.address}/24`, "dev", host.device);
      await host.link(true);
    }
    // A second after a link is up IPv6 takes its address, too. Chromium ends whatever it loads at such a change, with ERR_NETWORK_CHANGED.
    for (const host of this.hosts)
      await until(`${host.namespace} has all its addresses`, async () => {
        const { stdout } = await host.run("ip", "-j", "addr", "show", "dev", host.device);
        return JSON.parse(stdout)[0].addr_info.every((/** @type {any} */ a) => !a.tentative);
      });
  }

  /** Starts the server, on the hub. @param {import("node:test").TestContext} t @param {string[]} args @param {string} [addr] */
  async startServer(t, args = [], addr = `${this.address}:0`) {
    this.server = await startServer(t, { addr, args, command: ["ip", "netns", "exec", this.hub] });
    this.url = this.server.url;
    return this.server;
  }

  /**
   * Starts coturn on the hub, with the REST API's credentials.
   * @param {import("node:test").TestContext} t @param {{ secret: string, port: number }} options
   * @returns {Promise<{ kill: () => Promise<unknown> }>} kill waits
   */
  async startCoturn(t, { secret, port }) {
    const dir = tempDir(t);
    const args = [
      "-n", "--no-cli", "--no-tls", "--no-dtls", `--listening-ip=${this.address}`, `--listening-port=${port}`, `--relay-ip=${this.address}`,
      "--use-auth-secret", `--static-auth-secret=${secret}`, "--realm=tallow.test", `--pidfile=${dir}/pid`, "--log-file=stdout",
    ];
    const child = spawn("ip", ["netns", "exec", this.hub, "turnserver", ...args], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    const kill = () => {
      child.kill("SIGKILL");
      return ended;
    };
    t.after(kill);
    let log = "";
    child.stdout.on("data", (data) => (log = (log + data).slice(-100_000)));
    await until("coturn listens", async () => {
      if (child.exitCode !== null) throw new Error(`coturn ended at once: ${log}`);
      const { stdout } = await run("ip", ["netns", "exec", this.hub, "ss", "-Hlun", "sport", "=", `:${port}`]);
      const tcp = await run("ip", ["netns", "exec", this.hub, "ss", "-Hltn", "sport", "=", `:${port}`]);
      return stdout.trim() && tcp.stdout.trim();
    }, 60_000);
    return { kill };
  }

  /**
   * Kills the server, and starts it again at the same address after some time.
   * @param {import("node:test").TestContext} t @param {number} ms @param {string[]} [args]
   */
  async restartServer(t, ms, args = []) {
    const { addr } = this.server;
    await this.server.kill();
    await delay(ms, undefined, { signal: t.signal });
    await this.startServer(t, args, addr);
  }

  /** A program that starts another one on that host. @param {import("node:test").TestContext} t @param {Host} host @param {string} program */
  wrapper(t, host, program) {
    const file = path.join(tempDir(t), "start");
    fs.writeFileSync(file, `#!/bin/sh\nexec ip netns exec ${host.namespace} ${program} "$@"\n`, { mode: 0o755 });
    return file;
  }

  remove() {
    for (const name of [this.hub, ...this.hosts.map((host) => host.namespace)]) {
      try {
        execFileSync("ip", ["netns", "del", name], { stdio: "ignore" });
      } catch {
        // it was not made
      }
    }
  }
}
