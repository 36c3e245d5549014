import { Failure } from '../../errors.js';
import type { Sql } from '../database.js';

/** The characters before which the package writes a backslash. */
const escapedCharacters = /['"\\\0]/g;

/**
 * Throws `payload_too_large` for a statement that the database server would never accept: with its values,
 * which the package writes into the text, it is not smaller than `max_allowed_packet`. The server would close
 * the connection, which callers would take for a temporary failure.
 */
export function assertFitsPacket({ texts, values }: Sql, packetBytesMax: number): void {
  const sum = (getSize: (value: Sql['values'][number]) => number) =>
    values.reduce<number>((total, value) => total + getSize(value), 0);
  const commandBytes = 1; // Precedes the text.
  const textBytes = texts.reduce((total, text) => total + text.length, commandBytes);
  // Escaping at most doubles a value. Few statements are near the limit, so the rest is rarely counted.
  if (textBytes + 2 * sum(getValueBytes) < packetBytesMax) return;
  if (textBytes + sum(getEscapedBytes) < packetBytesMax) return;
  const message =
    'Cannot write rows: they are larger than max_allowed_packet of the database server';
  throw new Failure('payload_too_large', message);
}

/** Returns the size of a value in the text without escapes: exact for strings, an upper bound for others. */
function getValueBytes(value: Sql['values'][number]): number {
  if (typeof value === 'string') return Buffer.byteLength(value) + 2;
  return value instanceof Uint8Array ? value.byteLength + 10 : 24;
}

function getEscapedBytes(value: Sql['values'][number]): number {
  if (typeof value !== 'string')
    return getValueBytes(value) * (value instanceof Uint8Array ? 2 : 1);
  return getValueBytes(value) + (value.match(escapedCharacters)?.length ?? 0);
}
