import { type Database, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';

/** Epoch and newest sequence number of the event log, from the single row of `log_head`. */
export interface LogHead {
  readonly epoch: string;
  readonly seq: number;
}

/** A row with the columns of `headColumns`. */
export interface VerifiableHead extends LogHead {
  /** Creation time that is stored for `KnownLog.own`; null if the entry is trimmed, absent if not read. */
  readonly own_created_at?: number | null;
}

/** The facts about the event log that a process has confirmed. */
export interface KnownLog {
  readonly epoch: string;
  /** The newest number known to be committed. */
  readonly seq: number;
  /** The newest event that this process has appended. */
  readonly own: { readonly seq: number; readonly createdAt: number };
}

export interface LogGenerationParts {
  /** Asks the database whether the event log was replaced, see the function `confirmReplacement`. */
  readonly confirmReplacement: (known: KnownLog) => Promise<boolean>;
  /** Called once. Must not throw. */
  readonly onReplaced: () => void;
}

/** Matches no row. */
const noEntry = { seq: -1, createdAt: 0 };

/**
 * Detects that the stored event log was replaced: tables can be reset or restored from a backup while a
 * process runs, and a new primary can lack the newest transactions. The sequence numbers that the process
 * knows then belong to other entries, so reads and appends are rejected.
 *
 * A head is unexpected if the epoch differs, if the counter is lower than a known number, or if the newest
 * event of this process was created at another time. In the last case other processes have used its number
 * again. An unexpected head has no effect before `confirmReplacement` has confirmed it, because a proxy can
 * mix up responses and a standby can lag.
 *
 * A loss is not detected if other entries have used the lost numbers again, and the process that appended the
 * lost entries has ended, or the new entries are trimmed or were created in the same millisecond.
 */
export class LogGeneration {
  readonly #parts: LogGenerationParts;
  #known: KnownLog;
  #lastReadSeq: number;
  #confirming: Promise<void> | undefined;

  constructor({ epoch, seq }: LogHead, parts: LogGenerationParts) {
    this.#parts = parts;
    this.#known = { epoch, seq: 0, own: noEntry };
    this.#lastReadSeq = seq;
  }

  get known(): KnownLog {
    return this.#known;
  }

  /** Records that this process has appended events; the newest one is `seq`. */
  recordCommit(seq: number, createdAt: number): void {
    this.recordEntry(seq);
    this.#known = { ...this.#known, own: { seq, createdAt } };
  }

  /** Records that an entry is stored. */
  recordEntry(seq: number): void {
    if (seq > this.#known.seq) this.#known = { ...this.#known, seq };
  }

  /**
   * Verifies a head that was read outside a transaction, and returns it. Records a number as committed
   * only when a second reading is at least as high. Otherwise a single reading that was too high would make
   * every correct head look too old.
   */
  observe<Head extends VerifiableHead>(head: Head | undefined, known: KnownLog): Head {
    const verified = this.verify(head, known);
    this.recordEntry(Math.min(verified.seq, this.#lastReadSeq));
    this.#lastReadSeq = verified.seq;
    return verified;
  }

  /**
   * Verifies `head` and returns it. `known` must be read before the query for the head is sent. Throws
   * `service_unavailable` when the head is unexpected or missing. A missing head can reappear, for example
   * after a restore.
   */
  verify<Head extends VerifiableHead>(head: Head | undefined, known: KnownLog): Head {
    if (head === undefined) throw unavailable('its head row is missing');
    if (!isExpected(head, known)) {
      this.#confirming ??= this.#confirm(known);
      throw unavailable('it is older than expected, or was reset or restored');
    }
    return head;
  }

  /** Reports that the event log was replaced, if the database confirms it. Never rejects. */
  async #confirm(known: KnownLog): Promise<void> {
    const isReplaced = await this.#parts.confirmReplacement(known).catch(() => false);
    if (isReplaced) this.#parts.onReplaced();
    else this.#confirming = undefined; // The next unexpected head tries again.
  }
}

function isExpected(head: VerifiableHead, { epoch, seq, own }: KnownLog): boolean {
  const ownCreatedAt = head.own_created_at ?? own.createdAt;
  return head.epoch === epoch && head.seq >= seq && ownCreatedAt === own.createdAt;
}

/** Builds the columns of `log_head` from which a replacement is detected. */
export function headColumns({ own }: KnownLog): Sql {
  return sql`epoch, seq,
    (select entry.created_at from events entry where entry.seq = ${own.seq}) as own_created_at`;
}

/** Reads the head row; undefined when there is none. */
export async function readHead(db: Database): Promise<LogHead | undefined> {
  const [head] = await db.query<LogHead>(sql`select epoch, seq from log_head where id = 1`);
  return head;
}

/**
 * Returns whether the event log was replaced. If a replaced event log still has the known epoch, starts a new
 * epoch, because otherwise numbers that clients have received would be used again. A single update checks and
 * changes the row, so only the primary can confirm: a read-only standby rejects the update.
 */
export async function confirmReplacement(
  db: Database,
  { epoch, seq, own }: KnownLog,
  newEpoch: string,
): Promise<boolean> {
  const updatedRows = await db.execute(
    sql`update log_head set epoch = case when epoch = ${epoch} then ${newEpoch} else epoch end
      where id = 1 and (epoch <> ${epoch} or seq < ${seq} or exists (
        select 1 from events entry
        where entry.seq = ${own.seq} and entry.created_at <> ${own.createdAt}
      ))`,
  );
  return updatedRows > 0;
}

function unavailable(state: string): Failure {
  return new Failure('service_unavailable', `Cannot use the event log: ${state}`, {
    retryAfterMs: 1000,
  });
}
