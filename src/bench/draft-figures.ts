/**
 * What a server's drafter counted during a measurement: the difference of two readings of /aded/status. Other clients of
 * the same server count too; requests without drafts do not.
 */
export interface DraftFigures {
  /** Nodes by depth; index 0 is depth 1. */
  by_depth: { drafted: number[]; accepted: number[] };
  /** A node that several sources named counts for each. */
  by_source: Record<string, { drafted: number; accepted: number }>;
  steps: number;
  tokens: number;
  /** Of the last 4096 exchanges, µs: step received to reply ready, and the part of it that is the link. */
  draft_us: { p50: number | null; p99: number | null };
  link_us: { p50: number | null; p99: number | null };
  /** Drafts that came too late for the engine. */
  late: number;
}

type Fields = Record<string, unknown>;

const fieldsOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null ? (value as Fields) : {};
const numberOf = (value: unknown): number => (typeof value === "number" ? value : 0);
const numbersOf = (value: unknown): number[] => (Array.isArray(value) ? value.map(numberOf) : []);

/**
 * @param status answer of /aded/status
 * @param model @default the only one, or the sum over all
 * @returns undefined when the server has no drafter
 */
export function readDraftFigures(status: unknown, model?: string): DraftFigures | undefined {
  const models = fieldsOf(fieldsOf(status).models);
  const chosen = model !== undefined && model in models ? [models[model]] : Object.values(models);
  const read = chosen.flatMap((entry) => {
    const fields = fieldsOf(entry);
    if (fields.acceptance === undefined) return [];
    const { by_depth, by_source } = fieldsOf(fields.acceptance);
    const depth = fieldsOf(by_depth);
    const quantiles = (value: unknown): DraftFigures["draft_us"] => {
      const { p50, p99 } = fieldsOf(value);
      return { p50: typeof p50 === "number" ? p50 : null, p99: typeof p99 === "number" ? p99 : null };
    };
    const figures: DraftFigures = {
      by_depth: { drafted: numbersOf(depth.drafted), accepted: numbersOf(depth.accepted) },
      by_source: Object.fromEntries(
        Object.entries(fieldsOf(by_source)).map(([name, counts]) => [
          name,
          { drafted: numberOf(fieldsOf(counts).drafted), accepted: numberOf(fieldsOf(counts).accepted) },
        ]),
      ),
      steps: numberOf(fields.steps),
      tokens: numberOf(fields.tokens),
      draft_us: quantiles(fields.draft_us),
      link_us: quantiles(fields.link_us),
      late: numberOf(fields.late),
    };
    return [figures];
  });
  return read.length === 0 ? undefined : read.reduce((sum, figures) => combine(sum, figures, 1));
}

/** What was counted between two readings; null when the drafter was started anew in between. */
export function draftsBetween(
  before: DraftFigures | undefined,
  after: DraftFigures | undefined,
): DraftFigures | null {
  if (after === undefined) return null;
  if (before === undefined) return after;
  return after.steps < before.steps ? null : combine(after, before, -1);
}

/** Counts of a run that was resumed: those of its parts together. */
export function addDrafts(a: DraftFigures | null, b: DraftFigures | null): DraftFigures | null {
  if (a === null || b === null) return a ?? b;
  return { ...combine(a, b, 1), draft_us: b.draft_us, link_us: b.link_us };
}

function combine(a: DraftFigures, b: DraftFigures, sign: 1 | -1): DraftFigures {
  const lists = (x: readonly number[], y: readonly number[]): number[] =>
    Array.from({ length: Math.max(x.length, y.length) }, (_, i) => (x[i] ?? 0) + sign * (y[i] ?? 0));
  const names = new Set([...Object.keys(a.by_source), ...Object.keys(b.by_source)]);
  return {
    by_depth: {
      drafted: lists(a.by_depth.drafted, b.by_depth.drafted),
      accepted: lists(a.by_depth.accepted, b.by_depth.accepted),
    },
    by_source: Object.fromEntries(
      [...names].map((name) => {
        const [x, y] = [a.by_source[name], b.by_source[name]];
        return [
          name,
          {
            drafted: (x?.drafted ?? 0) + sign * (y?.drafted ?? 0),
            accepted: (x?.accepted ?? 0) + sign * (y?.accepted ?? 0),
          },
        ];
      }),
    ),
    steps: a.steps + sign * b.steps,
    tokens: a.tokens + sign * b.tokens,
    draft_us: a.draft_us,
    link_us: a.link_us,
    late: a.late + sign * b.late,
  };
}
