/**
 * What is being opened; or rejects with the reason of `signal` as soon as that aborts. Then what is
 * opened too late is closed.
 */
export function untilAborted<Part extends { close(): unknown }>(
  opening: Promise<Part>,
  signal: AbortSignal | undefined,
): Promise<Part> {
  if (signal === undefined) return opening;
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      opening.then((part) => part.close()).catch(() => {}); // Nobody waits for it any more.
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
