/** Bounds on the figures of a report, such as `arms.on.ttft_ms.p95<=200`: what makes a benchmark a check in somebody's CI. */
import { AdedError } from "../errors.ts";

const EXPRESSION = /^\s*([A-Za-z_][\w.-]*)\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*$/i;

export interface Bound {
  /** Path in the report, dots between keys, numbers for places in a list. */
  path: string;
  operator: ">=" | "<=" | ">" | "<";
  limit: number;
}

export interface BoundResult {
  bound: string;
  /** Null: the report has no such figure; the bound fails then. */
  value: number | null;
  ok: boolean;
}

/** @throws AdedError ADED_USAGE when it is no such expression */
export function parseBound(text: string): Bound {
  const match = EXPRESSION.exec(text);
  if (match === null) {
    throw new AdedError("ADED_USAGE", `"${text}" is no bound`, {
      hint: 'Write the path of a figure in the JSON report, >=, <=, > or <, and a number: "arms.on.ttft_ms.p95<=200".',
    });
  }
  return { path: match[1], operator: match[2] as Bound["operator"], limit: Number(match[3]) };
}

export function checkBounds(report: object, bounds: readonly Bound[]): BoundResult[] {
  return bounds.map((bound) => {
    const value = figureAt(report, bound.path);
    return {
      bound: `${bound.path}${bound.operator}${bound.limit}`,
      value,
      ok: value !== null && holds(value, bound),
    };
  });
}

function holds(value: number, { operator, limit }: Bound): boolean {
  if (operator === ">=") return value >= limit;
  if (operator === "<=") return value <= limit;
  return operator === ">" ? value > limit : value < limit;
}

function figureAt(report: object, path: string): number | null {
  let at: unknown = report;
  for (const key of path.split(".")) {
    at =
      typeof at === "object" && at !== null && Object.hasOwn(at, key)
        ? (at as Record<string, unknown>)[key]
        : undefined;
  }
  return typeof at === "number" ? at : null;
}

/** What is printed of them, one line each. */
export function formatBounds(results: readonly BoundResult[]): string {
  return results
    .map(
      ({ bound, value, ok }) =>
        `${ok ? "kept  " : "FAILED"} ${bound} (${value === null ? "no such figure" : Number(value.toPrecision(5))})\n`,
    )
    .join("");
}
