/**
 * Settles like the promise. Rejects after `deadlineMs`, by default a minute, with the name of what is missing,
 * so that a stuck test fails by itself.
 */
export async function withDeadline<Result>(
  promise: Promise<Result>,
  missing: string | (() => string),
  deadlineMs = 60_000,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const text = typeof missing === 'string' ? missing : missing();
      reject(new Error(`missing after ${deadlineMs / 1000} s: ${text}`));
    }, deadlineMs);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}
