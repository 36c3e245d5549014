/** Settles as `promise`, or rejects with `createError()` after `ms`; a later outcome is ignored. */
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
