/** A place in the log: everything up to and including `seq` of that epoch lies behind it. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

const pattern = /^([0-9a-z]{1,16})-(0|[1-9]\d{0,14})$/;

/** `<epoch>-<seq>`, as in `id:` and `Last-Event-ID`. */
export function formatPosition({ epoch, seq }: Position): string {
  return `${epoch}-${seq}`;
}

/** Undefined for anything Herald never issues: the text comes from a client. */
export function parsePosition(text: string): Position | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, epoch = '', seq = ''] = match;
  return { epoch, seq: Number(seq) };
}
