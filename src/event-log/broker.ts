import { encodeFrame } from '../events/frame.js';
import type { NewEvent } from '../events/publish-request.js';
import type { Registry } from '../stream/registry.js';
import type { Appended, EventLog } from './event-log.js';
import type { AppendRequest } from './log-store.js';

const nothing: Appended = { ids: [], isRepeated: false };

/** Publishing: the log first, then delivery in the order of the log. */
export class Broker {
  readonly #log: EventLog;
  readonly #registry: Registry;

  constructor({ log, registry }: { log: EventLog; registry: Registry }) {
    this.#log = log;
    this.#registry = registry;
    log.follow({
      deliver: ({ audiences }, frame) => registry.deliver(audiences, frame),
      gap: () => registry.closeAll('behind'), // On return, `stream.open` tells what is lost.
    });
  }

  /**
   * Answers the id of each event once all that belong in the log are durable; null for the volatile
   * ones, which have none. What was published before under the same idempotency key is not published
   * again; but events that are all volatile leave nothing to remember them by.
   *
   * Throws `service_unavailable` when the log cannot take them, `conflict` when the idempotency key was
   * used for another body; then nothing was published.
   */
  async publish(
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ): Promise<readonly (string | null)[]> {
    const logged = events.filter((event) => !event.volatile);
    const { ids, isRepeated } =
      logged.length === 0 ? nothing : await this.#log.append({ events: logged, idempotency });
    for (const event of events) {
      if (event.volatile && !isRepeated) this.#deliverVolatile(event);
    }
    let next = 0;
    return events.map((event) => (event.volatile ? null : (ids[next++] ?? null)));
  }

  #deliverVolatile({ audiences, type, data }: NewEvent): void {
    const bytes = encodeFrame(type === undefined ? { data } : { event: type, data });
    this.#registry.deliverVolatile(audiences, { seq: 0, bytes });
  }
}
