import { Failure } from '../errors.js';
import { recipientsPerRequestMax } from '../events/publish-request.js';
import type { AppendOutcome, AppendRequest, LogStore, NumberedEvent } from './log-store.js';

export interface AppendQueueOptions {
  readonly store: Pick<LogStore, 'append'>;
  /** Called with committed events, in sequence order. Must not throw. */
  readonly onAppended: (added: readonly NumberedEvent[]) => void;
  /** Called when an append failed but may have been committed. Must not reject. */
  readonly onUncertainCommit: () => Promise<void>;
}

interface Size {
  readonly events: number;
  readonly recipients: number;
  /** Size of the data. */
  readonly bytes: number;
}

interface QueuedAppend {
  readonly request: AppendRequest;
  readonly size: Size;
  readonly resolve: (outcome: AppendOutcome) => void;
  readonly reject: (cause: unknown) => void;
}

const emptySize: Size = { events: 0, recipients: 0, bytes: 0 };
const mib = 1024 * 1024;
/** Limits of one transaction. A request that exceeds a limit is written alone. */
const groupMax: Size = { events: 1000, recipients: recipientsPerRequestMax, bytes: 4 * mib };
const waitingMax: Size = { events: 20_000, recipients: 200_000, bytes: 64 * mib };

/**
 * Appends with group commit: requests that arrive during a transaction share the next one, up to
 * 1000 events, 10,000 recipients or 4 MiB of data; a larger request is written alone. At most 20,000
 * events, 200,000 recipients or 64 MiB of data can wait; beyond that `append` rejects with
 * `service_unavailable`, unless no other request waits. When the store is unavailable,
 * every waiting request is rejected. After any other error the requests of the group are written one by
 * one, so that only the requests that fail by themselves are rejected.
 */
export class AppendQueue {
  readonly #options: AppendQueueOptions;
  #queue: QueuedAppend[] = [];
  #size: Size = emptySize;
  /**
   * Number of requests at the start of the queue that are written one by one, after their group
   * failed.
   */
  #singleRetries = 0;
  #writing: Promise<void> | undefined;

  constructor(options: AppendQueueOptions) {
    this.#options = options;
  }

  /** Number of events that are waiting for a commit. */
  get waitingEvents(): number {
    return this.#size.events;
  }

  /** Appends a request. Rejects when the store rejects, and with `service_unavailable` when too much waits. */
  async append(request: AppendRequest): Promise<AppendOutcome> {
    const size = getSize(request);
    const total = addSizes(this.#size, size);
    if (this.#queue.length > 0 && exceeds(total, waitingMax)) {
      throw new Failure('service_unavailable', 'Cannot publish: too many events are waiting', {
        retryAfterMs: 1000,
      });
    }
    return new Promise<AppendOutcome>((resolve, reject) => {
      this.#queue.push({ request, size, resolve, reject });
      this.#size = total;
      this.#writing ??= this.#write();
    });
  }

  /**
   * Resolves when the queue is empty. Rejects only when `onAppended` has thrown, which is a defect.
   */
  async idle(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  /**
   * Writes until the queue is empty. Every request settles separately, so a rejection here is a
   * defect and ends the process.
   */
  async #write(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#take(this.#nextGroupLength());
      const requests = group.map(({ request }) => request);
      const outcomes = await this.#options.store
        .append(requests)
        .catch((cause: unknown) => this.#fail(group, cause));
      if (outcomes !== undefined) this.#settle(group, outcomes);
    }
    this.#writing = undefined;
  }

  /** Returns how many requests are written next. */
  #nextGroupLength(): number {
    if (this.#singleRetries > 0) return 1;
    let total: Size = emptySize;
    let count = 0;
    for (const { size } of this.#queue) {
      total = addSizes(total, size);
      if (count > 0 && exceeds(total, groupMax)) break;
      count += 1;
    }
    return count;
  }

  #take(count: number): QueuedAppend[] {
    const taken = this.#queue.splice(0, count);
    this.#singleRetries = Math.max(0, this.#singleRetries - count);
    this.#size = taken.reduce((left, { size }) => addSizes(left, size, -1), this.#size);
    return taken;
  }

  async #fail(group: readonly QueuedAppend[], cause: unknown): Promise<undefined> {
    const isStoreUnavailable = cause instanceof Failure && cause.name === 'service_unavailable';
    if (group.length > 1 && !isStoreUnavailable) {
      // A request that fails must not fail the whole group, so each one is retried on its own.
      this.#queue.unshift(...group);
      this.#size = group.reduce((sum, { size }) => addSizes(sum, size), this.#size);
      this.#singleRetries = group.length;
      return;
    }
    // Each queued request would wait for a timeout of its own, so all are rejected now.
    const queuedBehind = isStoreUnavailable ? this.#take(this.#queue.length) : [];
    for (const { reject } of [...group, ...queuedBehind]) reject(cause);
    await this.#options.onUncertainCommit();
  }

  #settle(group: readonly QueuedAppend[], outcomes: readonly AppendOutcome[]): void {
    for (const [index, { resolve }] of group.entries()) {
      const outcome = outcomes[index];
      if (outcome === undefined) continue; // Cannot happen: the store returns one outcome per request.
      resolve(outcome);
      if (outcome.kind === 'appended') this.#options.onAppended(outcome.added);
    }
  }
}

function getSize({ events }: AppendRequest): Size {
  let recipients = 0;
  let bytes = 0;
  for (const { audiences, data } of events) {
    recipients += audiences.length;
    bytes += Buffer.byteLength(data);
  }
  return { events: events.length, recipients, bytes };
}

function addSizes(a: Size, b: Size, sign: 1 | -1 = 1): Size {
  return {
    events: a.events + sign * b.events,
    recipients: a.recipients + sign * b.recipients,
    bytes: a.bytes + sign * b.bytes,
  };
}

function exceeds(size: Size, max: Size): boolean {
  return size.events > max.events || size.recipients > max.recipients || size.bytes > max.bytes;
}
