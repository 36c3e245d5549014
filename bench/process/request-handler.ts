/** What a process of ours can be asked for by `Child.ask`: a name, and one argument. */
export type RequestHandlers = Readonly<Record<string, (argument: never) => unknown>>;

interface ProcessRequest {
  readonly id: number;
  readonly ask?: string;
  readonly argument: unknown;
}

/** Answers questions for as long as the process lives. */
export function handleRequests(answers: RequestHandlers): void {
  process.on('message', (request: ProcessRequest) => {
    if (request.ask !== undefined) void handleRequest(answers, request);
  });
}

async function handleRequest(
  answers: RequestHandlers,
  { id, ask = '', argument }: ProcessRequest,
): Promise<void> {
  try {
    const result = await answers[ask]?.(argument as never); // The asking side has the types.
    process.send?.({ id, answer: result ?? null });
  } catch (cause) {
    process.send?.({ id, error: cause instanceof Error ? (cause.stack ?? '') : String(cause) });
  }
}
