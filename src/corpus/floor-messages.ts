/** What the process that reads corpora is asked, and what it answers. */

export interface WeightedCorpus {
  file: string;
  /** What its counts are multiplied by. */
  weight: number;
}

export interface FloorRequest {
  corpora: WeightedCorpus[];
  /** Successors to keep per row. */
  topK: number;
  /** Bytes that the floor may take. */
  bound: number;
}

export interface FloorAnswer {
  /** Of all corpora. */
  vocabHash: string;
  nVocab: number;
  rows: number;
  /** Rows left out to keep within the bound. */
  dropped: number;
  bytes: number;
  /** What reading and packing took. */
  seconds: number;
}
