import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import {
  type NewEvent,
  type PublishLimits,
  parseEvent,
  recipientsPerRequestMax,
} from '../events/publish-request.js';
import type { AppendRequest } from './log-store.js';

/** Limits of one batch. They depend only on the lines, so that a retry has the same batches. */
export const batchMax = { events: 500, bytes: 1024 * 1024, recipients: recipientsPerRequestMax };

export interface PublishLinesParts {
  readonly limits: PublishLimits;
  readonly wallClock: () => number;
  readonly publish: (
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ) => Promise<readonly (string | null)[]>;
  /** Derives the idempotency key of a batch; undefined when the request has no key. */
  readonly keyHash: ((batchIndex: number) => string) | undefined;
}

export interface PublishedLines {
  readonly published: number;
  /** Id of the newest published event; null when all were volatile. */
  readonly lastId: string | null;
}

/**
 * Publishes events as they arrive, in batches. A batch is written atomically, and the next one is
 * read when it is durable. Memory is therefore limited to about 1 MiB and one line for any length
 * of input.
 *
 * Throws what `parseEvent`, `lines` and `publish` throw, with `published` in `info`: the number of
 * events that were published before. With keys, a retry of all lines publishes only the missing
 * ones.
 */
export async function publishLines(
  lines: AsyncIterable<unknown>,
  { limits, wallClock, publish, keyHash }: PublishLinesParts,
): Promise<PublishedLines> {
  let published = 0;
  let batchCount = 0;
  let lastId: string | null = null;
  let batch = new LineBatch();
  const publishBatch = async () => {
    const idempotency = keyHash && { keyHash: keyHash(batchCount), bodyHash: batch.hash() };
    const ids = await publish(batch.events, idempotency);
    lastId = ids.findLast((id) => id !== null) ?? lastId;
    published += ids.length;
    batchCount += 1;
    batch = new LineBatch();
  };
  try {
    for await (const line of lines) {
      batch.add(parseEvent(line, limits, wallClock(), published + batch.events.length), line);
      if (batch.isFull) await publishBatch();
    }
    if (batch.events.length > 0) await publishBatch();
    if (published === 0) throw new Failure('invalid_request', 'Cannot publish: no events');
  } catch (cause) {
    throw cause instanceof Failure ? addPublishedCount(cause, published) : cause;
  }
  return { published, lastId };
}

class LineBatch {
  readonly events: NewEvent[] = [];
  readonly #hash = createHash('sha256');
  #bytes = 0;
  #recipients = 0;

  get isFull(): boolean {
    const { events, bytes, recipients } = batchMax;
    return this.events.length >= events || this.#bytes >= bytes || this.#recipients >= recipients;
  }

  add(event: NewEvent, line: unknown): void {
    this.events.push(event);
    this.#bytes += event.data.length;
    this.#recipients += event.audiences.length;
    this.#hash.update(`${JSON.stringify(line)}\n`);
  }

  /** Returns the hash of all added lines. Call it once. */
  hash(): string {
    return this.#hash.digest('hex');
  }
}

function addPublishedCount(
  { name, message, info, headers, cause }: Failure,
  published: number,
): Failure {
  return new Failure(name, message, { info: { ...info, published }, headers, cause });
}
