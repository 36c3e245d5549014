import { topicAudience } from '../../src/events/audience.js';
import type { Reader } from '../../src/events/topic.js';

/** Creates a reader with these fixed audiences and topics, which have their `since`. Returns a reader unchanged. */
export function toReader(
  audiences: readonly string[] | Reader,
  topics: Readonly<Record<string, number>> = {},
): Reader {
  if ('audiences' in audiences) return audiences;
  const entries = Object.entries(topics);
  return {
    audiences,
    topics: new Map(entries.map(([topic, since]) => [topicAudience(topic), since])),
  };
}
