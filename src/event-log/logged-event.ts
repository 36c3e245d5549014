import { formatPosition } from '../events/event-id.js';
import { encodeFrame, type Frame } from '../events/frame.js';
import type { LoggableEvent, NumberedEvent } from './log-store.js';

/** Encodes an event of the event log with its position as id. */
export function encodeEvent(epoch: string, { seq, event }: NumberedEvent): Frame {
  const { type, topic, data } = event;
  const id = formatPosition({ epoch, seq });
  return { seq, bytes: encodeFrame({ id, event: type, topic, data }) };
}

/** Encodes an event that is not in the event log, and therefore has no id. */
export function encodeVolatile({ type, topic, data }: LoggableEvent): Frame {
  return { seq: 0, bytes: encodeFrame({ event: type, topic, data }) };
}

/** Returns whether an event has expired at `now` (epoch ms). An expired event is not delivered. */
export function isExpired({ expiresAt }: Pick<LoggableEvent, 'expiresAt'>, now: number): boolean {
  return expiresAt !== undefined && expiresAt <= now;
}
