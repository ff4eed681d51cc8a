// The QR encoder against rsc.io/qr v0.2.0: testdata/qr.json holds, per text, the version that its coding package needs at level M in
// byte mode and, per mask, the first 8 bytes of SHA-256 over the rows of its code ("1" for dark, "0" for light, a line feed after each row).

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import test from "node:test";
import jsqr from "jsqr";
import { encode } from "../web/qr.js";

const vectors = JSON.parse(fs.readFileSync(new URL("testdata/qr.json", import.meta.url), "utf8"));
const rows = (/** @type {boolean[][]} */ code) => code.map((row) => row.map(Number).join("") + "\n").join("");

for (const { text, version, masks } of vectors) {
  test(`version ${version}, ${text.length} characters`, () => {
    const codes = masks.map((/** @type {string} */ hash, /** @type {number} */ mask) => {
      const code = encode(text, mask);
      assert.equal(code.length, 17 + 4 * version);
      assert.equal(createHash("sha256").update(rows(code)).digest("hex").slice(0, 16), hash, `mask ${mask}`);
      return rows(code);
    });
    const chosen = encode(text);
    assert.ok(codes.includes(rows(chosen)));
    if (text) assert.equal(read(chosen), text);
  });
}

test("too long", () => {
  assert.throws(() => encode("x".repeat(214)), RangeError);
});

/** What a reader makes of it. @param {boolean[][]} code */
function read(code) {
  const scale = 4;
  const width = (code.length + 8) * scale;
  const pixels = new Uint8ClampedArray(width * width * 4).fill(255);
  for (let y = 0; y < width; y++)
    for (let x = 0; x < width; x++)
      if (code[Math.floor(y / scale) - 4]?.[Math.floor(x / scale) - 4]) pixels.fill(0, (y * width + x) * 4, (y * width + x) * 4 + 3);
  return jsqr(pixels, width, width)?.data;
}
