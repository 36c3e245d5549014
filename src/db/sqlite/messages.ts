import type { Value } from '../database.js';

/** What the writer thread is asked. Several travel in one message. */
export type WriterCommand =
  /** Commits by itself, together with whatever else is waiting. */
  | {
      readonly kind: 'execute';
      readonly id: number;
      readonly text: string;
      readonly values: Values;
    }
  /** A whole transaction, committed or not. Answered by the number of rows that matched, or 0. */
  | { readonly kind: 'batch'; readonly id: number; readonly statements: readonly BatchStatement[] }
  /** Answered once the writer belongs to this transaction alone, whose name is this `id`. */
  | { readonly kind: 'begin'; readonly id: number }
  /** May be sent along with its `begin`; it waits for that. */
  | {
      readonly kind: 'run';
      readonly id: number;
      readonly transaction: number;
      readonly isQuery: boolean;
      readonly text: string;
      readonly values: Values;
    }
  | {
      readonly kind: 'commit' | 'rollback';
      readonly id: number;
      readonly transaction: number;
    }
  /** After all that was asked before. */
  | { readonly kind: 'close'; readonly id: number };

type Values = readonly Value[];

export interface BatchStatement {
  readonly text: string;
  readonly values: Values;
}

export interface CommandResult {
  readonly id: number;
  /** Rows matched, or rows. */
  readonly value?: number | object[];
  readonly error?: SqliteErrorParts;
}

/** The first report says that the thread is ready, or why not; each other one answers a group. */
export interface WriterReply {
  readonly results: readonly CommandResult[];
  /** How many commits reached the disk for it: 0 or 1. */
  readonly commits: number;
  readonly failed?: SqliteErrorParts;
}

/** An error of the engine, as it travels between threads. */
export interface SqliteErrorParts {
  readonly message: string;
  /** The extended code of SQLite; undefined when the error is not the engine's. */
  readonly errcode: number | undefined;
}

export function toErrorParts(error: unknown): SqliteErrorParts {
  const message = error instanceof Error ? error.message : String(error);
  const isCoded = error instanceof Error && 'errcode' in error;
  return { message, errcode: isCoded ? Number(error.errcode) : undefined };
}
