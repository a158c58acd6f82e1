/** A ratio of times, as reports show it. Null: nothing measured. */
export interface RatioReport {
  /** Time of the off-arm / time of the on-arm; above 1: the on-arm is faster. */
  ratio: number | null;
  /** Bootstrap interval over prompts, at the report's level. */
  ci: [low: number, high: number] | null;
  /** Pairs that count. */
  n: number;
}
