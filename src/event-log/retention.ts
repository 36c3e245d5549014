import type { LogState, LogStore, TrimCandidate, TrimRange } from './log-store.js';

/** Retention limits of the event log. The oldest entries are trimmed until every limit is met. */
export interface RetentionLimits {
  readonly ageMaxMs: number;
  /** Minimum age of entries that are trimmed because of `eventsMax`. */
  readonly ageMinMs: number;
  /** Control entries are not counted. */
  readonly eventsMax: number;
  /** Total size of the events, see `getStoredBytes`. */
  readonly bytesMax: number;
}

const batchMax = { entriesMax: 500, recipientsMax: 5000 };

/**
 * Trims a batch of the oldest entries if a limit is exceeded: at most 500 entries with 5000 recipients
 * in total, or a single event that has more recipients. Returns the number of deleted rows: one per
 * entry and one per recipient. Called by a timer. Several processes can trim at the same time.
 */
export async function trimLog(
  store: LogStore,
  limits: RetentionLimits,
  now: number,
): Promise<number> {
  const state = await store.readState();
  const range = findTrimRange(
    state,
    await store.readOldestEntries(state.trimmedSeq, batchMax),
    limits,
    now,
  );
  return range === undefined ? 0 : store.trim(range);
}

/**
 * Returns the range of the oldest entries to trim until every limit is met, or until the candidates
 * end; undefined if no limit is exceeded.
 */
function findTrimRange(
  { trimmedSeq, eventCount, bytes }: LogState,
  candidates: readonly TrimCandidate[],
  limits: RetentionLimits,
  now: number,
): TrimRange | undefined {
  let upTo = trimmedSeq;
  let freedEvents = 0;
  let freedBytes = 0;
  for (const entry of candidates) {
    const ageMs = now - entry.createdAt;
    const isOverCount = eventCount - freedEvents > limits.eventsMax && ageMs >= limits.ageMinMs;
    const isOverSize = bytes - freedBytes > limits.bytesMax;
    if (!isOverCount && !isOverSize && ageMs <= limits.ageMaxMs) break;
    upTo = entry.seq;
    freedEvents += entry.isControlEntry ? 0 : 1;
    freedBytes += entry.bytes;
  }
  if (upTo === trimmedSeq) return undefined;
  return { after: trimmedSeq, upTo, eventCount: freedEvents, bytes: freedBytes, now };
}
