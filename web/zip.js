// @ts-check
// A zip file (APPNOTE.TXT 6.3.10) around bytes that lie in a Blob already: stored, not compressed, with sizes known in advance, zip64 where it
// is needed, and UTF-8 names. Nothing is copied: the result is a Blob of headers and slices, so it takes no memory however large it is.

import { free } from "./host.js";

/**
 * What goes into a zip: `size` bytes from `at` on of the Blob.
 * @typedef {{ path: string, at: number, size: number, lastModified: number, directory: boolean }} Entry
 */

const most32 = 0xffffffff;
const most16 = 0xffff;
const versionPlain = 20;
const versionZip64 = 45;
const madeByUnix = 3 << 8;
const utf8Names = 1 << 11;
const encoder = new TextEncoder();

/** Numbers and bytes one after another, as zip has them: little-endian. */
class Writer {
  /** @type {number[]} */
  #bytes = [];

  /** @param {...number} values */
  u16(...values) {
    for (const value of values) this.#bytes.push(value & 0xff, (value >>> 8) & 0xff);
    return this;
  }
  /** @param {...number} values */
  u32(...values) {
    for (const value of values) this.u16(value & most16, value >>> 16);
    return this;
  }
  /** @param {...number} values at most 2^53 - 1 */
  u64(...values) {
    for (const value of values) this.u32(value % 2 ** 32, Math.floor(value / 2 ** 32));
    return this;
  }
  /** @param {ArrayLike<number>} bytes */
  bytes(bytes) {
    for (let i = 0; i < bytes.length; i++) this.#bytes.push(bytes[i]);
    return this;
  }
  done() {
    return new Uint8Array(this.#bytes);
  }
}

/** Date and time as zip has them: local, of two seconds each, from 1980 to 2107. @param {number} ms */
function dosTime(ms) {
  const t = new Date(ms);
  if (!(t.getFullYear() >= 1980)) return { time: 0, date: (1 << 5) | 1 };
  if (t.getFullYear() > 2107) return { time: (23 << 11) | (59 << 5) | 29, date: (127 << 9) | (12 << 5) | 31 };
  return {
    time: (t.getHours() << 11) | (t.getMinutes() << 5) | (t.getSeconds() >> 1),
    date: ((t.getFullYear() - 1980) << 9) | ((t.getMonth() + 1) << 5) | t.getDate(),
  };
}

/** The time in seconds, in UTC, where 32 bits hold it. @param {number} ms */
function timestamp(ms) {
  const seconds = Math.floor(ms / 1000);
  return Math.abs(seconds) < 2 ** 31 ? new Writer().u16(0x5455, 5).bytes([1]).u32(seconds).done() : new Uint8Array(0);
}

/**
 * The parts of a zip: bytes, and entries in the place of their contents.
 * @param {(Entry & { crc: number })[]} entries
 * @param {number} now ms since 1970, for what has no time
 * @returns {(Uint8Array<ArrayBuffer> | Entry)[]}
 */
export function parts(entries, now) {
  /** @type {(Uint8Array<ArrayBuffer> | Entry)[]} */
  const list = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const directory = [];
  let offset = 0;
  for (const entry of entries) {
    const name = encoder.encode(entry.directory ? `${entry.path}/` : entry.path);
    const { time, date } = dosTime(entry.lastModified || now);
    const stamp = entry.lastModified ? timestamp(entry.lastModified) : new Uint8Array(0);
    const big = entry.size >= most32;
    const size = big ? most32 : entry.size;

    const sizes = big ? new Writer().u16(1, 16).u64(entry.size, entry.size).done() : new Uint8Array(0);
    const header = new Writer()
      .u32(0x04034b50).u16(big ? versionZip64 : versionPlain, utf8Names, 0, time, date).u32(entry.crc, size, size)
      .u16(name.length, stamp.length + sizes.length).bytes(name).bytes(stamp).bytes(sizes)
      .done();

    const far = offset >= most32;
    const large = [...(big ? [entry.size, entry.size] : []), ...(far ? [offset] : [])];
    const extra = large.length ? new Writer().u16(1, 8 * large.length).u64(...large).done() : new Uint8Array(0);
    const mode = entry.directory ? 0o40755 : 0o100644;
    directory.push(
      new Writer()
        .u32(0x02014b50).u16(madeByUnix | versionZip64, large.length ? versionZip64 : versionPlain, utf8Names, 0, time, date).u32(entry.crc, size, size)
        .u16(name.length, stamp.length + extra.length, 0, 0, 0).u32(((mode << 16) | (entry.directory ? 0x10 : 0)) >>> 0, far ? most32 : offset)
        .bytes(name).bytes(stamp).bytes(extra)
        .done(),
    );
    list.push(header);
    if (entry.size > 0) list.push(entry);
    offset += header.length + entry.size;
  }
  const length = directory.reduce((sum, { length }) => sum + length, 0);
  const end = new Writer();
  const n = entries.length;
  if (n >= most16 || length >= most32 || offset >= most32) {
    end.u32(0x06064b50).u64(44).u16(madeByUnix | versionZip64, versionZip64).u32(0, 0).u64(n, n, length, offset);
    end.u32(0x07064b50, 0).u64(offset + length).u32(1);
  }
  const few = Math.min(n, most16);
  end.u32(0x06054b50).u16(0, 0, few, few).u32(Math.min(length, most32), Math.min(offset, most32)).u16(0);
  return [...list, ...directory, end.done()];
}

/** Eight tables, so that a step takes eight bytes. */
const tables = Array.from({ length: 8 }, () => new Int32Array(256));
for (let n = 0; n < 256; n++) {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  tables[0][n] = c;
}
for (let n = 0; n < 256; n++) for (let k = 1; k < 8; k++) tables[k][n] = (tables[k - 1][n] >>> 8) ^ tables[0][tables[k - 1][n] & 0xff];

/** CRC-32 of what comes after bytes whose CRC-32 that is; 0 at the beginning. @param {number} crc @param {Uint8Array} bytes */
export function crc32(crc, bytes) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
  let c = ~crc;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    const low = c ^ (bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24));
    c =
      t7[low & 0xff] ^ t6[(low >>> 8) & 0xff] ^ t5[(low >>> 16) & 0xff] ^ t4[low >>> 24] ^
      t3[bytes[i + 4]] ^ t2[bytes[i + 5]] ^ t1[bytes[i + 6]] ^ t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) c = (c >>> 8) ^ t0[(c ^ bytes[i]) & 0xff];
  return ~c >>> 0;
}

/**
 * A zip of parts of a Blob. It is read once, for the checksums, as one stream where entries follow one another: ten thousand small files are not opened one by one.
 * @param {Blob} whole
 * @param {Entry[]} entries best in the order in which they lie there
 * @param {AbortSignal} [signal]
 * @returns {Promise<Blob>}
 */
export async function zip(whole, entries, signal) {
  const sums = entries.map((entry) => ({ ...entry, crc: 0 }));
  for (let first = 0; first < sums.length; ) {
    let next = first;
    let end = sums[first].at;
    while (next < sums.length && (sums[next].size === 0 || sums[next].at === end)) end += sums[next++].size;
    await sum(whole.slice(sums[first].at, end), sums.slice(first, next), signal);
    first = next;
  }
  return new Blob(parts(sums, Date.now()).map((part) => (part instanceof Uint8Array ? part : whole.slice(part.at, part.at + part.size))));
}

/** @param {Blob} run @param {{ size: number, crc: number }[]} entries which make it up @param {AbortSignal} [signal] */
async function sum(run, entries, signal) {
  const reader = run.stream().getReader();
  try {
    let current = 0;
    let left = entries[0].size;
    for (;;) {
      signal?.throwIfAborted();
      const { value, done } = await reader.read();
      if (done) break;
      for (let rest = value; rest.length > 0; ) {
        while (left === 0) left = entries[++current].size;
        const piece = rest.subarray(0, left);
        entries[current].crc = crc32(entries[current].crc, piece);
        left -= piece.length;
        rest = rest.subarray(piece.length);
      }
      free(value.buffer);
    }
    if (left > 0 || entries.slice(current + 1).some(({ size }) => size > 0)) throw new DOMException("it is shorter than it was", "NotReadableError");
  } finally {
    reader.cancel().catch(() => {});
  }
}
