/**
 * For scripts/engine-tests.sh: this program's drafter at a draft socket behind which servers come and go. Drafts six nodes at every
 * step, whether they pay or not. Says what it did when it is ended.
 *
 *   node --import tsx scripts/engine-tests-drafter.ts SOCKET
 */
import type { Drafter } from "../src/drafter/draft.ts";
import { AdedDrafter } from "../src/drafter/drafter.ts";
import { DraftLinkClient, type LinkLog } from "../src/link/client.ts";
import { LatencyRing } from "../src/link/latency.ts";

const drafters: Drafter[] = [];
const log: LinkLog = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => console.log(message, fields),
  error: (fields, message) => console.log(message, fields),
};

const client = new DraftLinkClient({
  socketPath: process.argv[2],
  topK: 12,
  createDrafter: (info) => {
    const drafter = new AdedDrafter(info, { fixedNodes: 6, matrixBytes: 16 * 2 ** 20 });
    drafters.push(drafter);
    return drafter;
  },
  log,
  draftLatency: new LatencyRing(),
  linkLatency: new LatencyRing(),
  exchangeLatency: new LatencyRing(),
  // servers live for a second or two
  backoff: { firstMs: 5, maxMs: 20 },
});
client.start();

process.on("SIGTERM", () => {
  const { connections, late, refused } = client.counters;
  client.stop();
  const all = drafters.map((drafter) => drafter.stats());
  const sum = (pick: (stats: (typeof all)[number]) => number): number =>
    all.reduce((total, stats) => total + pick(stats), 0);
  const nodes = `${sum((stats) => stats.draftedNodes)} nodes drafted, ${sum((stats) => stats.acceptedNodes)} accepted`;
  console.log(`drafter: ${connections} connections, ${nodes}, ${late} drafts late, ${refused} refused`);
  process.exit(0);
});
