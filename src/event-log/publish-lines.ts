import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import {
  createEventFailure,
  type NewEvent,
  type PublishedJson,
  type PublishLimits,
  parseEvent,
  recipientsPerRequestMax,
} from '../events/publish-request.js';
import { minify } from '../events/raw-json.js';
import { type BodyBudget, budgetExhausted } from '../http/body/body-budget.js';
import type { AppendRequest } from './log-store.js';

/** After the first line of a batch. */
const flushMs = 50;
/** Limits of one batch. They depend only on the lines, so that a retry has the same batches. */
const batchMax = { events: 500, bytes: 1024 * 1024, recipients: recipientsPerRequestMax };

export interface PublishLinesParts {
  readonly limits: PublishLimits;
  readonly wallClock: () => number;
  /** The memory that bodies may hold together. */
  readonly budget: BodyBudget;
  readonly publish: (
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ) => Promise<readonly (string | null)[]>;
  /** The idempotency key of the request. Then no line may have one of its own. */
  readonly key: string | undefined;
}

export interface PublishedLines {
  readonly published: number;
  /** Id of the newest published event; null when all were volatile. */
  readonly lastId: string | null;
}

/**
 * Publishes events as they arrive, in batches. A batch is written atomically, and the next one is
 * read when it is durable. A batch is written when it is full, and at the latest 50 ms after its first
 * line arrived. A request with a key waits until it is full, so that a retry has the same batches; lines
 * with keys of their own need no waiting. Memory
 * is therefore limited to about 1 MiB and one line for any length of input, and counts towards the
 * budget.
 *
 * Throws what `parseEvent`, `lines` and `publish` throw, and `service_unavailable` when the budget is
 * exhausted, with `published` in `info`: the number of events that were published before. With keys, a
 * retry of all lines publishes only the missing ones.
 */
export async function publishLines(
  lines: AsyncIterable<PublishedJson>,
  { limits, wallClock, budget, publish, key }: PublishLinesParts,
): Promise<PublishedLines> {
  let published = 0;
  let batchCount = 0;
  let lastId: string | null = null;
  let batch = new LineBatch(budget);
  const publishBatch = async () => {
    // Each batch has a key of its own.
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
      const isWaiting = key === undefined && batch.events.length > 0;
      if (isWaiting && !(await settlesWithin(reading, batch.dueAt - performance.now())))
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
    throw cause instanceof Failure ? addPublishedCount(cause, published) : cause;
  } finally {
    batch.release();
  }
  return { published, lastId };
}

/** Returns whether the promise settles within `ms`. */
async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), Math.max(0, ms));
  });
  const settled = promise.then(
    () => true,
    () => true, // The caller handles the error.
  );
  try {
    return await Promise.race([settled, late]);
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

  /** When the batch is written even if it is not full, by `performance.now()`. */
  get dueAt(): number {
    return this.#dueAt;
  }

  get isFull(): boolean {
    const { events, bytes, recipients } = batchMax;
    return this.events.length >= events || this.#bytes >= bytes || this.#recipients >= recipients;
  }

  /** Throws `service_unavailable` when the budget is exhausted. */
  add(event: NewEvent, line: PublishedJson): void {
    if (!this.#budget.acquire(line.text.length)) throw budgetExhausted();
    this.#acquiredBytes += line.text.length;
    if (this.events.length === 0) this.#dueAt = performance.now() + flushMs;
    this.events.push(event);
    this.#bytes += event.data.length;
    this.#recipients += event.audiences.length;
    this.#hash.update(`${minify(line.text)}\n`);
  }

  /** Gives the bytes back to the budget. Idempotent. */
  release(): void {
    this.#budget.release(this.#acquiredBytes);
    this.#acquiredBytes = 0;
  }

  /** Returns the hash of all added lines. Call it once. */
  hash(): string {
    return this.#hash.digest('hex');
  }
}

/** Throws `invalid_request` if an event of a request with an idempotency key has one of its own. */
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
