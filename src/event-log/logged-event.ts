import { formatPosition } from '../events/event-id.js';
import { encodeFrame, type Frame } from '../events/frame.js';
import type { LoggableEvent, NumberedEvent } from './log-store.js';

/** Encodes an event of the event log with its position as id. */
export function encodeEvent(epoch: string, { seq, event: { type, data } }: NumberedEvent): Frame {
  const fields = { id: formatPosition({ epoch, seq }), data };
  return { seq, bytes: encodeFrame(type === undefined ? fields : { ...fields, event: type }) };
}

/** Returns whether an event has expired at `now` (epoch ms). An expired event is not delivered. */
export function isExpired({ expiresAt }: Pick<LoggableEvent, 'expiresAt'>, now: number): boolean {
  return expiresAt !== undefined && expiresAt <= now;
}
