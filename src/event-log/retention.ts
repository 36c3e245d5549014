import type { LogState, LogStore, TrimCandidate, TrimRange } from './log-store.js';

/** Retention limits of the log. Events over any of them are trimmed, oldest first. */
export interface RetentionLimits {
  readonly ageMaxMs: number;
  /** Control entries are not counted. */
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
    await store.oldestEntries(state.trimmedSeq, batch),
    limits,
    now,
  );
  return range === undefined ? 0 : store.trim(range);
}

/** How far the oldest entries are over a limit, if they are. A control entry goes with the events around it. */
function findTrimRange(
  { trimmedSeq, events, bytes }: LogState,
  candidates: readonly TrimCandidate[],
  limits: RetentionLimits,
  now: number,
): TrimRange | undefined {
  let upTo = trimmedSeq;
  let freedEvents = 0;
  let freedBytes = 0;
  for (const entry of candidates) {
    const isTooMany = events - freedEvents > limits.eventsMax;
    const isTooMuch = bytes - freedBytes > limits.bytesMax;
    if (!isTooMany && !isTooMuch && entry.createdAt >= now - limits.ageMaxMs) break;
    upTo = entry.seq;
    freedEvents += entry.isControlEntry ? 0 : 1;
    freedBytes += entry.bytes;
  }
  if (upTo === trimmedSeq) return undefined;
  return { after: trimmedSeq, upTo, events: freedEvents, bytes: freedBytes };
}
