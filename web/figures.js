// @ts-check
// The details of a person's connection: its figures, and a plot of the last minute. Read once a second, and only while they are open.

import { count, duration, el, say, size } from "./view.js";

/** @typedef {import("./tallow.js").Peer} Peer @typedef {import("./tallow.js").PeerStats} PeerStats */

const EVERY = 1000;
/** How far back the plots go, in seconds. */
const SPAN = 60;
/** After a longer time between two readings the line is interrupted, in seconds. */
const GAP = 5;

const ROUTES = { direct: "Direct", relay: "Through a relay" };
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const rate = (/** @type {number} */ bytes) => `${size(Math.round(bytes))}/s`;
const ms = (/** @type {number} */ n) => (n === 0 ? "–" : n < 10 ? `${n.toFixed(1)} ms` : `${whole.format(n)} ms`);

/** @typedef {{ at: number, send: number, receive: number, rtt: number }} Reading */

export class Figures {
  #peer;
  /** @type {Reading[]} */
  #readings = [];
  #reading = false;
  #summary = el("summary", {}, "Details");
  #rates = new Plot("Rate", ["Sending", "Receiving"], rate, 1000);
  #rtts = new Plot("Round trip", ["Round trip"], ms, 10);
  /** @type {Map<string, HTMLElement>} */
  #values = new Map();
  #list = el("dl");

  /** @param {() => Peer} peer the newest snapshot */
  constructor(peer) {
    this.#peer = peer;
    this.element = el("details", { class: "figures", ontoggle: () => this.element.open && this.#read() }, this.#summary, this.#rates.element, this.#rtts.element, this.#list);
  }

  /** @param {string} name whose they are */
  update(name) {
    this.#summary.setAttribute("aria-label", `Details of the connection to ${name}`);
  }

  async #read() {
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.element.open && this.element.isConnected) {
        this.#show(await this.#peer().stats());
        await new Promise((resolve) => setTimeout(resolve, EVERY));
      }
    } catch {
      // The room has ended, or this person has just left it: what is there stays.
    } finally {
      this.#reading = false;
    }
  }

  /** @param {PeerStats} s */
  #show(s) {
    const now = performance.now() / 1000;
    this.#readings.push({ at: now, send: s.sendRate, receive: s.receiveRate, rtt: s.currentRTT });
    this.#readings = this.#readings.filter((reading) => reading.at > now - SPAN - GAP);
    const line = (/** @type {(r: Reading) => number} */ value) => this.#readings.map((r) => ({ age: now - r.at, value: value(r) }));
    this.#rates.draw([line((r) => r.send), line((r) => r.receive)]);
    this.#rtts.draw([line((r) => r.rtt)]);

    this.#say("Round trip", s.rtt === 0 ? "not known yet" : `${ms(s.rtt)}, the last one ${ms(s.currentRTT)}`);
    this.#say("Loss", s.loss < 0 ? "not known" : `${whole.format(100 * s.loss)} % of checks`);
    this.#say("Sending", `${rate(s.sendRate)}, ${rate(s.meanSendRate)} on average`);
    this.#say("Receiving", `${rate(s.receiveRate)}, ${rate(s.meanReceiveRate)} on average`);
    this.#say("Sent", volume(s.bytesSent, s.packetsSent));
    this.#say("Received", volume(s.bytesReceived, s.packetsReceived));
    const again = s.chunksResent > 0 ? `, ${whole.format(s.chunksResent)} of them again` : "";
    this.#say("Files to them", `${size(s.payloadSent)} in ${chunks(s.chunksSent)}${again}`);
    this.#say("Files from them", `${size(s.payloadReceived)} in ${chunks(s.chunksVerified)}, verified`);
    this.#say("Route", s.route ? [ROUTES[s.route], s.protocol.toUpperCase()].filter(Boolean).join(", ") : "none");
    this.#say("Connected", `${s.uptime > 0 ? `for ${duration(s.uptime)}` : "no"}${s.reconnects > 0 ? `, lost and found ${count(s.reconnects, "time")}` : ""}`);
  }

  /** @param {string} name @param {string} text */
  #say(name, text) {
    let value = this.#values.get(name);
    if (!value) {
      value = el("dd");
      this.#values.set(name, value);
      this.#list.append(el("div", {}, el("dt", {}, name), value));
    }
    if (value.textContent === text) return;
    // A narrow line breaks between what is said, and not within.
    value.replaceChildren(...text.split(/(?<=,) /).flatMap((part, i) => [i > 0 ? " " : "", el("span", {}, part)]));
  }
}

/** @param {number} bytes @param {number} packets */
const volume = (bytes, packets) => (packets < 0 ? size(bytes) : `${size(bytes)} in ${whole.format(packets)} ${packets === 1 ? "packet" : "packets"}`);

/** @param {number} n */
const chunks = (n) => `${whole.format(n)} ${n === 1 ? "chunk" : "chunks"}`;

/** Lines over the last minute, the newest at the right. */
class Plot {
  #top = el("span", { class: "top" });
  #now;
  #paths;
  #picture;

  /**
   * @param {string} title
   * @param {string[]} names of its lines
   * @param {(value: number) => string} words
   * @param {number} least the lowest top of the scale
   */
  constructor(title, names, words, least) {
    this.title = title;
    this.names = names;
    this.words = words;
    this.least = least;
    this.#paths = names.map(() => svg("path"));
    this.#picture = svg("svg", { viewBox: `0 0 ${SPAN} 100`, preserveAspectRatio: "none", role: "img" }, ...this.#paths);
    this.#now = names.map(() => el("span", { class: "now" }));
    const legend = names.map((name, i) => el("span", { class: "key" }, svg("svg", { viewBox: "0 0 14 6", "aria-hidden": "true" }, svg("path", { d: "M0 3H14" })), `${name} `, this.#now[i]));
    this.element = el("div", { class: "plot" }, el("p", { class: "legend" }, ...legend, this.#top), this.#picture, el("p", { class: "span", "aria-hidden": "true" }, el("span", {}, `${SPAN} s ago`), el("span", {}, "now")));
  }

  /** @param {{ age: number, value: number }[][]} lines oldest first */
  draw(lines) {
    const shown = lines.map((line) => line.filter(({ age }) => age <= SPAN));
    const highest = shown.map((line) => Math.max(0, ...line.map(({ value }) => value)));
    const top = ceiling(Math.max(this.least, ...highest));
    lines.forEach((line, i) => {
      const steps = line.map(({ age, value }, n) => {
        const start = n === 0 || line[n - 1].age - age > GAP;
        return `${start ? "M" : "L"}${(SPAN - age).toFixed(2)} ${(100 - (100 * value) / top).toFixed(2)}`;
      });
      this.#paths[i].setAttribute("d", steps.join(""));
      say(this.#now[i], this.words(line.at(-1)?.value ?? 0));
    });
    say(this.#top, `up to ${this.words(top)}`);
    const told = this.names.map((name, i) => `${name} ${this.words(shown[i].at(-1)?.value ?? 0)} now, ${this.words(highest[i])} at most`);
    this.#picture.setAttribute("aria-label", `${this.title} over the last ${SPAN} seconds: ${told.join("; ")}`);
  }
}

/** The next round number: 1, 2 or 5 times a power of ten. @param {number} n */
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= n) ?? 10 * power;
}

/** @param {string} tag @param {Record<string, string>} [attributes] @param {...Node} children */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
