const slotMs = 100;

/** Many deadlines, one timer: items by the tenth of a second in which they are due. */
export class Wheel<Item> {
  readonly #slots = new Map<number, Set<Item>>();
  readonly #slotOf = new Map<Item, number>();
  #turned: number;

  constructor(now: number) {
    this.#turned = slotAt(now);
  }

  get size(): number {
    return this.#slotOf.size;
  }

  /** Sets, or moves, the deadline of an item. One that is over is due at the next turn. */
  set(item: Item, at: number): void {
    this.delete(item);
    const slot = Math.max(this.#turned + 1, Math.ceil(at / slotMs));
    const items = this.#slots.get(slot);
    if (items === undefined) this.#slots.set(slot, new Set([item]));
    else items.add(item);
    this.#slotOf.set(item, slot);
  }

  delete(item: Item): void {
    const slot = this.#slotOf.get(item);
    if (slot === undefined) return;
    this.#slotOf.delete(item);
    const items = this.#slots.get(slot);
    items?.delete(item);
    if (items?.size === 0) this.#slots.delete(slot);
  }

  /**
   * Takes out what is due by `now`; what is so for less than 100 ms may wait for the next turn. Also after
   * a pause of hours it costs what is due, not the pause.
   */
  turn(now: number): Item[] {
    const current = slotAt(now);
    const due = [...this.#slots.keys()].filter((slot) => slot <= current).sort((a, b) => a - b);
    const items = due.flatMap((slot) => [...(this.#slots.get(slot) ?? [])]);
    for (const item of items) this.delete(item);
    this.#turned = Math.max(this.#turned, current);
    return items;
  }
}

function slotAt(now: number): number {
  return Math.floor(now / slotMs);
}
