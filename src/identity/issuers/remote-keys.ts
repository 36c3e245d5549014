import type { KeyObject } from 'node:crypto';
import type { Clock } from '../../clock.js';
import { Failure } from '../../errors.js';
import { abortable } from '../../util/abortable.js';
import { SharedCall } from '../../util/shared-call.js';
import { FetchError, type FetchOutcome, fetchText } from './fetch-jwks.js';
import { type JwksKey, parseJwks } from './jwks.js';
import { JwtError } from './jwt-error.js';
import { candidatesMax, type KeySource, type TokenHeader } from './keys.js';

export interface RemoteKeysOptions {
  /** An `https:` URL. */
  readonly url: string;
  /** PEM certificates that are trusted instead of the certificates of Node. */
  readonly ca: string | undefined;
  /** The algorithms of the issuer. */
  readonly algorithms: readonly string[];
  /** Default: 5 s. */
  readonly timeoutMs?: number | undefined;
  /** Called after each fetch. `detail` is the reason of a failure, otherwise `''`. */
  readonly onFetched: (outcome: FetchOutcome, detail: string) => void;
  readonly monotonicClock: Clock;
}

const minuteMs = 60_000;
const defaultTimeoutMs = 5000;
/** Time after which keys are fetched again. */
export const refreshMs = 5 * minuteMs;
/** Time after which a failed fetch is retried, and minimum time between two fetches that unknown keys cause. */
export const coolDownMs = minuteMs / 2;
/** Time for which keys are used if they cannot be fetched again. */
export const keysLifeMs = 60 * minuteMs;

/**
 * Fetches and caches the JWKS of an issuer. `refresh`, called by a timer, keeps the keys younger than
 * `refreshMs`, so that no request waits for a fetch. At most one fetch runs at a time.
 *
 * A token whose key is unknown causes a fetch, at most one in 30 s, because an issuer may have changed its
 * keys. While the JWKS cannot be fetched, the last keys are used for an hour.
 */
export class RemoteKeys implements KeySource {
  readonly #options: RemoteKeysOptions;
  readonly #closing = new AbortController();
  readonly #fetchCall = new SharedCall(() => this.#fetch());
  #keys: readonly JwksKey[] = [];
  /** Time at which the fetch of `#keys` began, by `monotonicClock`. */
  #keysAt = Number.NEGATIVE_INFINITY;
  /** Time at which the newest fetch began. */
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  /** The newest fetch. Never rejects. */
  #newestFetch: Promise<void> = Promise.resolve();
  /** Time at which an unknown key last caused a fetch. */
  #refetchedAt = Number.NEGATIVE_INFINITY;
  /** The fetch that an unknown key caused last. Never rejects. */
  #refetch: Promise<void> = Promise.resolve();

  constructor(options: RemoteKeysOptions) {
    this.#options = options;
  }

  refresh(): void {
    const waitMs = this.#hasFailed ? coolDownMs : refreshMs;
    if (this.#now() - this.#fetchedAt >= waitMs) this.#newestFetch = this.#fetchCall.run();
  }

  async find(header: TokenHeader, signal: AbortSignal | undefined): Promise<readonly KeyObject[]> {
    if (!this.#areKeysUsable()) {
      this.refresh();
      await abortable(this.#newestFetch, signal);
      if (!this.#areKeysUsable()) throw this.#unavailable();
    }
    const known = this.#select(header);
    if (known.length > 0) return known;
    if (this.#now() - this.#refetchedAt >= coolDownMs) {
      this.#refetchedAt = this.#now();
      this.#refetch = this.#fetchCall.run();
    }
    await abortable(this.#refetch, signal);
    const fetched = this.#select(header);
    if (fetched.length > 0) return fetched;
    if (this.#hasFailed) throw this.#unavailable();
    throw new JwtError('key', 'Unknown key');
  }

  /** Aborts a running fetch. */
  close(): void {
    this.#closing.abort();
  }

  #areKeysUsable(): boolean {
    return this.#now() - this.#keysAt < keysLifeMs;
  }

  #select({ algorithm, keyId }: TokenHeader): readonly KeyObject[] {
    const matching = this.#keys.filter(
      ({ id, algorithms }) =>
        algorithms.includes(algorithm) && (keyId === undefined || id === keyId),
    );
    if (matching.length > candidatesMax)
      throw new JwtError('key', 'The header selects too many keys');
    return matching.map(({ key }) => key);
  }

  async #fetch(): Promise<void> {
    const { url, ca, algorithms, timeoutMs = defaultTimeoutMs, onFetched } = this.#options;
    const startedAt = this.#now();
    this.#fetchedAt = startedAt;
    try {
      const text = await fetchText(url, { ca, timeoutMs, signal: this.#closing.signal });
      this.#keys = parse(text, algorithms);
      this.#keysAt = startedAt;
      this.#hasFailed = false;
      onFetched('ok', '');
    } catch (cause) {
      this.#hasFailed = true;
      if (!(cause instanceof FetchError)) throw cause;
      if (!this.#closing.signal.aborted) onFetched(cause.outcome, cause.message);
    }
  }

  #unavailable(): Failure {
    const retryAfterMs = this.#fetchedAt + coolDownMs - this.#now();
    const message =
      'Cannot authenticate: the keys of the issuer of the access token are unavailable';
    return new Failure('service_unavailable', message, { retryAfterMs, reason: 'jwks' });
  }

  #now(): number {
    return this.#options.monotonicClock();
  }
}

function parse(text: string, algorithms: readonly string[]): readonly JwksKey[] {
  try {
    return parseJwks(text, algorithms);
  } catch (cause) {
    throw new FetchError('invalid', cause instanceof Error ? cause.message : 'unknown error');
  }
}
