import type { LoggableEvent } from './log-store.js';

/** About what one address takes in a database: its row and two index entries. */
const addressBytes = 128;

/** Returns the size for which an event counts in the event log: its data as UTF-8, and 128 bytes per address. */
export function getStoredBytes({ data, audiences }: LoggableEvent): number {
  return Buffer.byteLength(data) + addressBytes * audiences.length;
}
