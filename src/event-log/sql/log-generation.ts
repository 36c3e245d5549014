import { type Database, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';

/** Epoch and newest sequence number of the event log, from the single row of `log_head`. */
export interface LogHead {
  readonly epoch: string;
  readonly seq: number;
}

/**
 * Detects that the stored event log was replaced. Tables can be reset or restored from a backup
 * while a process runs. The sequence numbers that the process knows then belong to other entries,
 * so every read and append is rejected.
 */
export class LogGeneration {
  readonly epoch: string;
  readonly #onReplaced: (committedSeq: number) => void;
  #seq: number;
  #isReplaced = false;

  /** `onReplaced` is called once, with the newest number known to be committed. Must not throw. */
  constructor({ epoch, seq }: LogHead, onReplaced: (committedSeq: number) => void) {
    this.epoch = epoch;
    this.#seq = seq;
    this.#onReplaced = onReplaced;
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
   * `service_unavailable` when the head belongs to another event log or is missing. A missing head can reappear, for example
   * after a restore.
   */
  verify<Head extends LogHead>(head: Head | undefined, committedSeq: number): Head {
    if (head === undefined) throw unavailable('its head row is missing');
    if (head.epoch !== this.epoch || head.seq < committedSeq) {
      if (!this.#isReplaced) this.#onReplaced(committedSeq);
      this.#isReplaced = true;
      throw unavailable('it was reset or restored');
    }
    this.observe(head.seq);
    return head;
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
