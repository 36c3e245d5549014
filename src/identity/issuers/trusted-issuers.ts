import { hash as digest } from 'node:crypto';
import type { Clock } from '../../clock.js';
import type { TrustedIssuer } from '../../config/trusted-issuers.js';
import { Failure } from '../../errors.js';
import type { WarningAggregator } from '../../logging/warning-aggregator.js';
import { LruMap } from '../../util/lru-map.js';
import type { AdmitUnverified } from '../api-keys.js';
import type { FetchOutcome } from './fetch-jwks.js';
import { type ForeignUser, toForeignUser } from './foreign-user.js';
import { getRefusalReason, readHeader, readIssuerName, verifyJwt } from './jwt.js';
import { JwtError, type RefusalReason } from './jwt-error.js';
import { createFileKeys, type KeySource } from './keys.js';
import { RemoteKeys } from './remote-keys.js';

export interface TrustedIssuersOptions {
  readonly issuers: readonly TrustedIssuer[];
  /** The longest life of a token. */
  readonly tokenLifeMaxMs: number;
  /** A token is valid from this long before `nbf` until this long after `exp`, because clocks differ. */
  readonly clockToleranceMs: number;
  /** Time limit of a fetch of a JWKS. Default: 5 s. */
  readonly fetchTimeoutMs?: number;
  readonly warnings: WarningAggregator;
  /** Called after each fetch of a JWKS. `issuer` is the number of the issuer in the settings, from 1. */
  readonly onFetched: (issuer: number, outcome: FetchOutcome) => void;
  readonly wallClock: Clock;
  readonly monotonicClock: Clock;
}

interface Issuer {
  readonly settings: TrustedIssuer;
  readonly keys: KeySource;
}

const verifiedMax = 10_000;
const admitAll: AdmitUnverified = () => () => {};

/** Verifies the tokens (JWTs) of trusted issuers. Spec: RFC 7519, RFC 8725. */
export class TrustedIssuers {
  readonly #options: TrustedIssuersOptions;
  readonly #byName: ReadonlyMap<string | undefined, Issuer>;
  /** The hashes of tokens whose signatures were valid. */
  readonly #verified = new LruMap<string, true>(verifiedMax);

  private constructor(options: TrustedIssuersOptions) {
    this.#options = options;
    this.#byName = new Map(
      options.issuers.map((settings, index) => [
        settings.issuer,
        { settings, keys: this.#openKeys(settings, index + 1) },
      ]),
    );
  }

  /** Starts to fetch each JWKS. Does not wait for it, so that Herald starts while an issuer is unavailable. */
  static async open(options: TrustedIssuersOptions): Promise<TrustedIssuers> {
    const issuers = new TrustedIssuers(options);
    issuers.refreshKeys();
    return issuers;
  }

  /**
   * Returns whether the unverified `iss` of a token is exactly the name of a trusted issuer. Returns false for
   * text that is not a JWT.
   */
  isForeign(token: string): boolean {
    return this.#find(token) !== undefined;
  }

  /**
   * Returns the user of a token. Throws `expired_token` for a token that has expired and is otherwise valid, and
   * `invalid_token` for any other token that is not accepted. Throws `service_unavailable` if the keys of the
   * issuer cannot be fetched. Rejects with the reason of `signal` if it aborts while keys are being fetched.
   *
   * Verifying a signature takes up to 8 ms, so `admit` is called first, unless the token was verified before. An
   * error of `admit` is rethrown. The function that `admit` returns is called if the signature is valid.
   */
  async verify(
    token: string,
    { signal, admit = admitAll }: { signal?: AbortSignal; admit?: AdmitUnverified } = {},
  ): Promise<ForeignUser> {
    const issuer = this.#find(token);
    try {
      if (issuer === undefined) throw new JwtError('issuer_unknown', 'Unknown issuer');
      return await this.#verify(token, issuer, { signal, admit });
    } catch (cause) {
      if (signal?.aborted && cause === signal.reason) throw cause;
      const isFailure = cause instanceof Failure;
      if (!isFailure || cause.status === 401)
        this.reportRefusal(getRefusalReason(cause), issuer?.settings.issuer);
      if (isFailure) throw cause;
      throw new Failure('invalid_token', 'Cannot authenticate: the access token is invalid', {
        cause,
      });
    }
  }

  /**
   * Logs that a JWT was refused. Repeats are aggregated. `issuer` is the name of a trusted issuer, as in the
   * settings, so that the line contains no text of the JWT.
   */
  reportRefusal(reason: RefusalReason, issuer?: string): void {
    this.#options.warnings.warn({
      kind: 'jwtRefused',
      subject: JSON.stringify([issuer, reason]),
      fields: { ...(issuer !== undefined && { issuer }), reason },
      phrase: 'JWT refused',
    });
  }

  /**
   * Logs that a token was refused whose `iss` names neither a trusted issuer nor Herald. Ignores text that is not a
   * JWT, and does nothing if no issuer is trusted.
   */
  reportUnknownIssuer(token: string, ownIssuer: string): void {
    if (this.#byName.size === 0) return;
    const name = readIssuerName(token);
    if (typeof name !== 'string' || name === ownIssuer || this.#byName.has(name)) return;
    this.reportRefusal('issuer_unknown');
  }

  /** Fetches each JWKS five minutes after its last fetch, or 30 s after a failed fetch. Called by a timer. */
  refreshKeys(): void {
    for (const { keys } of this.#byName.values()) keys.refresh();
  }

  /** Aborts running fetches. Idempotent. */
  close(): void {
    for (const { keys } of this.#byName.values()) keys.close();
  }

  #find(token: string): Issuer | undefined {
    return this.#byName.size === 0 ? undefined : this.#byName.get(readIssuerName(token));
  }

  async #verify(
    token: string,
    { settings, keys }: Issuer,
    { signal, admit }: { signal: AbortSignal | undefined; admit: AdmitUnverified },
  ): Promise<ForeignUser> {
    const { wallClock, clockToleranceMs, tokenLifeMaxMs } = this.#options;
    const header = readHeader(token, settings.algorithms);
    const candidates = await keys.find(header, signal);
    const times = { clockToleranceMs, now: wallClock() };
    const tokenHash = digest('sha256', token);
    const markVerified = this.#verified.use(tokenHash) === true ? undefined : admit();
    try {
      const claims = await verifyJwt(token, candidates, { issuer: settings, ...times });
      markVerified?.();
      this.#verified.set(tokenHash, true);
      return this.#warnOfRights(toForeignUser(claims, settings, { tokenLifeMaxMs, ...times }));
    } catch (cause) {
      if (cause instanceof Failure) markVerified?.(); // Expired, with a valid signature.
      throw cause;
    }
  }

  #warnOfRights(user: ForeignUser): ForeignUser {
    const { issuer, rightsProblem } = user;
    if (rightsProblem === undefined) return user;
    this.#options.warnings.warn({
      kind: 'rights claim',
      subject: issuer,
      fields: { issuer, problem: rightsProblem },
      phrase: 'the rights claim of a trusted issuer is not valid and allows nothing',
    });
    return user;
  }

  #openKeys({ keys, algorithms, issuer }: TrustedIssuer, issuerNumber: number): KeySource {
    if (keys.kind !== 'jwks') return createFileKeys(keys);
    const { warnings, onFetched, fetchTimeoutMs: timeoutMs, monotonicClock } = this.#options;
    return new RemoteKeys({
      ...{ url: keys.url, ca: keys.ca, algorithms, timeoutMs, monotonicClock },
      onFetched: (outcome, detail) => {
        onFetched(issuerNumber, outcome);
        if (outcome === 'ok') return;
        warnings.warn({
          kind: 'jwks',
          subject: issuer,
          fields: { issuer, outcome, detail },
          phrase: 'keys of a trusted issuer cannot be fetched',
        });
      },
    });
  }
}
