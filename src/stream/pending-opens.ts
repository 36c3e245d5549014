import type { ControlEntry } from '../events/control-entry.js';

/** A control entry with its number. */
export interface NumberedEntry {
  readonly seq: number;
  readonly entry: ControlEntry;
}

const entriesMax = 1000;

/** A stream that is being opened, from before anything is read for it until its registration. */
export class PendingOpen {
  readonly #entries: NumberedEntry[] = [];
  #isBehind = false;

  /** The control entries that this process has applied meanwhile. */
  get entries(): readonly NumberedEntry[] {
    return this.#entries;
  }

  /** Whether control entries are missing, because they were trimmed or are more than 1000. */
  get isBehind(): boolean {
    return this.#isBehind;
  }

  keep(entry: NumberedEntry): void {
    if (this.#entries.length < entriesMax) this.#entries.push(entry);
    else this.#isBehind = true;
  }

  gap(): void {
    this.#isBehind = true;
  }
}

/**
 * Keeps control entries for streams that are being opened. What was read for a stream may have changed
 * before the stream is registered, so the entries are applied to it then.
 */
export class PendingOpens {
  readonly #opens = new Set<PendingOpen>();

  get size(): number {
    return this.#opens.size;
  }

  /** Adds a stream. Call it before anything is read for the stream, and `remove` at the end. */
  add(): PendingOpen {
    const open = new PendingOpen();
    this.#opens.add(open);
    return open;
  }

  /** Removes a stream that is registered now or was not opened. Idempotent. */
  remove(open: PendingOpen): void {
    this.#opens.delete(open);
  }

  /** Keeps a control entry for the streams that are being opened. */
  keep(entry: NumberedEntry): void {
    for (const open of this.#opens) open.keep(entry);
  }

  /** Marks every stream as behind, because control entries were trimmed before they were applied. */
  gap(): void {
    for (const open of this.#opens) open.gap();
  }
}
