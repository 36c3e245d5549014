/** Handlers of a benchmark process by the name that `Child.ask` sends. Each takes one argument. */
export type RequestHandlers = Readonly<Record<string, (argument: never) => unknown>>;

interface ProcessRequest {
  readonly id: number;
  /** Name of the handler. Absent in requests to the probe (`probe.mjs`), which shares the channel. */
  readonly ask?: string;
  readonly argument: unknown;
}

/** Handles requests of the parent process until this process ends. */
export function handleRequests(handlers: RequestHandlers): void {
  process.on('message', (request: ProcessRequest) => {
    if (request.ask !== undefined) void handleRequest(handlers, request);
  });
}

async function handleRequest(
  handlers: RequestHandlers,
  { id, ask = '', argument }: ProcessRequest,
): Promise<void> {
  try {
    // Nothing checks that the caller of `Child.ask` passed the type that this handler declares.
    const result = await handlers[ask]?.(argument as never);
    process.send?.({ id, answer: result ?? null });
  } catch (cause) {
    process.send?.({ id, error: cause instanceof Error ? (cause.stack ?? '') : String(cause) });
  }
}
