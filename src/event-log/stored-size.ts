import type { LoggableEvent } from './log-store.js';

/** Approximate size of one recipient in a database: a row and its two index entries. */
const recipientBytes = 128;

/** Maximum stored size of an event: `EVENT_BYTES_MAX` is at most 512 KiB, and an event has at most 1000 recipients. */
export const storedBytesMax = 512 * 1024 + recipientBytes * 1000;

/** Returns the size of an event for the limits of the event log: its data as UTF-8, and 128 bytes per recipient. */
export function getStoredBytes({ data, audiences }: LoggableEvent): number {
  return Buffer.byteLength(data) + recipientBytes * audiences.length;
}
