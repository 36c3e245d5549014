/** A position in the event log, directly after the event `seq` of `epoch`. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

const pattern = /^([0-9a-z]{1,16})-(0|[1-9]\d{0,14})$/;

/** Formats a position as `<epoch>-<seq>`, as in `id:` and `Last-Event-ID`. */
export function formatPosition({ epoch, seq }: Position): string {
  return `${epoch}-${seq}`;
}

/** Parses a position sent by a client. Returns undefined for text that Herald never issues. */
export function parsePosition(text: string): Position | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, epoch = '', seq = ''] = match;
  return { epoch, seq: Number(seq) };
}
