/**
 * Settings under which drafts must not change one bit: those that users have. The engine's kernels are batch-invariant
 * (`--batch-invariant`, on with a draft link), so a batch computes what single tokens compute, with quantised weights, a
 * 16-bit cache and fused attention.
 */
import type { StackOptions } from "./stack.ts";

export const EXACT: StackOptions = {};

/**
 * Most that a log-probability of `/tree-verify` may differ from one of `/completion`: the logits are the same, but the sums
 * of their exponentials are taken in different orders, by `/completion` in single precision one by one. Measured: 1.3e-4.
 */
export const LOGPROB_ROUNDING = 5e-4;
