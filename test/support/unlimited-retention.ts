import type { RetentionLimits } from '../../src/event-log/retention.js';

/** Retention limits that a test does not reach. */
export const unlimitedRetention: RetentionLimits = {
  ageMaxMs: 1e12,
  ageMinMs: 0,
  eventsMax: 1e9,
  bytesMax: 1e12,
};
