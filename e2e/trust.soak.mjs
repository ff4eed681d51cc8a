// The long forms of trust.test.mjs, for make soak.

import test from "node:test";
import { BLIND, INSIDER, survive } from "./evil.mjs";
import { reloads } from "./reloads.mjs";

test("nonces never repeat over 20 reloads", { timeout: 900_000 }, async (t) => {
  await reloads(t, 20);
});

// One attack at a time has the machine to itself, so that its order of events is another one than among many.
for (const attack of [...BLIND, ...Object.keys(INSIDER)]) {
  test(`a server that meddles: ${attack}`, { timeout: 180_000 }, async (t) => {
    await survive(t, [attack]);
  });
}
