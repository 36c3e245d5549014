import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * Limits the number of items that are processed in one turn of the event loop, over all calls of `run`, so that many
 * small calls do not block the event loop either.
 */
export class TurnBudget {
  readonly #itemsMax: number;
  #usedInTurn = 0;

  constructor(itemsMax: number) {
    this.#itemsMax = itemsMax;
  }

  /**
   * Calls `work` for each item in order. As many items as the budget of this turn has left are processed
   * synchronously. Returns undefined if these were all, and otherwise a promise that resolves after the last item. If
   * `work` throws, the items after it are not processed, and `run` throws or the promise rejects.
   */
  run<Item>(items: readonly Item[], work: (item: Item) => void): Promise<void> | undefined {
    const rest = this.#processSlice(items, work);
    return rest.length === 0 ? undefined : this.#processLater(rest, work);
  }

  async #processLater<Item>(items: readonly Item[], work: (item: Item) => void): Promise<void> {
    for (let rest = items; rest.length > 0; ) {
      await nextTurn();
      rest = this.#processSlice(rest, work);
    }
  }

  /** Processes the items that the budget has left, and returns the others. */
  #processSlice<Item>(items: readonly Item[], work: (item: Item) => void): readonly Item[] {
    const slice = items.slice(0, this.#itemsMax - this.#usedInTurn);
    if (slice.length > 0 && this.#usedInTurn === 0) {
      setImmediate(() => {
        this.#usedInTurn = 0;
      });
    }
    this.#usedInTurn += slice.length;
    for (const item of slice) work(item);
    return items.slice(slice.length);
  }
}
