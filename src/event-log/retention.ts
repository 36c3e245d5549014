import type { LogState, LogStore, TrimCandidate, TrimRange } from './log-store.js';

/** How much of the log is kept; what is over any of these goes, oldest first. */
export interface RetentionLimits {
  readonly ageMaxMs: number;
  readonly eventsMax: number;
  /** Of the events' data, as UTF-8. */
  readonly bytesMax: number;
}

const batch = { eventsMax: 500, recipientsMax: 5000 };

/**
 * Removes what is over a limit, at most 500 events with 5000 addresses, and answers how many rows
 * went: each event has one, and each of its addresses. For a timer; safe in several processes.
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

/** How far the oldest events are over a limit, if they are. */
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
