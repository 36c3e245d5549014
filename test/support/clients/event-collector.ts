import { createParser } from 'eventsource-parser';
import { observeEvent } from '../openapi/observer.js';
import { withDeadline } from '../with-deadline.js';

export interface ReceivedEvent {
  readonly type: string;
  readonly id: string | undefined;
  readonly data: string;
}

/** The members of `stream.open` that say where a stream starts. */
export interface Opening {
  readonly resumed: boolean;
  readonly reason: string;
  readonly id: string;
}

/** The members of `stream.close` that most tests compare. */
export interface Closing {
  readonly code: string;
  readonly reconnect: boolean;
}

export function parseOpening(data: string): Opening {
  const { resumed, reason, id } = JSON.parse(data);
  return { resumed, reason, id };
}

export function parseClosing(data: string): Closing {
  const { code, reconnect } = JSON.parse(data);
  return { code, reconnect };
}

interface Waiter {
  readonly check: () => boolean;
  readonly reject: (cause: Error) => void;
}

/** Collects the events of a stream, which an independent parser reads, and waits for events. */
export class EventCollector {
  readonly events: ReceivedEvent[] = [];
  readonly retries: number[] = [];
  comments = 0;
  isEnded = false;
  #waiters: Waiter[] = [];
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    onEvent: ({ event = 'message', id, data }) => {
      observeEvent(event, data);
      this.events.push({ type: event, id, data });
    },
    onRetry: (retryMs) => this.retries.push(retryMs),
    onComment: () => {
      this.comments += 1;
    },
  });

  feed(bytes: Uint8Array): void {
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
    this.#checkWaiters();
  }

  /** Rejects all pending waits. Call it when the stream has ended, for any reason. Idempotent. */
  end(): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.#checkWaiters();
    for (const { reject } of this.#waiters.splice(0)) {
      reject(new Error(`the stream ended after ${JSON.stringify(this.events.slice(-5))}`));
    }
  }

  /** Ids of the received events that the event log stores, in order of arrival. */
  get ids(): string[] {
    return this.events.flatMap(({ type, id }) => (type.startsWith('stream.') ? [] : (id ?? [])));
  }

  /** The last of `ids`. */
  get lastId(): string | undefined {
    return this.ids.at(-1);
  }

  /** Returns the data of all events of a type. */
  dataByType(type: string): string[] {
    return this.events.filter((event) => event.type === type).map(({ data }) => data);
  }

  /** Settles with the first event of a type, past or future; rejects when the stream ends first. */
  event(type: string): Promise<ReceivedEvent> {
    return this.until(() => this.events.find((event) => event.type === type), type);
  }

  /** Settles with the start of the stream, as its `stream.open` describes it. */
  async opening(): Promise<Opening> {
    return parseOpening((await this.event('stream.open')).data);
  }

  /** Settles with the data of `stream.close` once the stream has ended; undefined if it sent none. */
  async closing(): Promise<Closing | undefined> {
    await this.ended();
    const [data] = this.dataByType('stream.close');
    return data === undefined ? undefined : parseClosing(data);
  }

  /** Settles with `open`, or with the code of the `stream.close` that rejects the stream. */
  async outcome(): Promise<string> {
    const first = await this.until(
      () => this.events.find(({ type }) => type === 'stream.open' || type === 'stream.close'),
      'stream.open or stream.close',
    );
    return first.type === 'stream.open' ? 'open' : JSON.parse(first.data).code;
  }

  /** Settles when the stream has ended. */
  async ended(): Promise<void> {
    await this.until(() => (this.isEnded ? true : undefined), 'the end of the stream');
  }

  /**
   * Calls `find` after each event, and settles with its first defined result. Rejects when the stream ends
   * first, and after a minute with `missing`, by default the source text of `find`.
   */
  until<Found>(find: () => Found | undefined, missing = String(find)): Promise<Found> {
    const found = this.#waitFor(find);
    return withDeadline(found, () => `${missing}; last: ${JSON.stringify(this.events.slice(-3))}`);
  }

  #waitFor<Found>(find: () => Found | undefined): Promise<Found> {
    return new Promise((resolve, reject) => {
      const check = (): boolean => {
        const found = find();
        if (found !== undefined) resolve(found);
        return found !== undefined;
      };
      if (check()) return;
      if (this.isEnded) reject(new Error('the stream has ended'));
      else this.#waiters.push({ check, reject });
    });
  }

  #checkWaiters(): void {
    this.#waiters = this.#waiters.filter(({ check }) => !check());
  }
}
