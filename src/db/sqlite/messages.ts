import type { Value } from '../database.js';

/** A command to the reader thread. */
export type ReaderCommand =
  | {
      readonly kind: 'query';
      readonly id: number;
      readonly text: string;
      readonly values: Values;
    }
  | CloseCommand;

/** A command to the writer thread. */
export type WriterCommand =
  /** A single write, committed together with other waiting writes. */
  | {
      readonly kind: 'execute';
      readonly id: number;
      readonly text: string;
      readonly values: Values;
    }
  /**
   * Statements to commit together. If any of them matches no row, all are rolled back and the result is 0;
   * otherwise it is the number of matched rows.
   */
  | { readonly kind: 'batch'; readonly id: number; readonly statements: readonly BatchStatement[] }
  /** Begins the transaction `id`. The reply is sent once the transaction has the writer to itself. */
  | { readonly kind: 'begin'; readonly id: number }
  /** A statement of the transaction. May be sent in the same message as `begin`; runs after it. */
  | {
      readonly kind: 'transactionStatement';
      readonly id: number;
      readonly transactionId: number;
      readonly isQuery: boolean;
      readonly text: string;
      readonly values: Values;
    }
  | {
      readonly kind: 'commit' | 'rollback';
      readonly id: number;
      readonly transactionId: number;
    }
  | CloseCommand;

/** A command to either thread. A message is an array of commands. */
export type ThreadCommand = ReaderCommand | WriterCommand;

/** Closes the connection after all earlier commands. */
interface CloseCommand {
  readonly kind: 'close';
  readonly id: number;
}

type Values = readonly Value[];

export interface BatchStatement {
  readonly text: string;
  readonly values: Values;
}

export interface CommandResult {
  readonly id: number;
  /** The number of matched rows, or the rows of a query. */
  readonly value?: number | object[];
  readonly error?: SqliteErrorParts;
}

/** A reply. The first one only reports that the thread is ready, or why not. */
export interface ThreadReply {
  readonly results: readonly CommandResult[];
  /** Commits since the previous reply: 0 or 1. */
  readonly commits: number;
  /** Size of the write-ahead log after the commit. */
  readonly walBytes?: number;
  /** Why the thread could not start; only in the first reply. */
  readonly startError?: SqliteErrorParts;
}

/** An engine error in the form that is sent between threads. */
export interface SqliteErrorParts {
  readonly message: string;
  /** The extended result code of SQLite; undefined for an error of another origin. */
  readonly errcode: number | undefined;
}

export function toErrorParts(error: unknown): SqliteErrorParts {
  const message = error instanceof Error ? error.message : String(error);
  const isCoded = error instanceof Error && 'errcode' in error;
  return { message, errcode: isCoded ? Number(error.errcode) : undefined };
}
