import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import { createEventFailure } from '../events/event-failure.js';
import {
  type NewEvent,
  type PublishedJson,
  type PublishLimits,
  parseEvent,
  recipientsPerRequestMax,
} from '../events/publish-request.js';
import { minify } from '../events/raw-json.js';
import { type BodyBudget, budgetExhausted } from '../http/body/body-budget.js';
import type { AppendRequest } from './log-store.js';

/** Maximum time from the arrival of the first line of a batch until the batch is written. */
const flushMs = 50;
/** Limits of one batch. They depend only on the lines, so that a retry has the same batches. */
const batchMax = { events: 500, bytes: 1024 * 1024, recipients: recipientsPerRequestMax };

export interface PublishLinesParts {
  readonly limits: PublishLimits;
  readonly wallClock: () => number;
  /** Limits the memory that all bodies hold together. */
  readonly budget: BodyBudget;
  readonly publish: (
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ) => Promise<readonly (string | null)[]>;
  /** The idempotency key of the request. If it is set, no line may have its own key. */
  readonly key: string | undefined;
  /** Aborts when the server stops. `lines` then throws the reason of the signal. */
  readonly signal: AbortSignal;
}

export interface PublishedLines {
  readonly published: number;
  /** Id of the newest published event; null when all were volatile. */
  readonly lastId: string | null;
}

/**
 * Publishes events in batches as they arrive. A batch is written atomically when it is full, and at the
 * latest 50 ms after its first line arrived. If the request has a key, a batch is written only when it is
 * full or the input ends, so that a retry has the same batches. The lines of the next batch are read after
 * the previous batch is durable. So a request of any length holds about 1 MiB and one line in memory. This
 * memory counts towards the budget.
 *
 * Throws the errors of `parseEvent`, `lines` and `publish`. Throws `invalid_request` when there are no lines,
 * or when the request and a line both have a key, and `service_unavailable` when the budget is exhausted.
 * The `info` of each failure has `published`, the number of events published before the failure. With
 * idempotency keys, a retry of all lines publishes only the missing events. When the signal aborts, the batch
 * that has been read is published first, unless the request has a key.
 */
export async function publishLines(
  lines: AsyncIterable<PublishedJson>,
  { limits, wallClock, budget, publish, key, signal }: PublishLinesParts,
): Promise<PublishedLines> {
  let published = 0;
  let batchCount = 0;
  let lastId: string | null = null;
  let batch = new LineBatch(budget);
  const publishBatch = async () => {
    // The key of a batch is the key of the request and the number of the batch.
    const idempotency =
      key === undefined ? undefined : { key: `${key}\n${batchCount}`, bodyHash: batch.hash() };
    const ids = await publish(batch.events, idempotency);
    lastId = ids.findLast((id) => id !== null) ?? lastId;
    published += ids.length;
    batchCount += 1;
    batch.release();
    batch = new LineBatch(budget);
  };
  const iterator = lines[Symbol.asyncIterator]();
  try {
    for (let reading = iterator.next(); ; ) {
      const hasDeadline = key === undefined && batch.events.length > 0;
      if (hasDeadline && !(await settlesWithin(reading, batch.dueAt - performance.now())))
        await publishBatch();
      const { done, value } = await reading;
      if (done === true) break;
      const index = published + batch.events.length;
      const event = parseEvent(value, limits, wallClock(), index);
      if (key !== undefined) assertNoOwnKey(event);
      batch.add(event, value);
      if (batch.isFull) await publishBatch();
      reading = iterator.next();
    }
    if (batch.events.length > 0) await publishBatch();
    if (published === 0) throw new Failure('invalid_request', 'Cannot publish: no events');
  } catch (cause) {
    void iterator.return?.(); // Not awaited, because it waits for the next line.
    const isStopping = signal.aborted && cause === signal.reason;
    if (isStopping && key === undefined && batch.events.length > 0) await publishBatch();
    throw cause instanceof Failure ? addPublishedCount(cause, published) : cause;
  } finally {
    batch.release();
  }
  return { published, lastId };
}

/** Returns whether the promise settles within `ms`. */
async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), Math.max(0, ms));
  });
  const settled = promise.then(
    () => true,
    () => true, // The caller handles the error.
  );
  try {
    return await Promise.race([settled, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

class LineBatch {
  readonly events: NewEvent[] = [];
  readonly #budget: BodyBudget;
  readonly #hash = createHash('sha256');
  #bytes = 0;
  #recipients = 0;
  #acquiredBytes = 0;
  #dueAt = Number.POSITIVE_INFINITY;

  constructor(budget: BodyBudget) {
    this.#budget = budget;
  }

  /** Time at which the batch is written even if it is not full, by the clock of `performance.now()`. */
  get dueAt(): number {
    return this.#dueAt;
  }

  get isFull(): boolean {
    const { events, bytes, recipients } = batchMax;
    return this.events.length >= events || this.#bytes >= bytes || this.#recipients >= recipients;
  }

  /** Throws `service_unavailable` when the budget is exhausted. */
  add(event: NewEvent, line: PublishedJson): void {
    const lineBytes = Buffer.byteLength(line.text);
    if (!this.#budget.tryAcquire(lineBytes)) throw budgetExhausted();
    this.#acquiredBytes += lineBytes;
    if (this.events.length === 0) this.#dueAt = performance.now() + flushMs;
    this.events.push(event);
    this.#bytes += Buffer.byteLength(event.data);
    this.#recipients += event.audiences.length;
    this.#hash.update(`${minify(line.text)}\n`);
  }

  /** Releases the bytes of the batch to the budget. Idempotent. */
  release(): void {
    this.#budget.release(this.#acquiredBytes);
    this.#acquiredBytes = 0;
  }

  /** Returns the hash of all added lines. Call it once. */
  hash(): string {
    return this.#hash.digest('hex');
  }
}

/** Throws `invalid_request` if an event of a request with an idempotency key has its own key, too. */
export function assertNoOwnKey({ idempotency }: NewEvent): void {
  if (idempotency === undefined) return;
  const reason = 'idempotencyKey and the header Idempotency-Key exclude each other';
  const { index } = idempotency;
  throw createEventFailure('invalid_request', reason, { field: 'idempotencyKey', index });
}

function addPublishedCount(
  { name, message, info, headers, cause }: Failure,
  published: number,
): Failure {
  return new Failure(name, message, { info: { ...info, published }, headers, cause });
}
