import { setTimeout as wait } from 'node:timers/promises';
import { type Database, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';

/** Epoch and newest sequence number of the event log, from the single row of `log_head`. */
export interface LogHead {
  readonly epoch: string;
  readonly seq: number;
}

export interface LogGenerationParts {
  readonly readHead: () => Promise<LogHead | undefined>;
  /** Called once, with the newest number known to be committed. Must not throw. */
  readonly onReplaced: (committedSeq: number) => void;
}

/** Readings that confirm a wrong head, and the pause before each. */
const confirmation = { readings: 3, pauseMs: 100 };

/**
 * Detects that the stored event log was replaced. Tables can be reset or restored from a backup
 * while a process runs. The sequence numbers that the process knows then belong to other entries,
 * so every read and append is rejected. A single wrong head is only rejected: nothing is concluded from it
 * before further readings have confirmed it, because a proxy can mix up the answers of statements.
 */
export class LogGeneration {
  readonly epoch: string;
  readonly #parts: LogGenerationParts;
  #seq: number;
  #confirming: Promise<void> | undefined;

  constructor({ epoch, seq }: LogHead, parts: LogGenerationParts) {
    this.epoch = epoch;
    this.#seq = seq;
    this.#parts = parts;
  }

  /** The newest number known to be committed. Unless the event log is replaced, later queries return no lower head. */
  get seq(): number {
    return this.#seq;
  }

  /** Records that `seq` is committed. */
  observe(seq: number): void {
    this.#seq = Math.max(this.#seq, seq);
  }

  /**
   * Returns `head`. `committedSeq` is the value of `seq` before the query for the head was sent. Throws
   * `service_unavailable` when the head belongs to another event log or is missing. A missing head can
   * reappear, for example after a restore.
   */
  verify<Head extends LogHead>(head: Head | undefined, committedSeq: number): Head {
    if (head === undefined) throw unavailable('its head row is missing');
    if (!this.#isExpected(head, committedSeq)) {
      this.#confirming ??= this.#confirm(committedSeq);
      throw unavailable('it was reset or restored');
    }
    this.observe(head.seq);
    return head;
  }

  #isExpected(head: LogHead, committedSeq: number): boolean {
    return head.epoch === this.epoch && head.seq >= committedSeq;
  }

  /** Reports that the event log was replaced, unless a reading is as expected or fails. Never rejects. */
  async #confirm(committedSeq: number): Promise<void> {
    for (let left = confirmation.readings; left > 0; left -= 1) {
      await wait(confirmation.pauseMs);
      const head = await this.#parts.readHead().catch(() => undefined);
      if (head !== undefined && !this.#isExpected(head, committedSeq)) continue;
      this.#confirming = undefined;
      return;
    }
    this.#parts.onReplaced(committedSeq);
  }
}

/** Reads the head row; undefined when there is none. */
export async function readHead(db: Database): Promise<LogHead | undefined> {
  const [head] = await db.query<LogHead>(sql`select epoch, seq from log_head where id = 1`);
  return head;
}

/**
 * Starts a new epoch if the newest sequence number went back, because numbers that clients have
 * received would be used again. Never rejects; if it fails, the operator has to reset the epoch.
 */
export async function startNewEpoch(
  db: Database,
  { epoch, seq }: LogHead,
  newEpoch: string,
): Promise<void> {
  const updating = db.execute(
    sql`update log_head set epoch = ${newEpoch} where id = 1 and epoch = ${epoch} and seq < ${seq}`,
  );
  await updating.catch(() => undefined);
}

function unavailable(state: string): Failure {
  return new Failure('service_unavailable', `Cannot use the event log: ${state}`, {
    retryAfterMs: 1000,
  });
}
