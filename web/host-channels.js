// @ts-check
// The host's part for peer connections: data channels whose messages go from and into Go's memory, and what pion's browser
// build does not reach. Go's half: internal/core/peer/channel_js.go and conn_js.go.

// Events of a channel, as in channel_js.go.
const eventOpen = 1;
const eventMessages = 2;
const eventLow = 3;
const eventClosed = 4;
const eventText = 5;
const eventOverrun = 6;

// What may wait of a channel until Go reads it (maxUnread in channel_js.go). A browser cannot slow the remote down.
const maxUnread = 32 << 20;
// How long a message is at most (PROTOCOL.md section 8): those of a fast sender are, but for the last one of a record.
const messageSize = 65536;
// What a message counts besides its bytes, so that the bound holds for small ones as well.
const messageCost = 256;

// Takes the place of a message that has been read, whose memory may go.
const read = new ArrayBuffer(0);

// In the order of candidateTypes and protocols in conn_js.go.
const candidateTypes = ["", "host", "srflx", "prflx", "relay"];
const protocols = ["", "udp", "tcp", "tls"];

/**
 * @typedef {object} Watched
 * @property {RTCDataChannel} channel
 * @property {ArrayBuffer[]} waiting messages that Go has not read
 * @property {number} head the index of the oldest
 * @property {number} unread what they count
 * @property {boolean} told Go knows that messages wait, and has not found none since
 * @property {number} need how many messages of full length Go waits for: the rest of a record is of no use to it in pieces
 * @property {number} until when it does, by performance.now(): one that comes later it is told of at once
 */

/**
 * What was last read, in the order of rawStats in conn_js.go, the id of the pair that was selected, and by its id each pair that has carried
 * anything, as it was when it was last in a report.
 * @typedef {{ values: Float64Array, pair: string | undefined, carriers: Map<string, any> }} Statistics
 */

/** @param {import("./host.js").HostContext} host */
export default function channels(host) {
  /** @type {Map<number, Watched>} */
  const watched = new Map();
  /** @type {WeakMap<RTCPeerConnection, Statistics>} */
  const statistics = new WeakMap();

  /** @param {RTCDataChannel} channel */
  function unwatch(channel) {
    channel.onopen = channel.onmessage = channel.onbufferedamountlow = channel.onclose = null;
  }

  return {
    /** @param {number} handle @param {number} target @param {number} low */
    channel_watch(handle, target, low) {
      /** @type {RTCDataChannel} */
      const channel = host.object(handle);
      /** @type {Watched} */
      const state = { channel, waiting: [], head: 0, unread: 0, told: false, need: 1, until: 0 };
      watched.set(handle, state);
      channel.binaryType = "arraybuffer";
      channel.bufferedAmountLowThreshold = low;
      /** @param {number} event */
      const refuse = (event) => {
        unwatch(channel);
        channel.close();
        host.complete(target, event);
      };
      channel.onmessage = ({ data }) => {
        if (typeof data === "string") return refuse(eventText);
        state.unread += data.byteLength + messageCost;
        if (state.unread > maxUnread) return refuse(eventOverrun);
        state.waiting.push(data);
        // need counts messages of full length. A shorter one may end a record, as each may of a sender that cuts shorter ones for a slow path, and a longer one is
        // a violation: Go should see either at once.
        if (!state.told && (state.waiting.length - state.head >= state.need || data.byteLength !== messageSize || performance.now() >= state.until)) {
          state.told = true;
          host.complete(target, eventMessages);
        }
      };
      channel.onopen = () => host.complete(target, eventOpen);
      channel.onbufferedamountlow = () => host.complete(target, eventLow);
      channel.onclose = () => host.complete(target, eventClosed);
    },

    /** 0, or -1 when the channel does not take it. @param {number} handle @param {number} ptr @param {number} length */
    channel_send(handle, ptr, length) {
      const state = watched.get(handle);
      if (!state) return -1;
      try {
        state.channel.send(host.bytes(ptr, length));
        return 0;
      } catch {
        return -1;
      }
    },

    /** @param {number} handle */
    channel_buffered: (handle) => watched.get(handle)?.channel.bufferedAmount ?? 0,

    /**
     * The length of the oldest waiting message, whose first 4 bytes go to head. -1: none waits, and Go is told when need do, or when one comes after within ms.
     * @param {number} handle @param {number} head @param {number} need @param {number} within
     */
    channel_peek(handle, head, need, within) {
      const state = watched.get(handle);
      if (!state) return -1;
      if (state.head === state.waiting.length) {
        state.told = false;
        state.need = need;
        state.until = performance.now() + within;
        return -1;
      }
      const message = state.waiting[state.head];
      host.bytes(head, 4).set(new Uint8Array(message, 0, Math.min(4, message.byteLength)));
      return message.byteLength;
    },

    /**
     * The length of the oldest waiting message, which goes to ptr and waits no longer; -1: none waits; -2: it is longer than size.
     * @param {number} handle @param {number} ptr @param {number} size
     */
    channel_receive(handle, ptr, size) {
      const state = watched.get(handle);
      if (!state || state.head === state.waiting.length) return -1;
      const message = state.waiting[state.head];
      if (message.byteLength > size) return -2;
      const length = host.move(ptr, message);
      state.unread -= length + messageCost;
      state.waiting[state.head++] = read;
      if (state.head * 2 >= state.waiting.length) {
        state.waiting.splice(0, state.head);
        state.head = 0;
      }
      return length;
    },

    /** Closes the channel, and goes on reporting. @param {number} handle */
    channel_hang_up: (handle) => watched.get(handle)?.channel.close(),

    /** Closes the channel and forgets it. @param {number} handle */
    channel_drop(handle) {
      const state = watched.get(handle);
      if (!state) return;
      watched.delete(handle);
      unwatch(state.channel);
      state.channel.close();
    },

    /**
     * Adds the candidate of an RTCIceCandidateInit, its texts by pointer and length. Completes op with 0 or -1.
     * @param {number} handle @param {number} ptr @param {number} length @param {number} mid @param {number} midLength
     * @param {number} index -1: none @param {number} fragment @param {number} fragmentLength @param {number} op
     */
    peer_add_candidate(handle, ptr, length, mid, midLength, index, fragment, fragmentLength, op) {
      /** @type {RTCIceCandidateInit} */
      const init = { candidate: host.text(ptr, length) };
      if (midLength > 0) init.sdpMid = host.text(mid, midLength);
      if (index >= 0) init.sdpMLineIndex = index;
      if (fragmentLength > 0) init.usernameFragment = host.text(fragment, fragmentLength);
      host.object(handle).addIceCandidate(init).then(
        () => host.complete(op, 0),
        () => host.complete(op, -1),
      );
    },

    /** Waits for box.promise, whose outcome goes to box.value or box.error. Completes op with 0 or -1. @param {number} handle @param {number} op */
    peer_settle(handle, op) {
      /** @type {{ promise: Promise<any>, value?: any, error?: any }} */
      const box = host.object(handle);
      box.promise.then(
        (value) => {
          box.value = value;
          host.complete(op, 0);
        },
        (error) => {
          box.error = error;
          host.complete(op, -1);
        },
      );
    },

    /** Gathers statistics for peer_read_stats and completes op with 0 or -1. @param {number} handle @param {number} op */
    peer_stats(handle, op) {
      /** @type {RTCPeerConnection} */
      const connection = host.object(handle);
      connection.getStats().then(
        (report) => {
          statistics.set(connection, summarize(report, statistics.get(connection)));
          host.complete(op, 0);
        },
        () => host.complete(op, -1),
      );
    },

    /** Writes the last statistics (rawStats in conn_js.go). 0, or -1: there are none. @param {number} handle @param {number} out */
    peer_read_stats(handle, out) {
      const values = statistics.get(host.object(handle))?.values;
      if (!values) return -1;
      host.bytes(out, values.byteLength).set(new Uint8Array(values.buffer));
      return 0;
    },
  };
}

/** @param {RTCStatsReport} report @param {Statistics | undefined} last @returns {Statistics} */
function summarize(report, last) {
  const values = new Float64Array(10);
  /** @type {any} */
  let transport;
  /** @type {any[]} */
  const pairs = [];
  for (const entry of report.values()) {
    if (entry.type === "transport") transport = entry;
    if (entry.type === "candidate-pair") pairs.push(entry);
  }
  // Older Firefoxes have no transport that names the pair, but mark it.
  const pair = report.get(transport?.selectedCandidatePairId) ?? pairs.find((p) => p.selected);
  // Firefox counts per pair only: another one may have carried the beginning, and have gone since. It counts no packets, and no checks that it sends.
  /** @type {Map<string, any>} */
  const carriers = new Map(last?.carriers);
  for (const p of pairs) if (p.bytesSent || p.bytesReceived) carriers.set(p.id, p);
  /** @param {string} name */
  const count = (name) => transport?.[name] ?? [...carriers.values()].reduce((sum, p) => sum + (p[name] ?? 0), 0);
  values.set(["bytesSent", "bytesReceived", "packetsSent", "packetsReceived"].map(count));
  const changes = last?.values[9] ?? 0;
  if (!pair) {
    values[9] = changes;
    return { values, pair: last?.pair, carriers };
  }
  const local = report.get(pair.localCandidateId);
  const remote = report.get(pair.remoteCandidateId);
  /** @param {string[]} names @param {string | undefined} name */
  const index = (names, name) => Math.max(0, names.indexOf(name ?? ""));
  values.set(
    [
      pair.requestsSent ?? 0,
      pair.responsesReceived ?? 0,
      // A relay that sees itself under another address than it told is a peer-reflexive candidate, and a relay.
      index(candidateTypes, local?.relayProtocol ? "relay" : local?.candidateType),
      index(candidateTypes, remote?.candidateType),
      index(protocols, local?.relayProtocol ?? local?.protocol),
      changes + (pair.id === last?.pair ? 0 : 1),
    ],
    4,
  );
  return { values, pair: pair.id, carriers };
}
