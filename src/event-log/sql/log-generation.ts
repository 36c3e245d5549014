import { type Database, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';

/** What the one row of `log_head` says about which log this is. */
export interface LogHead {
  readonly epoch: string;
  readonly seq: number;
}

/**
 * The log that this process has begun with. Tables may be reset, or restored from a backup, under a
 * running process: then its numbers stand for other events, so nothing is read or written any more.
 */
export class LogGeneration {
  readonly epoch: string;
  readonly #onReplaced: (atLeast: number) => void;
  #seq: number;
  #isReplaced = false;

  /** `onReplaced` is called once, when another log is found, with what was known. Must not throw. */
  constructor({ epoch, seq }: LogHead, onReplaced: (atLeast: number) => void) {
    this.epoch = epoch;
    this.#seq = seq;
    this.#onReplaced = onReplaced;
  }

  /** The newest number known to be committed: what is asked from now on answers no lower one. */
  get seq(): number {
    return this.#seq;
  }

  observe(seq: number): void {
    this.#seq = Math.max(this.#seq, seq);
  }

  /**
   * Takes a head that was read after `seq` was `atLeast`. Throws `service_unavailable` unless it is
   * of this log; a missing one may come back, as in the midst of a restore.
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

/** The head row as it is now; undefined when there is none. */
export async function readHead(db: Database): Promise<LogHead | undefined> {
  const [head] = await db.query<LogHead>(sql`select epoch, seq from log_head where id = 1`);
  return head;
}

/**
 * A counter that went back gives numbers again that clients have seen, so they must not be of the same
 * epoch. Never rejects: where it cannot be done, it stays with who restored the tables.
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
  return new Failure('service_unavailable', `Cannot use the log: ${state}`, { retryAfterMs: 1000 });
}
