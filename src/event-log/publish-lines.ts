import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import {
  addressesPerRequestMax,
  type NewEvent,
  type PublishLimits,
  parseEvent,
} from '../events/publish-request.js';
import type { AppendRequest } from './log-store.js';

/** What is published together. Depends on the lines alone, so that a retry makes the same groups. */
export const groupMax = { events: 500, bytes: 1024 * 1024, addresses: addressesPerRequestMax };

export interface PublishLinesParts {
  readonly limits: PublishLimits;
  readonly clock: () => number;
  readonly publish: (
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ) => Promise<readonly (string | null)[]>;
  /** The key of a group, where the publisher gave one for the whole. */
  readonly keyHash: ((group: number) => string) | undefined;
}

export interface PublishedLines {
  readonly published: number;
  /** Of the newest that is in the log; null when all were volatile. */
  readonly lastId: string | null;
}

/**
 * Publishes events as they come, in groups: each group is written whole or not at all, and the next is
 * read when it is durable. So however long the whole is, a megabyte or so of it is held at a time.
 *
 * Throws what `parseEvent`, `lines` and `publish` throw, with `published` in `info`: how many events
 * came before that, and stay. With keys a retry of the whole publishes only what is missing.
 */
export async function publishLines(
  lines: AsyncIterable<unknown>,
  { limits, clock, publish, keyHash }: PublishLinesParts,
): Promise<PublishedLines> {
  let published = 0;
  let groups = 0;
  let lastId: string | null = null;
  let group = new Group();
  const send = async () => {
    const idempotency = keyHash && { keyHash: keyHash(groups), bodyHash: group.hash() };
    const ids = await publish(group.events, idempotency);
    lastId = ids.findLast((id) => id !== null) ?? lastId;
    published += ids.length;
    groups += 1;
    group = new Group();
  };
  try {
    for await (const line of lines) {
      group.add(parseEvent(line, limits, clock(), published + group.events.length), line);
      if (group.isFull) await send();
    }
    if (group.events.length > 0) await send();
    if (published === 0) throw new Failure('invalid_request', 'Cannot publish: no events');
  } catch (cause) {
    throw cause instanceof Failure ? withCount(cause, published) : cause;
  }
  return { published, lastId };
}

class Group {
  readonly events: NewEvent[] = [];
  readonly #hash = createHash('sha256');
  #bytes = 0;
  #addresses = 0;

  get isFull(): boolean {
    const { events, bytes, addresses } = groupMax;
    return this.events.length >= events || this.#bytes >= bytes || this.#addresses >= addresses;
  }

  add(event: NewEvent, line: unknown): void {
    this.events.push(event);
    this.#bytes += event.data.length;
    this.#addresses += event.audiences.length;
    this.#hash.update(`${JSON.stringify(line)}\n`);
  }

  /** Of all that was added. To be called once. */
  hash(): string {
    return this.#hash.digest('hex');
  }
}

function withCount({ name, message, info, headers, cause }: Failure, published: number): Failure {
  return new Failure(name, message, { info: { ...info, published }, headers, cause });
}
