/** What a process of ours can be asked for by `Child.ask`: a name, and one argument. */
export type Answers = Readonly<Record<string, (argument: never) => unknown>>;

interface Question {
  readonly id: number;
  readonly ask?: string;
  readonly argument: unknown;
}

/** Answers questions for as long as the process lives. */
export function answerWith(answers: Answers): void {
  process.on('message', (question: Question) => {
    if (question.ask !== undefined) void answer(answers, question);
  });
}

async function answer(answers: Answers, { id, ask = '', argument }: Question): Promise<void> {
  try {
    const result = await answers[ask]?.(argument as never); // The asking side has the types.
    process.send?.({ id, answer: result ?? null });
  } catch (cause) {
    process.send?.({ id, error: cause instanceof Error ? (cause.stack ?? '') : String(cause) });
  }
}
