// @ts-check
// The host's compression: raw DEFLATE streams from and into Go's memory. Go's half: internal/bridge/bytes/deflate_js.go.

/** The statuses of internal/bridge/bytes/error_js.go. With failed comes the handle of a text. */
const ok = 0;
const inauthentic = 1;
const failed = -1;

/**
 * How much goes into a stream at a time. Browsers put out all that a piece becomes before anybody can stop them, and that is up to a
 * thousand times as much.
 */
const inflatePiece = 2 << 10;
const deflatePiece = 64 << 10;

const available = (() => {
  try {
    return Boolean(new CompressionStream("deflate-raw") && new DecompressionStream("deflate-raw"));
  } catch {
    return false;
  }
})();

/** @param {import("./host.js").HostContext} host */
export default function deflatePart(host) {
  /**
   * Sends bytes of Go's through a stream and back. Resolves with how many came out; with more than capacity, it has stopped there.
   * @param {GenericTransformStream} stream @param {number} piece @param {number} dst @param {number} capacity @param {number} data @param {number} length
   */
  async function pass({ readable, writable }, piece, dst, capacity, data, length) {
    const writer = writable.getWriter();
    // A copy: Go's memory may move before the stream gets to it. What fails shows at the reader.
    const input = host.bytes(data, length).slice();
    for (let at = 0; at < length; at += piece) writer.write(input.subarray(at, at + piece)).catch(() => {});
    writer.close().catch(() => {});
    const reader = readable.getReader();
    for (let total = 0; ; ) {
      const { done, value } = await reader.read();
      if (done) return total;
      if (total + value.byteLength > capacity) {
        reader.cancel().catch(() => {});
        return capacity + 1;
      }
      total += host.move(dst + total, value.buffer);
    }
  }

  /** @param {number} op @param {unknown} error */
  const fail = (op, error) => host.complete(op, failed, host.attach(new TextEncoder().encode(String(error))));

  return {
    deflate_available: () => (available ? 1 : 0),

    /**
     * Completes with the length of the result, or 0 if it does not fit.
     * @param {number} op @param {number} dst @param {number} capacity @param {number} data @param {number} length
     */
    deflate(op, dst, capacity, data, length) {
      pass(new CompressionStream("deflate-raw"), deflatePiece, dst, capacity, data, length).then(
        (n) => host.complete(op, ok, n > capacity ? 0 : n),
        (error) => fail(op, error),
      );
    },

    /**
     * The result has exactly `capacity` bytes, or it is inauthentic.
     * @param {number} op @param {number} dst @param {number} capacity @param {number} data @param {number} length
     */
    inflate(op, dst, capacity, data, length) {
      pass(new DecompressionStream("deflate-raw"), inflatePiece, dst, capacity, data, length).then(
        (n) => host.complete(op, n === capacity ? ok : inauthentic),
        // TypeError is how a stream says that what it reads is none.
        (error) => (error instanceof TypeError ? host.complete(op, inauthentic) : fail(op, error)),
      );
    },
  };
}
