import type { LogState, LogStore, TrimCandidate, TrimRange } from './log-store.js';

/** Retention limits of the log. Events over any of them are trimmed, oldest first. */
export interface RetentionLimits {
  readonly ageMaxMs: number;
  readonly eventsMax: number;
  /** Total size of the events' data as UTF-8. */
  readonly bytesMax: number;
}

const batch = { eventsMax: 500, recipientsMax: 5000 };

/**
 * Trims a batch of events over a limit: at most 500 events and 5000 recipients, or one event with
 * more. Returns the number of deleted rows: one per event and one per recipient. For a timer; safe
 * in several processes at once.
 */
export async function trimLog(
  store: LogStore,
  limits: RetentionLimits,
  now: number,
): Promise<number> {
  const state = await store.state();
  const range = findTrimRange(
    state,
    await store.oldestEvents(state.trimmedSeq, batch),
    limits,
    now,
  );
  return range === undefined ? 0 : store.trim(range);
}

/** Returns the range of oldest events that are over a limit; undefined if there are none. */
function findTrimRange(
  { seq, trimmedSeq, bytes }: LogState,
  candidates: readonly TrimCandidate[],
  limits: RetentionLimits,
  now: number,
): TrimRange | undefined {
  let upTo = trimmedSeq;
  let freed = 0;
  for (const event of candidates) {
    const isTooMany = seq - upTo > limits.eventsMax;
    const isTooMuch = bytes - freed > limits.bytesMax;
    if (!isTooMany && !isTooMuch && event.createdAt >= now - limits.ageMaxMs) break;
    upTo = event.seq;
    freed += event.bytes;
  }
  return upTo === trimmedSeq ? undefined : { after: trimmedSeq, upTo, bytes: freed };
}
