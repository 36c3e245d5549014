import { controlFrame } from '../events/frame.js';
import type { EventStream } from './event-stream.js';
import type { Registry } from './registry.js';

/** Streams that are sent a new count in one tick, on average. */
const sentPerTick = 1000;

/**
 * Sends every stream the number of users who are connected, as `count`: when it changes, at most once
 * a tick, and to 1000 streams a tick on average. A stream that is behind gets it once it has caught up.
 */
export class UserCount {
  readonly #registry: Pick<Registry, 'users' | 'streams'>;
  /** Streams that have not been sent the present count. */
  readonly #outdated = new Set<EventStream>();
  #count = 0;
  #remoteUsers = 0;
  /** Ticks to skip before the count is sent again. */
  #ticksToSkip = 0;

  constructor(registry: Pick<Registry, 'users' | 'streams'>) {
    this.#registry = registry;
  }

  /** Users who are connected to other processes. */
  set remoteUsers(users: number) {
    this.#remoteUsers = users;
  }

  /** Streams that wait for the count. */
  get waiting(): number {
    return this.#outdated.size;
  }

  /** A stream that was opened: it is sent the count at the next tick. */
  add(stream: EventStream): void {
    this.#outdated.add(stream);
  }

  /** Forgets a stream that has ended. Idempotent. */
  remove(stream: EventStream): void {
    this.#outdated.delete(stream);
  }

  /** To be called every `tickMs`. */
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
    // While thousands come or go it changes all the time, and sending it would be most of the work.
    this.#ticksToSkip = Math.floor(this.#outdated.size / sentPerTick);
    const frame = controlFrame('count', count);
    for (const stream of this.#outdated) {
      if (stream.pushVolatile(frame)) this.#outdated.delete(stream); // Else at a later tick.
    }
  }
}
