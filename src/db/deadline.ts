/** Settles like `promise`, or rejects with `createError()` after `timeoutMs`. */
export function withDeadline<Result>(
  promise: Promise<Result>,
  timeoutMs: number,
  createError: () => Error,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(createError()), timeoutMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
