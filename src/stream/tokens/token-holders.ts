import { type Database, list, type Sql, sql } from '../../db/database.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import { type Takeover, tokensTaken } from '../../events/control-entry.js';
import { Batcher } from '../../util/batcher.js';

export interface TokenHoldersOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  readonly appendControlEntries: AppendControlEntries;
  /** How long a token can open another stream after its last stream has ended. */
  readonly resumeWindowMs: number;
}

/** The holder of a token, and a version for optimistic locking, which each successful claim increments. */
export interface TokenState {
  readonly version: number;
  /**
   * Id of the stream that claimed the token last. Undefined if that stream has released the token, or if
   * no stream has claimed it.
   */
  readonly holder: string | undefined;
}

/** A request to make a stream the holder of a token. Succeeds only if the state of the token is still `state`. */
export interface Claim {
  readonly tokenHash: string;
  readonly state: TokenState;
  readonly streamId: string;
}

/** A stream that no longer uses its token. */
export interface Release {
  readonly tokenHash: string;
  readonly streamId: string;
}

/** The columns of a token that change when it is claimed. */
export interface TokenStateRow {
  readonly token_hash: string;
  readonly version: number;
  /** Holds a stream id. */
  readonly connection_id: string | null;
}

const renewedPerStatementMax = 500;

/**
 * Records which stream holds a stream token: the stream that claimed it last. Older streams of the token
 * are closed (see `TokenClaim`). A token can open another stream until its lease ends. The lease is renewed
 * while the holder is open, and ends one resume window afterwards.
 */
export class TokenHolders {
  readonly #options: TokenHoldersOptions;
  readonly #claims: Batcher<Claim, boolean>;
  readonly #states: Batcher<string, TokenState | undefined>;

  constructor(options: TokenHoldersOptions) {
    this.#options = options;
    this.#claims = Batcher.forDatabase(options.db, (claims) => this.#claimAll(claims));
    this.#states = Batcher.forDatabase(options.db, (hashes) => this.#findStates(hashes));
  }

  /**
   * Interval at which the leases of open streams must be renewed: a twelfth of the resume window. A crash
   * therefore shortens the resume window by at most a twelfth.
   */
  get renewEveryMs(): number {
    return this.#options.resumeWindowMs / 12;
  }

  /**
   * Reads which stream holds a token. Returns undefined if the token has been deleted. Concurrent reads share
   * a query, because after a failure of the database thousands of streams can read at once.
   */
  readState(tokenHash: string): Promise<TokenState | undefined> {
    return this.#states.run(tokenHash);
  }

  /**
   * Makes a stream the holder of a token. Returns false if the token has been claimed since its state was
   * read, or has been deleted. A claim that replaces a holder appends a control entry; the process that
   * has the replaced stream then closes it. If the promise rejects, the claim may still have been committed.
   * Concurrent claims share a statement.
   */
  claim(claim: Claim): Promise<boolean> {
    return this.#claims.run(claim);
  }

  /**
   * Releases each token that its stream still holds. The lease of a released token ends after the resume
   * window. Accepts at most 500 tokens.
   */
  async release(releases: readonly Release[]): Promise<void> {
    const hashes = list(releases.map(({ tokenHash }) => tokenHash));
    const streamIds = list(releases.map(({ streamId }) => streamId));
    const until = this.#leaseUntil;
    await this.#options.db.execute(
      sql`update stream_tokens set connection_id = null, lease_until = ${until}
        where token_hash in (${hashes}) and connection_id in (${streamIds})`,
    );
  }

  /** Extends the leases of these tokens, whose streams are open, to `resumeWindowMs` from now. */
  async renew(hashes: readonly string[]): Promise<void> {
    const until = this.#leaseUntil;
    for (let start = 0; start < hashes.length; start += renewedPerStatementMax) {
      const batch = list(hashes.slice(start, start + renewedPerStatementMax));
      await this.#options.db.execute(
        sql`update stream_tokens set lease_until = ${until} where token_hash in (${batch})`,
      );
    }
  }

  async #findStates(hashes: readonly string[]): Promise<(TokenState | undefined)[]> {
    const rows = await this.#findRows(this.#options.db, hashes);
    const states = new Map(rows.map((row) => [row.token_hash, toTokenState(row)]));
    return hashes.map((hash) => states.get(hash));
  }

  #findRows(db: Database, hashes: readonly string[]): Promise<TokenStateRow[]> {
    return db.query<TokenStateRow>(
      sql`select token_hash, version, connection_id from stream_tokens
        where token_hash in (${list(hashes)})`,
    );
  }

  /** Claims tokens: without a transaction, or in one transaction if holders are replaced. */
  async #claimAll(claims: readonly Claim[]): Promise<boolean[]> {
    const replacing = claims.filter(({ state }) => state.holder !== undefined);
    if (replacing.length === 0) return this.#updateHolders(this.#options.db, claims);
    return this.#options.db.transaction(async (tx) => {
      const areClaimed = await this.#updateHolders(tx, claims);
      const takeovers = claims.flatMap((claim, index) =>
        areClaimed[index] === true && replacing.includes(claim) ? toTakeover(claim) : [],
      );
      await this.#options.appendControlEntries(tx, tokensTaken(takeovers));
      return areClaimed;
    });
  }

  async #updateHolders(db: Database, claims: readonly Claim[]): Promise<boolean[]> {
    const hashes = claims.map(({ tokenHash }) => tokenHash);
    const until = this.#leaseUntil;
    const toStateCondition = (c: Claim) =>
      sql`(token_hash = ${c.tokenHash} and version = ${c.state.version})`;
    const holderCases = join(claims, (c) => sql` when ${toStateCondition(c)} then ${c.streamId}`);
    const stateConditions = join(claims, (c) => sql` or ${toStateCondition(c)}`);
    const count = await db.execute(
      // `version` is set last, because MySQL assigns from left to right.
      sql`update stream_tokens set connection_id = case${holderCases} end,
          lease_until = ${until}, version = version + 1
        where token_hash in (${list(hashes)}) and (1 = 0${stateConditions})`,
    );
    if (count === claims.length) return claims.map(() => true);
    const rows = await this.#findRows(db, hashes);
    const holders = new Set(rows.map((row) => row.connection_id));
    return claims.map(({ streamId }) => holders.has(streamId));
  }

  get #leaseUntil(): number {
    return this.#options.wallClock() + this.#options.resumeWindowMs;
  }
}

/** Returns the state that a row of the table contains. */
export function toTokenState({ version, connection_id: holder }: TokenStateRow): TokenState {
  return { version, holder: holder ?? undefined };
}

function toTakeover({ tokenHash, state, streamId }: Claim): Takeover {
  return { tokenHash, version: state.version + 1, streamId };
}

/** Concatenates one SQL fragment per claim. */
function join(claims: readonly Claim[], toFragment: (claim: Claim) => Sql): Sql {
  return claims.map(toFragment).reduce((all, fragment) => sql`${all}${fragment}`, sql``);
}
