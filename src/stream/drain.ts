import { setTimeout as wait } from 'node:timers/promises';
import type { Registry } from './registry.js';

export interface DrainOptions {
  /** Period over which streams are closed. */
  readonly windowMs: number;
  readonly random: () => number;
}

/** Cost of one reconnect for a server: a TLS handshake and an HTTP/2 session. */
const reconnectCostMs = 4;
const sliceMs = 100;
const sliceMin = 100;

/**
 * Closes all streams in slices of at least 100, each stream with its own `retry:`, so that neither
 * this server nor its successor has to handle all clients at once. Up to 100 streams are closed at
 * once.
 */
export async function drainStreams(
  registry: Registry,
  { windowMs, random }: DrainOptions,
): Promise<void> {
  const spreadMs = registry.size * reconnectCostMs;
  const slice = Math.max(sliceMin, Math.ceil((registry.size * sliceMs) / Math.max(windowMs, 1)));
  while (registry.drainSome(slice, () => 1000 + spreadMs * random()) > 0) await wait(sliceMs);
}
