import type { EventLog } from '../../src/event-log/event-log.js';
import type { StreamStart } from '../../src/event-log/resume-resolver.js';

/** Returns the position at which a stream for these audiences starts when it is opened now. */
export async function resolveStart(
  eventLog: EventLog,
  audiences: readonly string[],
  lastEventId?: string,
  beginning?: string,
): Promise<StreamStart> {
  const state = await eventLog.readState();
  return eventLog.resolveStart(state, audiences, { lastEventId, beginning });
}
