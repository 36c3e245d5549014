import type { ControlEntry } from '../events/control-entry.js';

/** Why a stream that is being opened must not begin. */
export type OpenAborted = 'revoked' | 'behind';

/** A stream that is being opened: from before its session is looked up until it is registered. */
export interface PendingOpen {
  readonly sessionId: string;
  /** Set by a control entry that was applied meanwhile. */
  readonly aborted: OpenAborted | undefined;
}

interface TrackedOpen extends PendingOpen {
  aborted: OpenAborted | undefined;
}

/**
 * Streams that are being opened. What is read for one may be outdated before it is registered, so
 * control entries are applied to it from before the first read.
 */
export class PendingOpens {
  readonly #opens = new Map<string, Set<TrackedOpen>>();

  get size(): number {
    return this.#opens.size;
  }

  /** To be called before anything is read for the stream, and followed by `remove`. */
  add(sessionId: string): PendingOpen {
    const open: TrackedOpen = { sessionId, aborted: undefined };
    const opens = this.#opens.get(sessionId);
    if (opens === undefined) this.#opens.set(sessionId, new Set([open]));
    else opens.add(open);
    return open;
  }

  /** Idempotent. */
  remove(open: PendingOpen): void {
    const opens = this.#opens.get(open.sessionId);
    opens?.delete(open);
    if (opens?.size === 0) this.#opens.delete(open.sessionId);
  }

  apply(entry: ControlEntry): void {
    if (entry.kind !== 'sessions_ended') return;
    for (const sessionId of entry.sessionIds) {
      for (const open of this.#opens.get(sessionId) ?? []) open.aborted = 'revoked';
    }
  }

  /** Control entries may have been missed. */
  gap(): void {
    for (const opens of this.#opens.values()) {
      for (const open of opens) open.aborted ??= 'behind';
    }
  }
}
