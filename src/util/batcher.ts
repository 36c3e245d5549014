import { Failure } from '../errors.js';

interface Caller<Result> {
  readonly resolve: (result: Result) => void;
  readonly reject: (cause: unknown) => void;
}

interface PendingItem<Item, Result> {
  readonly item: Item;
  readonly callers: Caller<Result>[];
}

const batchSizeMax = 32;
const waitingMax = 2000;
const inFlightMax = 2;

export interface BatcherOptions {
  /**
   * Whether a batch starts synchronously while fewer than two are in flight. Set it for work without a
   * round trip to another process. For such work, waiting for more items saves nothing and costs memory: on a
   * new connection, Node retains 10 KiB if the response is sent one event-loop turn later.
   */
  readonly isImmediate: boolean;
}

/**
 * Coalesces single requests into batches of up to 32 items. A batch contains the items requested in one
 * event-loop turn, or those that arrived while two batches were in flight. It starts after its last item
 * was requested, so it sees everything that was committed before any of its requests. At most 2,000
 * items wait. While an item (a text or a number) waits, further requests for it are added to it, so that a
 * client that repeats a request cannot fill the queue.
 */
export class Batcher<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #isImmediate: boolean;
  readonly #waiting = new Map<Item, PendingItem<Item, Result>>();
  #inFlight = 0;
  #isScheduled = false;

  /** `work` returns one result per item, in the same order. */
  constructor(
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
    { isImmediate }: BatcherOptions,
  ) {
    this.#work = work;
    this.#isImmediate = isImmediate;
  }

  /**
   * Creates a batcher for statements on a database. It is immediate for SQLite, which runs in this
   * process.
   */
  static forDatabase<Item, Result>(
    { dialect }: { readonly dialect: string },
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
  ): Batcher<Item, Result> {
    return new Batcher(work, { isImmediate: dialect === 'sqlite' });
  }

  /**
   * Adds an item to a batch and resolves with its result. Rejects with `service_unavailable` when 2,000
   * items wait.
   *
   * If `work` rejects with a `Failure`, all items of the batch and all waiting items reject with it.
   * Otherwise the waiting items would have to wait until each batch before them exceeds its deadline. If
   * `work` rejects with another error, each item of the batch is processed again alone, so that only the
   * failing items reject.
   */
  run(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(item);
      if (waiting !== undefined) {
        waiting.callers.push({ resolve, reject });
        return;
      }
      if (this.#waiting.size >= waitingMax) {
        reject(new Failure('service_unavailable', 'Cannot process request now: the queue is full'));
        return;
      }
      this.#waiting.set(item, { item, callers: [{ resolve, reject }] });
      this.#startBatches();
    });
  }

  #startBatches(): void {
    const isFull = this.#inFlight === inFlightMax;
    if (this.#isScheduled || isFull || this.#waiting.size === 0) return;
    if (this.#isImmediate) {
      void this.#runBatch(this.#takeWaiting(batchSizeMax));
      return;
    }
    // Starts a batch at the end of the turn, and then another one if items are left over.
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      const batch = this.#takeWaiting(batchSizeMax);
      if (batch.length > 0) void this.#runBatch(batch); // Empty if a `Failure` rejected all waiting items.
      this.#startBatches();
    });
  }

  /** Removes and returns the first waiting items. */
  #takeWaiting(countMax: number): PendingItem<Item, Result>[] {
    const taken: PendingItem<Item, Result>[] = [];
    for (const [item, pendingItem] of this.#waiting) {
      if (taken.length === countMax) break;
      this.#waiting.delete(item);
      taken.push(pendingItem);
    }
    return taken;
  }

  async #runBatch(batch: readonly PendingItem<Item, Result>[]): Promise<void> {
    this.#inFlight += 1;
    await this.#settle(batch);
    this.#inFlight -= 1;
    this.#startBatches();
  }

  async #settle(batch: readonly PendingItem<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#work(batch.map(({ item }) => item));
      for (const [index, { callers }] of batch.entries()) {
        for (const { resolve } of callers) resolve(results[index] as Result);
      }
    } catch (cause) {
      if (cause instanceof Failure) {
        rejectAll([...batch, ...this.#takeWaiting(waitingMax)], cause);
      } else if (batch.length === 1) {
        rejectAll(batch, cause);
      } else {
        // One bad item must not fail the others.
        for (const pendingItem of batch) await this.#settle([pendingItem]);
      }
    }
  }
}

function rejectAll<Item, Result>(
  pendingItems: readonly PendingItem<Item, Result>[],
  cause: unknown,
): void {
  for (const { callers } of pendingItems) for (const { reject } of callers) reject(cause);
}
