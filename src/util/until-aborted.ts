/**
 * Resolves with the resource that is being opened, or rejects with the reason of `signal` as soon as
 * `signal` aborts. A resource that opens after the abort is closed.
 */
export function untilAborted<Resource extends { close(): unknown }>(
  opening: Promise<Resource>,
  signal: AbortSignal | undefined,
): Promise<Resource> {
  if (signal === undefined) return opening;
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      opening.then((resource) => resource.close()).catch(() => {}); // The caller has been rejected already.
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
