/** Settles as `promise`, or rejects with `late()` after `ms`; what comes later is let go. */
export function withDeadline<Result>(
  promise: Promise<Result>,
  ms: number,
  createError: () => Error,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(createError()), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
