import { controlFrame } from '../events/frame.js';
import type { EventStream } from './event-stream.js';
import type { Registry } from './registry.js';

/** Average number of streams to which the count is sent per tick. */
const sentPerTick = 1000;

/**
 * Sends the number of connected users to every stream in a `count` event: when it changes, at most
 * once per tick, and to 1000 streams per tick on average. A stream that is not live gets the
 * count once it is live again.
 */
export class UserCount {
  readonly #registry: Pick<Registry, 'users' | 'streams'>;
  /** Streams that have not been sent the current count. */
  readonly #outdated = new Set<EventStream>();
  #count = 0;
  #remoteUsers = 0;
  /** Ticks to skip before the count is sent again. */
  #ticksToSkip = 0;

  constructor(registry: Pick<Registry, 'users' | 'streams'>) {
    this.#registry = registry;
  }

  /** Sets the number of users who are connected to other processes. */
  set remoteUsers(users: number) {
    this.#remoteUsers = users;
  }

  /** Number of streams that have not been sent the current count. */
  get waiting(): number {
    return this.#outdated.size;
  }

  /** Adds an opened stream. It receives the count the next time that the count is sent. */
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
    const count = this.#registry.users + this.#remoteUsers;
    if (count !== this.#count) {
      this.#count = count;
      for (const stream of this.#registry.streams) this.#outdated.add(stream);
    }
    if (this.#outdated.size === 0) return;
    // While thousands connect or disconnect, sending every change would be most of the work.
    this.#ticksToSkip = Math.floor(this.#outdated.size / sentPerTick);
    const frame = controlFrame('count', count);
    for (const stream of this.#outdated) {
      if (stream.pushVolatile(frame)) this.#outdated.delete(stream); // Otherwise sent again later.
    }
  }
}
