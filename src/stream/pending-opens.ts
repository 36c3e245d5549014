import type { ControlEntry } from '../events/control-entry.js';

/** Why a stream that is being opened must be closed: its session ended, or entries were missed. */
export type OpenAborted = 'revoked' | 'behind';

/** A stream that is being opened, from before its session lookup until its registration. */
export interface PendingOpen {
  readonly sessionId: string;
  /** Set when a control entry or a gap affects the stream before it is registered. */
  readonly aborted: OpenAborted | undefined;
}

interface TrackedOpen extends PendingOpen {
  aborted: OpenAborted | undefined;
}

/**
 * Tracks the streams that are being opened. A session that is looked up for a stream may end before
 * the stream is registered, so control entries are applied to the stream from before the lookup on.
 */
export class PendingOpens {
  readonly #opens = new Map<string, Set<TrackedOpen>>();

  get size(): number {
    return this.#opens.size;
  }

  /** Adds a stream. Call it before anything is read for the stream, and `remove` at the end. */
  add(sessionId: string): PendingOpen {
    const open: TrackedOpen = { sessionId, aborted: undefined };
    const opens = this.#opens.get(sessionId);
    if (opens === undefined) this.#opens.set(sessionId, new Set([open]));
    else opens.add(open);
    return open;
  }

  /** Removes a stream that was registered or was not opened. Idempotent. */
  remove(open: PendingOpen): void {
    const opens = this.#opens.get(open.sessionId);
    opens?.delete(open);
    if (opens?.size === 0) this.#opens.delete(open.sessionId);
  }

  /** Applies a control entry to the streams that are being opened. */
  apply(entry: ControlEntry): void {
    if (entry.kind !== 'sessions_ended') return;
    for (const sessionId of entry.sessionIds) {
      for (const open of this.#opens.get(sessionId) ?? []) open.aborted = 'revoked';
    }
  }

  /** Aborts every open with `behind`, because control entries may have been missed. */
  gap(): void {
    for (const opens of this.#opens.values()) {
      for (const open of opens) open.aborted ??= 'behind';
    }
  }
}
