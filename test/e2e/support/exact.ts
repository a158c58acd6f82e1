/**
 * Settings under which a batch computes what single tokens compute, up to 1e-5 in the log-probabilities: weights and cache in
 * F32, attention without the fused kernel. (With the usual 16-bit cache and fused attention it is some 1e-3, with 4-bit
 * weights some 1e-1, and texts change where two tokens are as close as that.) Here drafts must not change anything, and tests can
 * demand equality.
 */
import type { StackOptions } from "./stack.ts";

export const EXACT: StackOptions = {
  f32: true,
  args: ["-ctk", "f32", "-ctv", "f32", "-fa", "off"],
};

/** Most that log-probabilities may differ under these settings; measured 1e-5. */
export const EXACT_NOISE = 5e-4;
