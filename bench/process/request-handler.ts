/** Handlers by the name that is passed to `Child.ask`. Each takes one argument. */
export type RequestHandlers = Readonly<Record<string, (argument: never) => unknown>>;

interface ProcessRequest {
  readonly id: number;
  /** Name of the handler. Absent in requests to the probe (`probe.mjs`), which shares the channel. */
  readonly ask?: string;
  readonly argument: unknown;
}

/**
 * Answers the requests that the parent process sends with `Child.ask`, until this process ends. A request
 * without a handler is answered with an error.
 */
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
    const handler = handlers[ask];
    if (handler === undefined) throw new Error(`Cannot answer '${ask}': there is no such handler`);
    // Unchecked: the caller of `Child.ask` must pass an argument of the type that the handler declares.
    process.send?.({ id, answer: await handler(argument as never) });
  } catch (cause) {
    process.send?.({ id, error: cause instanceof Error ? (cause.stack ?? '') : String(cause) });
  }
}
