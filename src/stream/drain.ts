import { setTimeout as wait } from 'node:timers/promises';
import type { Registry } from './registry.js';

export interface DrainOptions {
  /** Over how long the ends are spread. */
  readonly windowMs: number;
  readonly random: () => number;
}

/** What one client that comes back costs a server: a TLS handshake and an HTTP/2 session. */
const reconnectCostMs = 4;
const sliceMs = 100;
const sliceMin = 100;

/**
 * Ends all streams, a slice at a time, each with a `retry:` of its own, so that neither this server
 * nor the one that takes over meets all clients at once. Few streams end at once.
 */
export async function drainStreams(
  registry: Registry,
  { windowMs, random }: DrainOptions,
): Promise<void> {
  const spreadMs = registry.size * reconnectCostMs;
  const slice = Math.max(sliceMin, Math.ceil((registry.size * sliceMs) / Math.max(windowMs, 1)));
  while (registry.drainSome(slice, () => 1000 + spreadMs * random()) > 0) await wait(sliceMs);
}
