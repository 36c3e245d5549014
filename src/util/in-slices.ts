/**
 * Calls `work` for each item in order, for at most `sizeMax` items in one turn of the event loop. The first slice is
 * processed synchronously. Returns undefined if that was all, and otherwise a promise that resolves after the last
 * item. `work` must not throw.
 */
export function inSlices<Item>(
  items: readonly Item[],
  sizeMax: number,
  work: (item: Item) => void,
): Promise<void> | undefined {
  for (const item of items.slice(0, sizeMax)) work(item);
  if (items.length <= sizeMax) return undefined;
  return new Promise((resolve) => {
    setImmediate(() => {
      resolve(inSlices(items.slice(sizeMax), sizeMax, work));
    });
  });
}
