import type { LoggableEvent } from './log-store.js';

/** Approximate size of a recipient with a short id in a database: a row and its two index entries. */
const recipientBytes = 128;
/** Length of an audience that `recipientBytes` includes. */
const shortAudienceLength = 40;
/** The table of audiences is its own index, and contains each audience once. */
const audienceLengthMax = 257;

/** Maximum stored size of an event, with the largest `EVENT_BYTES_MAX` (512 KiB) and 1000 recipients. */
export const storedBytesMax =
  512 * 1024 + (recipientBytes + audienceLengthMax - shortAudienceLength) * 1000;

/**
 * Returns the size of an event for the limits of the event log: its data as UTF-8, plus 128 bytes per recipient,
 * plus the characters of each audience beyond the first 40.
 */
export function getStoredBytes({ data, audiences }: LoggableEvent): number {
  let bytes = Buffer.byteLength(data) + recipientBytes * audiences.length;
  for (const { length } of audiences) bytes += Math.max(0, length - shortAudienceLength);
  return bytes;
}
