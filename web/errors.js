// @ts-check
// The errors of the API: codes and messages are those of package fault, and a test holds them together.

/** @type {typeof import("./tallow.js").messages} */
export const messages = Object.freeze({
  "bad-link": "This link is damaged or incomplete. Ask for it again and open all of it.",
  "link-version": "This link is for another version of Tallow. Reload the page, or ask for a new link.",
  "owner-away": "Nobody who can let you in answered. Whoever made the link must have its page open; check the link, then try again.",
  "room-full": "This room is full. Ask the person who made it to make room, or to send in two rounds.",
  "room-locked": "This room is locked. Ask the person who made it to unlock it.",
  "join-denied": "The owner of this room did not let you in.",
  removed: "The owner removed you from this room.",
  replaced: "This room is open in another tab or window, which has taken over.",
  "server-unreachable": "The server cannot be reached. Check your connection; Tallow keeps trying.",
  "server-refused": "The server refused the connection. Check the link, or reload the page.",
  "server-full": "The server is busy. Try again in a minute.",
  "rate-limited": "Too many requests in a short time. Wait a minute, then try again.",
  "unsupported-version": "The other side runs another version of Tallow. Reload both pages.",
  "unsupported-browser": "This browser lacks something that Tallow needs. Use a current Chrome, Edge, Firefox or Safari.",
  "insecure-origin": "This page was not loaded securely (https), so the browser withholds what is needed here.",
  "invalid-argument": "That cannot be done with these values.",
  "room-closed": "The room is closed.",
  "not-owner": "Only the person who made the room can do that.",
  "unknown-peer": "That person is not in the room.",
  "unknown-transfer": "That transfer no longer exists.",
  "no-recipients": "There is nobody to send to. Share the link, and wait until someone is there.",
  "too-many-recipients": "That is more recipients than this room allows.",
  "too-large": "That is larger than allowed here.",
  declined: "Declined.",
  cancelled: "Cancelled.",
  "cancelled-by-peer": "Cancelled by the other side.",
  "peer-gone": "The other side left or its connection was lost. If it comes back, the transfer goes on.",
  "connection-failed": "No connection to the other side could be made. A relay (TURN) server may be needed.",
  "no-relay": "Only relays are to be used, and there is none: this server offers no relay (TURN). Ask whoever runs it, or allow direct connections.",
  "address-leak": "Only relays were to be used, and this browser did not keep to it: your network address may be known. Leave the room and use another browser if that matters.",
  "handshake-failed": "The other side could not prove who it is. Nothing was sent to it.",
  "rekey-timeout": "The other side stopped answering. Try again.",
  "file-changed": "The file was changed or removed since it was chosen. Choose it again.",
  "file-unreadable": "The file cannot be read. Check that it still exists and may be read, then choose it again.",
  "disk-full": "There is not enough free space. Free some, then try again.",
  "storage-failed": "The received data could not be stored. Check the disk, then try again.",
  integrity: "The received data did not match what was announced, and was discarded. Try again.",
  "protocol-violation": "The other side broke the protocol and was disconnected.",
  internal: "Something went wrong inside Tallow. Reload the page; please report it if it happens again.",
});

/** @typedef {import("./tallow.js").ErrorCode} ErrorCode */

export class TallowError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {unknown} [cause]
   * @param {string} [peer]
   */
  constructor(code, cause, peer) {
    super(messages[code] ?? code);
    this.name = "TallowError";
    this.code = code;
    this.cause = cause;
    this.peer = peer;
  }
}

/**
 * Throws `invalid-argument` unless ok.
 * @param {unknown} ok
 * @param {string} why
 * @returns {asserts ok}
 */
export function check(ok, why) {
  if (!ok) throw new TallowError("invalid-argument", why);
}
