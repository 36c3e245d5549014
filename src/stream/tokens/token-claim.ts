import { setTimeout as wait } from 'node:timers/promises';
import type { Takeover } from '../../events/control-entry.js';
import type { StreamToken } from './stream-token.js';
import type { TokenHolders, TokenState } from './token-holders.js';
import type { TokenReleases } from './token-releases.js';

export interface TokenClaimParts {
  readonly holders: Pick<TokenHolders, 'claim' | 'readState'>;
  readonly releases: Pick<TokenReleases, 'add'>;
  /**
   * Called when a claim has replaced an older stream, so that this process applies the control entry
   * without waiting for its next poll of the event log.
   */
  readonly onTakeover: () => void;
  /** Keeps an unclaimed token alive, see `StreamTokens.keepAlive`. */
  readonly keepAlive: (tokenHash: string, waitMs: number) => void;
  readonly random: () => number;
}

/** The members of `EventStream` that its claim uses. */
export interface ClaimingStream {
  readonly id: string;
  readonly isOpen: boolean;
  close(reason: 'replaced' | 'revoked' | 'failed', details?: { cause?: unknown }): void;
  /** Sends no events until `release`. */
  hold(): void;
  release(): void;
  /** Waits for a round trip to the client, see `Sink.roundTrip`. */
  roundTrip(): Promise<void>;
}

const attemptsMax = 10;
const firstRetryMs = 100;

/**
 * The claim of an open stream on its token. When no claim or takeover is in progress, a token has at most
 * one stream: the last one that claimed it.
 *
 * A stream claims its token by compare-and-set on the version of the token's row. If another stream holds
 * the token, the new stream first waits for a round trip to its own client. If that client has already left
 * for the other stream, the round trip shows it: the new stream is closed by then and does not claim.
 * Meanwhile it sends no events. Each claim that replaces a holder appends a control entry with the new
 * version, and a stream that claimed a lower version ends as `replaced`. A takeover by another stream that
 * is applied while this stream's claim is in progress is remembered, and takes effect when the claim has
 * succeeded.
 *
 * After ten failed attempts the stream closes as `failed`. If another stream claims the token first, the attempt
 * is repeated immediately. After a database error the next attempt waits: 100 ms at first, doubled each time,
 * and multiplied by a random factor of 0.5 to 1.5. The nine waits of ten database errors take 26 to 77 s in
 * total.
 */
export class TokenClaim {
  readonly #token: StreamToken;
  readonly #parts: TokenClaimParts;
  /** The version with which this stream claimed the token. Undefined until the claim has succeeded. */
  #claimedVersion: number | undefined;
  /** The newest version with which another stream is known to have claimed the token. */
  #takenVersion = 0;
  /** The newest attempt to claim the token, in progress or settled. */
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
    for (let attempt = 1; stream.isOpen; attempt += 1) {
      try {
        if (attempt > 1) state = await this.#parts.holders.readState(this.tokenHash);
        if (state === undefined) return stream.close('revoked');
        if (await this.#tryClaim(stream, state)) {
          this.#closeIfReplaced(stream);
          stream.release();
          return;
        }
        if (attempt >= attemptsMax) return stream.close('failed', { cause: createClaimError() });
      } catch (cause) {
        if (attempt >= attemptsMax) return stream.close('failed', { cause });
        await this.#waitToRetry(attempt);
      }
    }
  }

  /** Whether another stream is known to have claimed the token after this stream. */
  get isReplaced(): boolean {
    return this.#claimedVersion !== undefined && this.#claimedVersion < this.#takenVersion;
  }

  /** Records a takeover of the token by another stream. Call it in the order of the control entries. */
  recordTakeover({ version }: Takeover): void {
    this.#takenVersion = Math.max(this.#takenVersion, version);
  }

  /**
   * Releases the token, because the stream has ended. If the token is not claimed yet, keeps it alive for
   * `waitMs`, the time after which the client was told to reconnect, because the token may expire meanwhile.
   */
  end(streamId: string, waitMs: number): void {
    if (this.#claimedVersion === undefined) this.#parts.keepAlive(this.tokenHash, waitMs);
    if (this.#claiming === undefined) return; // The token was never claimed.
    this.#parts.releases.add({ tokenHash: this.tokenHash, streamId }, this.#claiming);
  }

  /** Returns whether the stream holds the token now. Rejects if the database fails. */
  async #tryClaim(stream: ClaimingStream, state: TokenState): Promise<boolean> {
    if (state.holder === stream.id) {
      this.#claimedVersion = state.version; // An earlier attempt succeeded, but its response was lost.
      return true;
    }
    if (state.holder !== undefined) {
      stream.hold();
      await stream.roundTrip();
    }
    if (!stream.isOpen) return false;
    const { tokenHash } = this;
    this.#claiming = this.#parts.holders.claim({ tokenHash, state, streamId: stream.id });
    if (!(await this.#claiming)) return false;
    this.#claimedVersion = state.version + 1;
    if (state.holder !== undefined) this.#parts.onTakeover();
    return true;
  }

  /** Closes the stream if another stream claimed a newer version while this claim was in progress. */
  #closeIfReplaced(stream: ClaimingStream): void {
    if (this.isReplaced) stream.close('replaced');
  }

  async #waitToRetry(attempt: number): Promise<void> {
    const delayMs = firstRetryMs * 2 ** (attempt - 1);
    await wait(delayMs * (0.5 + this.#parts.random()), undefined, { ref: false });
  }
}

function createClaimError(): Error {
  const state = `${attemptsMax} attempts failed, the last because the token had changed`;
  return new Error(`Cannot claim stream token: ${state}`);
}
