/** A position in the event log, directly after the entry `seq` of `epoch`; `seq` 0 is its beginning. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

const pattern = /^([0-9a-z]{1,16})-(0|[1-9]\d{0,14})$/;

/** Formats a position as `<epoch>-<seq>`, as in `id:` and `Last-Event-ID`. */
export function formatPosition({ epoch, seq }: Position): string {
  return `${epoch}-${seq}`;
}

/**
 * Parses a position sent by a client. Returns undefined for text in any other form than `<epoch>-<seq>`:
 * 1 to 16 of a-z 0-9, and up to 15 digits without leading zeros.
 */
export function parsePosition(text: string): Position | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, epoch = '', seq = ''] = match;
  return { epoch, seq: Number(seq) };
}
