import type { EventLog } from '../../src/event-log/event-log.js';
import type { StreamStart } from '../../src/event-log/resume-resolver.js';
import type { Reader } from '../../src/events/topic.js';
import { toReader } from './to-reader.js';

/** Returns the position at which a stream of a reader, or one with only these fixed audiences, starts when it is opened now. */
export async function resolveStart(
  eventLog: EventLog,
  audiences: readonly string[] | Reader,
  lastEventId?: string,
  beginning?: string,
): Promise<StreamStart> {
  const state = await eventLog.readState();
  return eventLog.resolveStart(state, toReader(audiences), { lastEventId, beginning });
}
