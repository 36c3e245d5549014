import { setTimeout as wait } from 'node:timers/promises';
import type { Takeover } from '../events/control-entry.js';
import type { StreamToken } from './stream-token.js';
import type { TokenHolders, TokenState } from './token-holders.js';
import type { TokenReleases } from './token-releases.js';

export interface TokenClaimParts {
  readonly holders: Pick<TokenHolders, 'claim' | 'readState'>;
  readonly releases: Pick<TokenReleases, 'add'>;
  /** Called when an older stream was replaced, so that this process applies the control entry now. */
  readonly onTaken: () => void;
  readonly random: () => number;
}

/** The part of a stream that its claim uses. */
export interface ClaimingStream {
  readonly id: string;
  readonly isOpen: boolean;
  close(reason: 'replaced' | 'revoked' | 'failed', details?: { cause?: unknown }): void;
  /** See `Sink.roundTrip`. */
  roundTrip(): Promise<void>;
}

const attemptsMax = 10;
const retryMs = { first: 100, max: 30_000 };

/**
 * The claim of an open stream on its token. At rest a token has at most one stream: the last one that
 * claimed it.
 *
 * A stream claims its token by compare-and-set on the version of its row. If another stream has the token,
 * this one first waits for a round trip to its client after it has read that: a client that has moved to
 * the other stream is then known to have left this one. Each claim that replaces a holder appends a
 * control entry with the new version, and a stream that claimed a lower version ends as `replaced`.
 * While a claim is undecided, the newest version that another stream has taken is remembered.
 *
 * After ten attempts that failed, the stream closes as `failed`: at once if other streams have preceded it
 * each time, and after 30 to 80 s if the database is unavailable.
 */
export class TokenClaim {
  readonly #token: StreamToken;
  readonly #parts: TokenClaimParts;
  /** Set once this stream has the token. */
  #claimedVersion: number | undefined;
  /** The newest version that another stream is known to have taken. */
  #takenVersion = 0;
  /** The last claim, which may be in progress. */
  #claiming: Promise<boolean> | undefined;

  constructor(token: StreamToken, parts: TokenClaimParts) {
    this.#token = token;
    this.#parts = parts;
  }

  get tokenHash(): string {
    return this.#token.hash;
  }

  /** Claims the token for an open stream. Never rejects. Call it once. */
  async run(stream: ClaimingStream): Promise<void> {
    let state: TokenState | undefined = this.#token;
    let isKnown = true;
    for (let attempt = 1; stream.isOpen; attempt += 1) {
      try {
        if (!isKnown) state = await this.#parts.holders.readState(this.tokenHash);
        if (state === undefined) return stream.close('revoked');
        if (await this.#tryClaim(stream, state)) return this.#settle(stream);
        if (attempt >= attemptsMax) return stream.close('failed', { cause: precededTooOften() });
      } catch (cause) {
        if (attempt >= attemptsMax) return stream.close('failed', { cause });
        await this.#waitToRetry(attempt);
      }
      isKnown = false;
    }
  }

  /**
   * Applies a takeover of the token by another stream. Returns whether this stream is replaced. Call it
   * in the order of the control entries.
   */
  observe({ version }: Takeover): boolean {
    this.#takenVersion = Math.max(this.#takenVersion, version);
    return this.#isReplaced;
  }

  /** Releases the token, because the stream has ended. */
  end(streamId: string): void {
    if (this.#claiming === undefined) return; // The token was never claimed.
    this.#parts.releases.add({ tokenHash: this.tokenHash, streamId }, this.#claiming);
  }

  get #isReplaced(): boolean {
    return this.#claimedVersion !== undefined && this.#claimedVersion < this.#takenVersion;
  }

  /** Returns whether the stream has the token. Rejects when the database does. */
  async #tryClaim(stream: ClaimingStream, state: TokenState): Promise<boolean> {
    if (state.holder === stream.id) {
      this.#claimedVersion = state.version; // An earlier claim whose outcome was unknown.
      return true;
    }
    if (state.holder !== undefined) await stream.roundTrip();
    if (!stream.isOpen) return false;
    const { tokenHash } = this;
    this.#claiming = this.#parts.holders.claim({ tokenHash, state, streamId: stream.id });
    if (!(await this.#claiming)) return false;
    this.#claimedVersion = state.version + 1;
    if (state.holder !== undefined) this.#parts.onTaken();
    return true;
  }

  #settle(stream: ClaimingStream): void {
    if (this.#isReplaced) stream.close('replaced');
  }

  async #waitToRetry(attempt: number): Promise<void> {
    const delayMs = Math.min(retryMs.first * 2 ** (attempt - 1), retryMs.max);
    await wait(delayMs * (0.5 + this.#parts.random()), undefined, { ref: false });
  }
}

function precededTooOften(): Error {
  return new Error('Cannot claim stream token: other streams have claimed it ten times');
}
