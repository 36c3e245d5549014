import { setTimeout as wait } from 'node:timers/promises';
import type { Registry } from './registry.js';

export interface DrainOptions {
  /** Period over which streams are closed. */
  readonly windowMs: number;
  readonly random: () => number;
}

/** Time that a server needs for one reconnect: a TLS handshake and an HTTP/2 session. */
const reconnectCostMs = 4;
const sliceMs = 100;
const sliceMin = 100;

/**
 * Closes all streams in slices of at least 100, every 100 ms. Each stream gets its own `retry:`, so
 * that neither this server nor its successor has to handle all clients at once. Up to 100 streams
 * are closed immediately.
 */
export async function drainStreams(
  registry: Registry,
  { windowMs, random }: DrainOptions,
): Promise<void> {
  const spreadMs = registry.size * reconnectCostMs;
  const sliceSize = Math.max(
    sliceMin,
    Math.ceil((registry.size * sliceMs) / Math.max(windowMs, 1)),
  );
  while (registry.drainSome(sliceSize, () => 1000 + spreadMs * random()) > 0) await wait(sliceMs);
}
