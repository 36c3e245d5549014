import type { ControlEntry } from '../events/control-entry.js';

/** A control entry with its number. */
export interface NumberedEntry {
  readonly seq: number;
  readonly entry: ControlEntry;
}

const entriesMax = 1000;

/**
 * The control entries for a stream that is being opened: from before anything is read for the stream until
 * the stream is added to the registry.
 */
export class PendingOpen {
  readonly #entries: NumberedEntry[] = [];
  #isIncomplete = false;

  /** The control entries that this process has applied since the open began. */
  get entries(): readonly NumberedEntry[] {
    return this.#entries;
  }

  /** Whether `entries` is incomplete: entries were trimmed, or this process applied more than 1000. */
  get isIncomplete(): boolean {
    return this.#isIncomplete;
  }

  keep(entry: NumberedEntry): void {
    if (this.#entries.length < entriesMax) this.#entries.push(entry);
    else this.#isIncomplete = true;
  }

  markIncomplete(): void {
    this.#isIncomplete = true;
  }
}

/**
 * Keeps control entries for streams that are being opened. A session or token that was read for a stream
 * may be revoked before the stream is in the registry, so the kept entries are applied to the stream when
 * the registry adds it.
 */
export class PendingOpens {
  readonly #opens = new Set<PendingOpen>();

  get size(): number {
    return this.#opens.size;
  }

  /** Begins an open. Call it before anything is read for the stream, and `remove` when the open ends. */
  add(): PendingOpen {
    const open = new PendingOpen();
    this.#opens.add(open);
    return open;
  }

  /** Ends an open, whether the stream was added to the registry or not. Idempotent. */
  remove(open: PendingOpen): void {
    this.#opens.delete(open);
  }

  /** Keeps a control entry for every stream that is being opened. */
  keep(entry: NumberedEntry): void {
    for (const open of this.#opens) open.keep(entry);
  }

  /** Marks the entries of every open as incomplete, because control entries were trimmed before they were applied. */
  markAllIncomplete(): void {
    for (const open of this.#opens) open.markIncomplete();
  }
}
