const slotMs = 100;

/**
 * Keeps the deadlines (in ms) of many items, in slots of 100 ms, so that one timer serves all of them. The
 * owner of the timer calls `advance`.
 */
export class TimerWheel<Item> {
  readonly #slots = new Map<number, Set<Item>>();
  readonly #slotByItem = new Map<Item, number>();
  #currentSlot: number;

  constructor(now: number) {
    this.#currentSlot = toSlot(now);
  }

  get size(): number {
    return this.#slotByItem.size;
  }

  /** Sets or moves the deadline of an item. A deadline in the past is due in the next slot. */
  set(item: Item, dueAt: number): void {
    this.delete(item);
    const slot = Math.max(this.#currentSlot + 1, Math.ceil(dueAt / slotMs));
    const items = this.#slots.get(slot);
    if (items === undefined) this.#slots.set(slot, new Set([item]));
    else items.add(item);
    this.#slotByItem.set(item, slot);
  }

  delete(item: Item): void {
    const slot = this.#slotByItem.get(item);
    if (slot === undefined) return;
    this.#slotByItem.delete(item);
    const items = this.#slots.get(slot);
    items?.delete(item);
    if (items?.size === 0) this.#slots.delete(slot);
  }

  /**
   * Removes and returns the items that are due at `now`, in order of their slots. An item that became due
   * less than 100 ms ago may be left for the next call. The cost depends on the number of items, not on
   * the time since the last call.
   */
  advance(now: number): Item[] {
    const current = toSlot(now);
    const dueSlots = [...this.#slots.keys()]
      .filter((slot) => slot <= current)
      .sort((a, b) => a - b);
    const items = dueSlots.flatMap((slot) => [...(this.#slots.get(slot) ?? [])]);
    for (const item of items) this.delete(item);
    this.#currentSlot = Math.max(this.#currentSlot, current);
    return items;
  }
}

function toSlot(now: number): number {
  return Math.floor(now / slotMs);
}
