// @ts-check
// The host's cryptography: WebCrypto from and into Go's memory. Keys are CryptoKey objects that cannot be read out again.

/** The statuses of internal/bridge/bytes/error_js.go. With failed comes the handle of a text. */
const ok = 0;
const inauthentic = 1;
const failed = -1;

/** @param {import("./host.js").HostContext} host */
export default function cryptoPart(host) {
  // Missing on insecure pages.
  const subtle = globalThis.crypto?.subtle;
  const encoder = new TextEncoder();
  /** @param {number} op @param {unknown} error */
  const fail = (op, error) => host.complete(op, failed, host.attach(encoder.encode(String(error))));

  // WebCrypto copies its inputs before it returns a promise, so views of Go's memory may be passed; the result goes in through
  // a view that is made when it is there, for Go's memory may have grown in between.
  /** @param {number} op @param {number} dst @param {Promise<ArrayBuffer>} result */
  const deliver = (op, dst, result) =>
    result.then(
      (data) => {
        host.move(dst, data);
        host.complete(op, ok);
      },
      // OperationError is how decrypt says that the tag is wrong.
      (error) => (error.name === "OperationError" ? host.complete(op, inauthentic) : fail(op, error)),
    );

  /** @param {number} nonce @param {number} aad @param {number} aadLength */
  const parameters = (nonce, aad, aadLength) => ({
    name: "AES-GCM",
    iv: host.bytes(nonce, 12),
    tagLength: 128,
    additionalData: host.bytes(aad, aadLength),
  });

  return {
    crypto_available: () => (subtle ? 1 : 0),

    /** Completes with the handle of an AES-256-GCM key. @param {number} op @param {number} key */
    crypto_import(op, key) {
      subtle.importKey("raw", host.bytes(key, 32), "AES-GCM", false, ["encrypt", "decrypt"]).then(
        (object) => host.complete(op, ok, host.attach(object)),
        (error) => fail(op, error),
      );
    },

    /**
     * @param {number} op @param {number} key @param {number} dst @param {number} nonce @param {number} plaintext @param {number} length
     * @param {number} aad @param {number} aadLength
     */
    crypto_seal(op, key, dst, nonce, plaintext, length, aad, aadLength) {
      deliver(op, dst, subtle.encrypt(parameters(nonce, aad, aadLength), host.object(key), host.bytes(plaintext, length)));
    },

    /**
     * @param {number} op @param {number} key @param {number} dst @param {number} nonce @param {number} ciphertext @param {number} length
     * @param {number} aad @param {number} aadLength
     */
    crypto_open(op, key, dst, nonce, ciphertext, length, aad, aadLength) {
      deliver(op, dst, subtle.decrypt(parameters(nonce, aad, aadLength), host.object(key), host.bytes(ciphertext, length)));
    },

    /** @param {number} op @param {number} dst @param {number} data @param {number} length */
    crypto_digest(op, dst, data, length) {
      deliver(op, dst, subtle.digest("SHA-256", host.bytes(data, length)));
    },
  };
}
