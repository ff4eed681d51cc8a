// @ts-check
// QR codes (ISO/IEC 18004) for links: byte mode, error correction level M, versions 1 to 10 (at most 213 bytes). The page draws the
// code itself because the link is secret: no server may be asked for the picture.

/** Per version 1 to 10: all codewords, check codewords per block, blocks, centres of the alignment patterns. */
const VERSIONS = /** @type {const} */ ([
  [26, 10, 1, []],
  [44, 16, 1, [6, 18]],
  [70, 26, 1, [6, 22]],
  [100, 18, 2, [6, 26]],
  [134, 24, 2, [6, 30]],
  [172, 16, 4, [6, 34]],
  [196, 18, 4, [6, 22, 38]],
  [242, 22, 4, [6, 24, 42]],
  [292, 22, 5, [6, 26, 46]],
  [346, 26, 5, [6, 28, 50]],
]);

/** The data mask patterns: whether the module at row y, column x is inverted. @type {((y: number, x: number) => boolean)[]} */
const MASKS = [
  (y, x) => (y + x) % 2 === 0,
  (y) => y % 2 === 0,
  (_, x) => x % 3 === 0,
  (y, x) => (y + x) % 3 === 0,
  (y, x) => (Math.floor(y / 2) + Math.floor(x / 3)) % 2 === 0,
  (y, x) => ((y * x) % 2) + ((y * x) % 3) === 0,
  (y, x) => (((y * x) % 2) + ((y * x) % 3)) % 2 === 0,
  (y, x) => (((y + x) % 2) + ((y * x) % 3)) % 2 === 0,
];

/**
 * The modules of the smallest QR code for a text; true is dark. There is no quiet zone around them.
 * @param {string} text
 * @param {number} [mask] 0 to 7; without it the one with the lowest penalty
 * @returns {boolean[][]} rows
 * @throws {RangeError} when the text is longer than 213 bytes
 */
export function encode(text, mask) {
  const bytes = new TextEncoder().encode(text);
  const version = 1 + VERSIONS.findIndex(([all, check, blocks], i) => bytes.length + headerBits(i + 1) / 8 <= all - check * blocks);
  if (version === 0) throw new RangeError("too long for a QR code");
  const words = codewords(bytes, version);
  if (mask !== undefined) return draw(words, version, mask);
  const codes = MASKS.map((_, m) => draw(words, version, m));
  const penalties = codes.map(penalty);
  return codes[penalties.indexOf(Math.min(...penalties))];
}

/**
 * The code for a text as an SVG element with its quiet zone, one unit per module.
 * @param {string} text
 * @returns {SVGSVGElement}
 * @throws {RangeError} when the text is longer than 213 bytes
 */
export function svg(text) {
  const rows = encode(text);
  const namespace = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(namespace, "svg");
  const path = document.createElementNS(namespace, "path");
  let d = "";
  rows.forEach((row, y) => row.forEach((dark, x) => (d += dark ? `M${x + 4} ${y + 4}h1v1h-1z` : "")));
  path.setAttribute("d", d);
  picture.setAttribute("viewBox", `0 0 ${rows.length + 8} ${rows.length + 8}`);
  picture.setAttribute("shape-rendering", "crispEdges");
  picture.append(path);
  return picture;
}

/** Mode and length in bits, rounded up to whole bytes (the terminator fills the rest). @param {number} version */
const headerBits = (version) => (version < 10 ? 16 : 24);

/**
 * Data and check codewords, interleaved.
 * @param {Uint8Array} bytes
 * @param {number} version
 */
function codewords(bytes, version) {
  const [all, checkLength, blockCount] = VERSIONS[version - 1];
  const dataLength = all - checkLength * blockCount;
  /** @type {number[]} */
  const bits = [];
  const put = (/** @type {number} */ value, /** @type {number} */ length) => {
    for (let i = length - 1; i >= 0; i--) bits.push((value >> i) & 1);
  };
  put(0b0100, 4);
  put(bytes.length, version < 10 ? 8 : 16);
  for (const b of bytes) put(b, 8);
  put(0, Math.min(4, dataLength * 8 - bits.length));
  while (bits.length % 8) bits.push(0);
  const data = [];
  for (let i = 0; i < bits.length; i += 8) data.push(parseInt(bits.slice(i, i + 8).join(""), 2));
  for (let pad = 0xec; data.length < dataLength; pad ^= 0xec ^ 0x11) data.push(pad);

  const short = Math.floor(dataLength / blockCount);
  const longFrom = blockCount - (dataLength % blockCount); // the later blocks hold one more
  const blocks = [];
  for (let i = 0, at = 0; i < blockCount; i++) {
    const block = data.slice(at, (at += short + (i >= longFrom ? 1 : 0)));
    blocks.push({ block, check: checkWords(block, checkLength) });
  }
  const out = [];
  for (let i = 0; i <= short; i++) for (const { block } of blocks) if (i < block.length) out.push(block[i]);
  for (let i = 0; i < checkLength; i++) for (const { check } of blocks) out.push(check[i]);
  return out;
}

// GF(256) with the polynomial x^8 + x^4 + x^3 + x^2 + 1.
const EXP = new Uint8Array(510);
const LOG = new Uint8Array(256);
for (let i = 0, x = 1; i < 255; i++, x = (x << 1) ^ (x & 0x80 ? 0x11d : 0)) {
  EXP[i] = EXP[i + 255] = x;
  LOG[x] = i;
}
const multiply = (/** @type {number} */ a, /** @type {number} */ b) => (a && b ? EXP[LOG[a] + LOG[b]] : 0);

/**
 * Reed–Solomon: the remainder of the data by the generator polynomial of that degree.
 * @param {number[]} data
 * @param {number} length
 */
function checkWords(data, length) {
  let generator = [1];
  for (let i = 0; i < length; i++) {
    const next = [...generator, 0];
    generator.forEach((c, j) => (next[j + 1] ^= multiply(c, EXP[i])));
    generator = next;
  }
  const rest = [...data, ...Array(length).fill(0)];
  data.forEach((_, i) => {
    const factor = rest[i];
    generator.forEach((c, j) => (rest[i + j] ^= multiply(c, factor)));
  });
  return rest.slice(data.length);
}

/**
 * @param {number[]} words
 * @param {number} version
 * @param {number} mask
 */
function draw(words, version, mask) {
  const size = 17 + 4 * version;
  /** @type {(boolean | undefined)[][]} */
  const code = Array.from({ length: size }, () => Array(size).fill(undefined));

  /** @param {number} cy @param {number} cx @param {number} radius @param {(distance: number) => boolean} dark */
  const square = (cy, cx, radius, dark) => {
    for (let y = Math.max(0, cy - radius); y <= Math.min(size - 1, cy + radius); y++)
      for (let x = Math.max(0, cx - radius); x <= Math.min(size - 1, cx + radius); x++)
        code[y][x] = dark(Math.max(Math.abs(y - cy), Math.abs(x - cx)));
  };
  for (const [y, x] of [[3, 3], [3, size - 4], [size - 4, 3]]) square(y, x, 4, (d) => d !== 2 && d !== 4);
  for (let i = 8; i < size - 8; i++) code[6][i] = code[i][6] = i % 2 === 0;
  const centres = VERSIONS[version - 1][3];
  const last = size - 7;
  for (const y of centres)
    for (const x of centres)
      if (!((y === 6 && (x === 6 || x === last)) || (y === last && x === 6))) square(y, x, 2, (d) => d !== 1);

  // Format: level M is 00, then the mask; a BCH code; twice. The dark module belongs to neither.
  const format = (bch(mask, 10, 0x537) ^ 0x5412);
  const formatBit = (/** @type {number} */ i) => ((format >> i) & 1) === 1;
  for (let i = 0; i < 15; i++) {
    const near = i < 6 ? i : i < 8 ? i + 1 : 0;
    if (i < 8) code[near][8] = code[8][size - 1 - i] = formatBit(i);
    else {
      code[8][i === 8 ? 7 : 14 - i] = formatBit(i);
      code[size - 15 + i][8] = formatBit(i);
    }
  }
  code[size - 8][8] = true;
  if (version >= 7) {
    const info = bch(version, 12, 0x1f25);
    for (let i = 0; i < 18; i++) {
      const [a, b] = [Math.floor(i / 3), size - 11 + (i % 3)];
      code[a][b] = code[b][a] = ((info >> i) & 1) === 1;
    }
  }

  // Data: two columns at a time from the right, upwards and downwards in turn, past the vertical timing pattern.
  let at = 0;
  let up = true;
  for (let right = size - 1; right > 0; right -= 2, up = !up) {
    if (right === 6) right--;
    for (let step = 0; step < size; step++) {
      const y = up ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (code[y][x] !== undefined) continue;
        const bit = at < words.length * 8 && ((words[at >> 3] >> (7 - (at & 7))) & 1) === 1;
        code[y][x] = bit !== MASKS[mask](y, x);
        at++;
      }
    }
  }
  return /** @type {boolean[][]} */ (code);
}

/** @param {number} value @param {number} checkBits @param {number} polynomial */
function bch(value, checkBits, polynomial) {
  let rest = value << checkBits;
  const top = 31 - Math.clz32(polynomial);
  for (let bit = 31 - Math.clz32(rest); rest && bit >= top; bit = 31 - Math.clz32(rest)) rest ^= polynomial << (bit - top);
  return (value << checkBits) | rest;
}

/** The standard's measure of how hard a code is to read. @param {boolean[][]} code */
function penalty(code) {
  const size = code.length;
  let score = 0;
  let dark = 0;
  const columns = code.map((_, x) => code.map((row) => row[x]));
  for (const line of [...code, ...columns]) {
    for (let start = 0, i = 1; i <= size; i++) {
      if (i < size && line[i] === line[start]) continue;
      if (i - start >= 5) score += i - start - 2;
      start = i;
    }
    // 1:1:3:1:1 with four light modules on a side, which reads like a finder; beyond the edge all is light.
    const text = "0000" + line.map(Number).join("") + "0000";
    for (let i = 0; i + 11 <= text.length; i++) {
      const part = text.slice(i, i + 11);
      if (part === "10111010000" || part === "00001011101") score += 40;
    }
  }
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      if (code[y][x]) dark++;
      if (y + 1 < size && x + 1 < size && code[y][x] === code[y][x + 1] && code[y][x] === code[y + 1][x] && code[y][x] === code[y + 1][x + 1]) score += 3;
    }
  return score + 10 * Math.floor(Math.abs((dark * 20) / (size * size) - 10));
}
