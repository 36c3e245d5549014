import { Failure } from '../errors.js';

interface PendingItem<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (cause: unknown) => void;
}

const batchSizeMax = 32;
const waitingMax = 2000;
const inFlightMax = 2;

export interface BatcherOptions {
  /**
   * Begins in the turn in which it is asked, as long as fewer than two batches are under way: where
   * work is no trip to another program, to wait for more saves nothing, and what is answered a turn
   * later costs a new connection 10 KiB, which Node keeps for what it writes in parts.
   */
  readonly isImmediate: boolean;
}

/**
 * Does together what many ask for one by one: what is asked for in one turn of the event loop, and
 * while two batches are under way, up to 32 items. The work for an item begins after it was asked for,
 * never before, so it sees all that was there then. At most 2,000 wait.
 */
export class Batcher<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #isImmediate: boolean;
  #waiting: PendingItem<Item, Result>[] = [];
  #inFlight = 0;
  #isScheduled = false;

  /** `work` answers with one result for each item, in their order. */
  constructor(
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
    { isImmediate }: BatcherOptions,
  ) {
    this.#work = work;
    this.#isImmediate = isImmediate;
  }

  /** For work that is a statement on this database. */
  static forDatabase<Item, Result>(
    { dialect }: { readonly dialect: string },
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
  ): Batcher<Item, Result> {
    return new Batcher(work, { isImmediate: dialect === 'sqlite' });
  }

  /**
   * Rejects as `work` does for this item; with a Failure when it failed for a batch before it, too: who
   * waits would wait for one deadline after the other. Rejects with `service_unavailable` when too many
   * wait.
   */
  run(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length >= waitingMax) {
        reject(new Failure('service_unavailable', 'Cannot process request now: the queue is full'));
        return;
      }
      this.#waiting.push({ item, resolve, reject });
      this.#startBatches();
    });
  }

  #startBatches(): void {
    const isFull = this.#inFlight === inFlightMax;
    if (this.#isScheduled || isFull || this.#waiting.length === 0) return;
    if (this.#isImmediate) {
      void this.#runBatch(this.#waiting.splice(0, batchSizeMax));
      return;
    }
    // At the end of the turn, and once more for what is left then.
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      const batch = this.#waiting.splice(0, batchSizeMax);
      if (batch.length > 0) void this.#runBatch(batch); // None when a failure took them meanwhile.
      this.#startBatches();
    });
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
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result);
    } catch (cause) {
      if (cause instanceof Failure) {
        for (const { reject } of [...batch, ...this.#waiting.splice(0)]) reject(cause);
      } else if (batch.length === 1) {
        for (const { reject } of batch) reject(cause);
      } else {
        // One that cannot be done must not take the others with it.
        for (const one of batch) await this.#settle([one]);
      }
    }
  }
}
