/**
 * Resolves with what `opening` resolves to, or rejects with the reason of `signal` as soon as that
 * aborts; a part that opens after that is closed.
 */
export function untilAborted<Part extends { close(): unknown }>(
  opening: Promise<Part>,
  signal: AbortSignal | undefined,
): Promise<Part> {
  if (signal === undefined) return opening;
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      opening.then((part) => part.close()).catch(() => {}); // The caller has its rejection already.
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
