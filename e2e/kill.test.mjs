// The kill matrix in browsers; kill.soak.mjs is its long form.

import test from "node:test";
import { CHUNK } from "./harness.mjs";
import { killMatrix } from "./kill.mjs";

test("pages, browsers and the server are killed at random points", { concurrency: true, timeout: 600_000 }, (t) => killMatrix(t, { runs: 5, smallest: 8 * CHUNK, largest: 15e6, most: 2 }));
