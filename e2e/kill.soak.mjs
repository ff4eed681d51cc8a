// The long form of kill.test.mjs, for make soak.

import test from "node:test";
import { killMatrix } from "./kill.mjs";

test("pages, browsers and the server are killed at random points", { concurrency: true, timeout: 3_600_000 }, (t) =>
  killMatrix(t, { runs: Number(process.env.TALLOW_KILL_RUNS ?? 50), smallest: 2 ** 20, largest: 100 * 2 ** 20, most: 3 }),
);
