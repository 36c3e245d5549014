/** Longer than the costliest work that is accepted takes on a busy machine. */
const nativeMsMax = 30_000;

const underWay = new Set<Promise<unknown>>();

/**
 * Work outside of JavaScript that this thread must not end before, given back as it is. argon2 is of
 * that kind: when a thread ends during a computation of it, the addon aborts the whole process.
 */
export function native<Result>(work: Promise<Result>): Promise<Result> {
  const forget = () => underWay.delete(work);
  underWay.add(work);
  work.then(forget, forget);
  return work;
}

export interface Ending {
  readonly hasBegun: boolean;
  /** Only the first call counts. Never throws. */
  begin(cause: unknown): void;
}

/**
 * From now on this thread ends in order, whatever ends it: an exception or rejection that nobody
 * catches, or `process.exit`, which throws here. `announce` is called at once; the thread ends, with
 * exit code 1, when its `native` work has, after 30 s at the latest.
 *
 * Two ways out remain that wait for nothing: `terminate()` from outside, and a heap that is full.
 */
export function endInOrder(announce: (cause: unknown) => void): Ending {
  const exit = process.exit.bind(process);
  let hasBegun = false;
  const begin = (cause: unknown) => {
    if (hasBegun) return;
    hasBegun = true;
    announce(cause);
    setTimeout(() => exit(1), nativeMsMax);
    void Promise.allSettled(underWay).then(() => exit(1));
  };
  process.on('uncaughtException', begin);
  process.exit = (code) => {
    const cause = new Error(`Thread ended by itself, with exit code ${code ?? 0}`);
    begin(cause);
    throw cause;
  };
  return {
    get hasBegun() {
      return hasBegun;
    },
    begin,
  };
}
