import type { AppendOutcome } from '../../src/event-log/log-store.js';

/** Returns the kind of an outcome and its sequence numbers, for example `appended 3 4`. */
export function outlineOutcome(outcome: AppendOutcome): string {
  return 'seqs' in outcome ? [outcome.kind, ...outcome.seqs].join(' ') : outcome.kind;
}
