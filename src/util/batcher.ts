import { Failure } from '../errors.js';

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (cause: unknown) => void;
}

const sizeMax = 32;
const waitingMax = 2000;
const underWayMax = 2;

export interface BatcherOptions {
  /**
   * Begins in the turn in which it is asked, as long as fewer than two batches are under way: where
   * work is no trip to another program, to wait for more saves nothing, and what is answered a turn
   * later costs a new connection 10 KiB, which Node keeps for what it writes in parts.
   */
  readonly isAtOnce: boolean;
}

/**
 * Does together what many ask for one by one: what is asked for in one turn of the event loop, and
 * while two batches are under way, up to 32 items. The work for an item begins after it was asked for,
 * never before, so it sees all that was there then. At most 2,000 wait.
 */
export class Batcher<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #isAtOnce: boolean;
  #waiting: Waiting<Item, Result>[] = [];
  #underWay = 0;
  #isBeginning = false;

  /** `work` answers with one result for each item, in their order. */
  constructor(
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
    { isAtOnce }: BatcherOptions,
  ) {
    this.#work = work;
    this.#isAtOnce = isAtOnce;
  }

  /** For work that is a statement on this database. */
  static on<Item, Result>(
    { dialect }: { readonly dialect: string },
    work: (items: readonly Item[]) => Promise<readonly Result[]>,
  ): Batcher<Item, Result> {
    return new Batcher(work, { isAtOnce: dialect === 'sqlite' });
  }

  /**
   * Rejects as `work` does for this item; with a Failure when it failed for a batch before it, too: who
   * waits would wait for one deadline after the other. Rejects with `service_unavailable` when too many
   * wait.
   */
  run(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length >= waitingMax) {
        reject(new Failure('service_unavailable', 'Cannot do this now: too many are waiting'));
        return;
      }
      this.#waiting.push({ item, resolve, reject });
      this.#begin();
    });
  }

  #begin(): void {
    const isFull = this.#underWay === underWayMax;
    if (this.#isBeginning || isFull || this.#waiting.length === 0) return;
    if (this.#isAtOnce) {
      void this.#workOn(this.#waiting.splice(0, sizeMax));
      return;
    }
    // At the end of the turn, and once more for what is left then.
    this.#isBeginning = true;
    setImmediate(() => {
      this.#isBeginning = false;
      const batch = this.#waiting.splice(0, sizeMax);
      if (batch.length > 0) void this.#workOn(batch); // None when a failure took them meanwhile.
      this.#begin();
    });
  }

  async #workOn(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    this.#underWay += 1;
    await this.#settle(batch);
    this.#underWay -= 1;
    this.#begin();
  }

  async #settle(batch: readonly Waiting<Item, Result>[]): Promise<void> {
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
