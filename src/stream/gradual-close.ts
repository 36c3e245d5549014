import { setTimeout as wait } from 'node:timers/promises';
import type { CloseReason } from './control-events.js';
import type { EventStream } from './event-stream.js';

export interface GradualCloseOptions {
  readonly reason: CloseReason;
  /**
   * Maximum time until all streams are closed. Shorter times mean more streams per slice. Default: no
   * maximum, so 100 ms per 100 streams.
   */
  readonly windowMs?: number;
  readonly random: () => number;
}

/** Time that a server needs for one reconnect: a TLS handshake and an HTTP/2 session. */
const reconnectCostMs = 4;
const sliceIntervalMs = 100;
const streamsPerSliceMin = 100;

/**
 * Closes streams in slices of at least 100, one slice every 100 ms; the first is closed immediately. Each
 * stream gets a random `retry:` of 1 s to 1 s plus 4 ms per stream, so that clients do not reconnect
 * together.
 */
export async function closeGradually(
  streams: readonly EventStream[],
  { reason, windowMs = Number.POSITIVE_INFINITY, random }: GradualCloseOptions,
): Promise<void> {
  const spreadMs = streams.length * reconnectCostMs;
  const sliceCount = Math.max(windowMs, sliceIntervalMs) / sliceIntervalMs;
  const streamsPerSlice = Math.max(streamsPerSliceMin, Math.ceil(streams.length / sliceCount));
  let remaining = streams.filter(({ isOpen }) => isOpen);
  while (remaining.length > 0) {
    for (const stream of remaining.slice(0, streamsPerSlice))
      stream.close(reason, { retryMs: Math.round(1000 + spreadMs * random()) });
    remaining = remaining.slice(streamsPerSlice).filter(({ isOpen }) => isOpen);
    if (remaining.length > 0) await wait(sliceIntervalMs);
  }
}
