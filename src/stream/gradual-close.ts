import { setTimeout as wait } from 'node:timers/promises';
import type { CloseReason, EventStream } from './event-stream.js';

export interface GradualCloseOptions {
  readonly reason: CloseReason;
  /** Longest period over which streams are closed. Default: 100 ms per 100 streams. */
  readonly windowMs?: number;
  readonly random: () => number;
}

/** Time that a server needs for one reconnect: a TLS handshake and an HTTP/2 session. */
const reconnectCostMs = 4;
const sliceMs = 100;
const sliceMin = 100;

/**
 * Closes streams in slices of at least 100, every 100 ms. Each stream gets its own `retry:`, so that
 * no server has to handle all clients at once. Up to 100 streams are closed immediately.
 */
export async function closeGradually(
  streams: readonly EventStream[],
  { reason, windowMs = Number.POSITIVE_INFINITY, random }: GradualCloseOptions,
): Promise<void> {
  const spreadMs = streams.length * reconnectCostMs;
  const slices = Math.max(windowMs, sliceMs) / sliceMs;
  const sliceSize = Math.max(sliceMin, Math.ceil(streams.length / slices));
  let remaining = streams.filter(({ isOpen }) => isOpen);
  while (remaining.length > 0) {
    for (const stream of remaining.slice(0, sliceSize))
      stream.close(reason, { retryMs: Math.round(1000 + spreadMs * random()) });
    remaining = remaining.slice(sliceSize).filter(({ isOpen }) => isOpen);
    if (remaining.length > 0) await wait(sliceMs);
  }
}
