/**
 * What a drafter keeps over a restart: of each scope the matrix's rows, the history, and how far to trust the sources. Saved in slices of
 * some tens of kilobytes while drafting goes on; a row that changes between two slices is saved as it was or as it is.
 */
import type { EngineInfo } from "./draft.ts";
import type { Scope, Scopes } from "./scopes.ts";
import {
  readSnapshot,
  SnapshotDamage,
  type SnapshotRecord,
  setAside,
  writeSnapshot,
} from "./snapshot-file.ts";

export interface SnapshotLoad {
  /** Rows and bytes read; 0 if nothing was kept. */
  rows: number;
  bytes: number;
  /** Why the file was not used, and where it lies now. */
  damage?: { reason: string; aside: string };
}

/** Rows per record, and tokens of history: small, so that copying one holds no step up. */
const SLICE_ROWS = 512;
const SLICE_TOKENS = 16_384;

/**
 * @param forgotten how often anything was purged: a snapshot that began before must not keep it
 * @returns bytes written; undefined when something was purged meanwhile
 */
export function saveSnapshot(
  file: string,
  info: EngineInfo,
  scopes: Scopes,
  forgotten: () => number,
): Promise<number | undefined> {
  return writeSnapshot(file, recordsOf(info, scopes, forgotten));
}

function* recordsOf(
  { vocabHash, nVocab }: EngineInfo,
  scopes: Scopes,
  forgotten: () => number,
): Generator<SnapshotRecord> {
  const before = forgotten();
  yield { head: { kind: "header", vocabHash, nVocab } };
  for (const scope of scopes.byUse()) {
    yield { head: { kind: "scope", name: scope.name } };
    for (const record of scopeRecords(scope)) {
      if (forgotten() !== before) return;
      yield record;
    }
  }
  if (forgotten() === before) yield { head: { kind: "end" } };
}

function* scopeRecords({ matrix, history, greedy, sampled }: Scope): Generator<SnapshotRecord> {
  const { width } = matrix;
  const slice = new ArrayBuffer(SLICE_ROWS * matrix.rowBytes);
  for (let from = 0; from < matrix.rowCount; from += SLICE_ROWS) {
    const rows = matrix.pack(from, Math.min(SLICE_ROWS, matrix.rowCount - from), slice);
    yield { head: { kind: "rows", rows, width }, body: new Uint8Array(slice, 0, rows * matrix.rowBytes) };
  }
  let from = history.oldest;
  while (from < history.length) {
    from = Math.max(from, history.oldest);
    const tokens = Int32Array.from({ length: Math.min(SLICE_TOKENS, history.length - from) }, (_, i) =>
      history.at(from + i),
    );
    yield { head: { kind: "history" }, body: tokens };
    from += tokens.length;
  }
  for (const [name, learnt] of Object.entries({ greedy, sampled })) {
    for (const [part, body] of learnt.arrays.entries()) yield { head: { kind: "learnt", name, part }, body };
  }
}

/** Fills the scopes, which are empty before, from a file; empties them again and moves the file aside when it can't be used. */
export function loadSnapshot(file: string, info: EngineInfo, scopes: Scopes): SnapshotLoad {
  let scope: Scope | undefined;
  const leave = (): void => {
    if (scope === undefined) return;
    scope.matrix.index();
    scopes.leave(scope);
  };
  try {
    const bytes = readSnapshot(file, (head, body, length) => {
      if (head.kind === "header") {
        checkVocabulary(head, info);
      } else if (head.kind === "scope") {
        leave();
        scope = scopes.enter(String(head.name));
      } else if (scope === undefined) {
        throw new SnapshotDamage(`a record of kind ${head.kind} belongs to no scope`);
      } else {
        take(scope, head, body, length);
      }
    });
    leave();
    return { rows: scopes.rows, bytes: bytes ?? 0 };
  } catch (error) {
    scopes.clear();
    if (!(error instanceof SnapshotDamage)) throw error;
    return { rows: 0, bytes: 0, damage: { reason: error.message, aside: setAside(file) } };
  }
}

function checkVocabulary(head: SnapshotRecord["head"], { vocabHash, nVocab }: EngineInfo): void {
  if (head.vocabHash === vocabHash && head.nVocab === nVocab) return;
  throw new SnapshotDamage(
    `it was learnt with another vocabulary (${head.vocabHash}, ${head.nVocab} tokens; the model's is ${vocabHash}, ${nVocab})`,
  );
}

function take(scope: Scope, head: SnapshotRecord["head"], body: ArrayBuffer, bytes: number): void {
  if (head.kind === "rows") {
    scope.matrix.unpack(body, bytes, { rows: Number(head.rows), width: Number(head.width) });
  } else if (head.kind === "history") {
    const tokens = new Int32Array(body, 0, bytes >> 2);
    for (let i = 0; i < tokens.length; i++) scope.history.append(tokens[i]);
  } else if (head.kind === "learnt") {
    const arrays = (head.name === "sampled" ? scope.sampled : scope.greedy).arrays;
    const target = arrays[Number(head.part)];
    // other sources or situations than this program's: it learns them anew
    if (target !== undefined && target.byteLength === bytes)
      target.set(new Float32Array(body, 0, bytes >> 2));
  }
}
