/** The lines of a trace file (docs/drafter.md): which keys each kind has. The key named first tells the kind. */

/** Version of the format, in the header line. */
export const TRACE_VERSION = 1;

/** First line of a recording; another one starts wherever the recording did anew. */
export interface HeaderLine {
  aded_trace: number;
  model: string;
  n_vocab: number;
  vocab_hash: string;
}

/** A request begins in a slot: the first `keep` tokens of what the slot held stay, `tokens` follow. */
export interface BeginLine {
  begin: number;
  id: number;
  keep: number;
  tokens: number[];
  temperature: number;
}

/** One verified step of a slot, as in docs/protocol.md. */
export interface StepLine {
  step: number;
  accepted: number[];
  nodes: number[];
  parents: number[];
  path: number[];
  k: number;
  ids: number[];
  probs: number[];
}

/** The request of a slot ended. */
export interface EndLine {
  end: number;
  reason: string;
}

/** A whole text. */
export interface TextLine {
  id: string;
  category?: string;
  temperature?: number;
  prompt: number[];
  tokens: number[];
  k: number;
  ids: number[];
  probs: number[];
}

/** Nodes that the text `of` did not take. A parent is a position of the text, or ~i for the i-th node of this line. */
export interface OffPathLine {
  of: string;
  parents: number[];
  tokens: number[];
  k: number;
  ids: number[];
  probs: number[];
}
