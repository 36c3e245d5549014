import { controlFrame } from '../events/frame.js';
import type { EventStream } from './event-stream.js';
import type { Registry } from './registry.js';

/** Maximum number of streams to which the count is sent per tick, on average. */
const streamsPerTickMax = 1000;

/**
 * Sends the number of connected users to every stream in a `count` event: when the number has changed, at
 * most once per tick, and on average to at most 1000 streams per tick. A stream that is not live, or whose
 * unsent bytes are over the soft limit, gets the count at a later tick.
 */
export class UserCount {
  readonly #registry: Pick<Registry, 'userCount' | 'streams'>;
  /** Streams to which the current count has not been sent. */
  readonly #outdated = new Set<EventStream>();
  #count = 0;
  #remoteUserCount = 0;
  /** Ticks to skip before the count is sent again. */
  #ticksToSkip = 0;

  constructor(registry: Pick<Registry, 'userCount' | 'streams'>) {
    this.#registry = registry;
  }

  /** Sets the number of users who are connected to other processes. */
  set remoteUserCount(count: number) {
    this.#remoteUserCount = count;
  }

  /** Adds an opened stream. It receives the count even if the count does not change. */
  add(stream: EventStream): void {
    this.#outdated.add(stream);
  }

  /** Removes a stream that has ended. Idempotent. */
  remove(stream: EventStream): void {
    this.#outdated.delete(stream);
  }

  /** Sends the count to outdated streams when due. Call it every `tickMs`. */
  tick(): void {
    if (this.#ticksToSkip > 0) this.#ticksToSkip -= 1;
    else this.#send();
  }

  #send(): void {
    const count = this.#registry.userCount + this.#remoteUserCount;
    if (count !== this.#count) {
      this.#count = count;
      for (const stream of this.#registry.streams) this.#outdated.add(stream);
    }
    if (this.#outdated.size === 0) return;
    // While thousands of clients connect or disconnect, sending each change would be most of the work.
    this.#ticksToSkip = Math.floor(this.#outdated.size / streamsPerTickMax);
    const frame = controlFrame('count', count);
    for (const stream of this.#outdated) {
      if (stream.pushVolatile(frame)) this.#outdated.delete(stream); // Otherwise tried again at a later tick.
    }
  }
}
