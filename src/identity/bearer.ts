import type { Clock } from '../clock.js';
import { Failure, tooManyRequests } from '../errors.js';
import { mergeRights, type TopicRights } from '../events/topic-rights.js';
import { toClient } from '../http/client.js';
import type { Exchange } from '../http/exchange.js';
import type { Audit } from '../logging/audit.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { ApiKey, Scope } from './api-key.js';
import type { AdmitUnverified, ApiKeys } from './api-keys.js';
import { getForeignSessionId } from './foreign-session.js';
import type { TrustedIssuers } from './issuers/trusted-issuers.js';
import { KeyRates } from './key-rates.js';
import { parseKeyId } from './key-text.js';
import type { LocalSession, LocalUser, UserSession, VerifiedUser } from './user-session.js';

/** A user with a local account who is logged in. */
export interface UserPrincipal {
  readonly kind: 'user';
  readonly userId: string;
  readonly sessionId: string;
  readonly user: LocalUser;
}

/** A user of a trusted issuer. */
export interface ForeignPrincipal {
  readonly kind: 'foreign';
  readonly userId: string;
  readonly issuer: string;
}

/**
 * Verifies access tokens. Throws `expired_token` or `invalid_token`, and the error of `admit`, which admits
 * expensive verifications.
 */
export interface TokenVerifier {
  verify(token: string, admit: AdmitUnverified): LocalClaims;
}

interface LocalClaims {
  readonly userId: string;
  readonly sessionId: string | undefined;
}

/** A backend with an API key. */
export interface ServicePrincipal {
  readonly kind: 'service';
  readonly keyId: string;
  readonly name: string;
  readonly scopes: readonly string[];
  /** Checked by `assertKeyAllowsUser`, see `KeyLimits`. */
  readonly userPrefix: string | undefined;
  /** Checked by `assertKeyAllowsTopics`, see `KeyLimits`. */
  readonly topics: readonly string[] | undefined;
  /** Time at which the key expires, epoch ms. */
  readonly expiresAt: number | undefined;
  /** Number of the newest entry of the event log in the snapshot in which the key was read. */
  readonly headSeq: number;
}

/** The parts that authenticate users of trusted issuers. */
export interface ForeignUsers {
  readonly issuers: Pick<
    TrustedIssuers,
    'isForeign' | 'verify' | 'reportRefusal' | 'reportUnknownIssuer'
  >;
  /**
   * Returns the time before which JWTs for this session must not have been issued (epoch ms, 0 for any time),
   * and the number of the newest entry of the event log in the same snapshot.
   */
  readonly findDisconnectState: (
    userId: string,
    sessionId: string,
  ) => Promise<{ readonly issuedBefore: number; readonly headSeq: number }>;
}

export interface BearerAuthOptions {
  readonly accessTokens: TokenVerifier;
  /** Finds a session that has not ended. */
  readonly sessions: { findLive(sessionId: string): Promise<LocalSession | undefined> };
  readonly apiKeys: ApiKeys;
  readonly foreignUsers?: ForeignUsers | undefined;
  /** What every user with an access token may do with topics. Default: nothing. */
  readonly publicRights?: TopicRights;
  /** The scheme of the Authorization header, usually `Bearer`. Case-insensitive. */
  readonly tokenType: string;
  /** The realm of challenges: the issuer. */
  readonly realm: string;
  /** Admits an unverified credential from the client of an exchange, see `AdmitUnverified`. */
  readonly admitUnverified: (exchange: AuthorizationSource) => () => void;
  readonly audit: Audit;
  /** Warns about API keys that pages sent. */
  readonly warnings?: Pick<WarningAggregator, 'warn'> | undefined;
  readonly monotonicClock?: Clock;
}

const schemePattern = /^[\w!#$%&'*+.^`|~-]+$/;

export type AuthorizationSource = Pick<
  Exchange,
  'headerValues' | 'id' | 'ip' | 'headers' | 'signal'
>;

/**
 * Authenticates a request by its Authorization header. Every Failure carries a matching challenge.
 * Spec: RFC 6750 §3 (challenges), RFC 9110 §11.6.2.
 */
export class BearerAuth {
  readonly #options: BearerAuthOptions;
  readonly #keyRates: KeyRates;
  /** The challenge for a request without credentials; it has no error code. */
  readonly challenge: string;

  constructor(options: BearerAuthOptions) {
    this.#options = options;
    this.#keyRates = new KeyRates(options.monotonicClock ?? (() => performance.now()));
    const realm = options.realm.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&');
    this.challenge = `${options.tokenType} realm="${realm}"`;
  }

  /**
   * Returns the local user of the access token. Looks the session up each time, so a logout takes effect at
   * once. Throws the failures of `parseCredential`, `expired_token`, `invalid_token`, or `too_many_requests`
   * for a client that has sent too many invalid tokens.
   */
  async authenticateUser(exchange: AuthorizationSource): Promise<UserPrincipal> {
    return this.#toPrincipal(await this.#findLocalSession(this.#verifyLocal(exchange)));
  }

  /** Returns the user of an access token, or of the JWT of a trusted issuer. Throws like `findSession`. */
  async authenticateAnyUser(
    exchange: AuthorizationSource,
  ): Promise<UserPrincipal | ForeignPrincipal> {
    const verified = await this.verifyUser(exchange);
    if (verified.kind === 'local') return this.#toPrincipal(await this.#findLocalSession(verified));
    await this.findSession(verified);
    return { kind: 'foreign', userId: verified.userId, issuer: verified.issuer };
  }

  /**
   * Verifies the token of a user: an access token, or a JWT of a trusted issuer. Costs no query. Throws the
   * errors of `authenticateUser`, and `service_unavailable` when the keys of the issuer cannot be fetched.
   */
  async verifyUser(
    exchange: AuthorizationSource,
    token: string = this.parseCredential(exchange),
  ): Promise<VerifiedUser> {
    const { foreignUsers, admitUnverified } = this.#options;
    if (foreignUsers?.issuers.isForeign(token) !== true) {
      try {
        return this.#verifyLocal(exchange, token);
      } catch (cause) {
        if (cause instanceof Failure && cause.name === 'invalid_token')
          foreignUsers?.issuers.reportUnknownIssuer(token, this.#options.realm);
        throw cause;
      }
    }
    try {
      const admit = () => admitUnverified(exchange);
      const { signal } = exchange;
      return { kind: 'foreign', ...(await foreignUsers.issuers.verify(token, { signal, admit })) };
    } catch (cause) {
      if (!(cause instanceof Failure) || cause.status !== 401) throw cause;
      throw this.#invalidToken(cause);
    }
  }

  /**
   * Returns the session of a verified user. Throws `invalid_token` if the session has ended, or if the user was
   * disconnected after the JWT was issued. `iat` has whole seconds, so a JWT that was issued in the second
   * of the disconnect is refused. A JWT without `iat` is refused after any disconnect.
   *
   * With `endsAfter`, throws `expired_token` for a JWT whose `exp` is not after this time, although the clock
   * tolerance may not have passed.
   */
  async findSession(
    verified: VerifiedUser,
    { endsAfter }: { readonly endsAfter?: number } = {},
  ): Promise<UserSession> {
    if (verified.kind === 'local') {
      const { user: _, rights, ...session } = await this.#findLocalSession(verified);
      return { ...session, rights: this.#addPublicRights(rights), isForeign: false };
    }
    const { userId, sessionLabel, issuer, issuedAt, expiresAt, rights } = verified;
    const { foreignUsers } = this.#options;
    const id = getForeignSessionId(userId, sessionLabel);
    const state = await foreignUsers?.findDisconnectState(userId, id);
    if (state === undefined || (issuedAt ?? 0) < state.issuedBefore) {
      const reason = issuedAt === undefined ? 'no_issued_at' : 'issued_before';
      foreignUsers?.issuers.reportRefusal(reason, issuer);
      throw this.#invalidCredential('invalid_token', 'access token');
    }
    if (endsAfter !== undefined && expiresAt <= endsAfter) {
      foreignUsers?.issuers.reportRefusal('expired', issuer);
      throw this.#invalidCredential('expired_token', 'access token');
    }
    const { headSeq } = state;
    return {
      id,
      userId,
      expiresAt,
      headSeq,
      rights: this.#addPublicRights(rights),
      isForeign: true,
    };
  }

  #addPublicRights(rights: TopicRights): TopicRights {
    const { publicRights } = this.#options;
    if (publicRights === undefined || publicRights.size === 0) return rights;
    return mergeRights(rights, publicRights);
  }

  #toPrincipal({ id: sessionId, userId, user }: LocalSession): UserPrincipal {
    return { kind: 'user', userId, sessionId, user };
  }

  async #findLocalSession({ userId, sessionId }: LocalClaims): Promise<LocalSession> {
    const { sessions } = this.#options;
    const session = sessionId === undefined ? undefined : await sessions.findLive(sessionId);
    if (session?.userId === userId) return session;
    throw this.#invalidCredential('invalid_token', 'access token');
  }

  /**
   * Returns the service of the API key. Throws the failures of `parseCredential`. Throws `key_in_browser` for a
   * key that a page of another origin sent, `invalid_token` for an unknown or revoked key, `expired_token` for an
   * expired key, and `insufficient_scope` for a key without `scope`. Throws `too_many_requests` for a key over
   * its rate, and for a client that has sent too many invalid keys.
   */
  async authenticateService(
    exchange: AuthorizationSource,
    scope: Scope,
  ): Promise<ServicePrincipal> {
    const { apiKeys, admitUnverified } = this.#options;
    const text = this.parseCredential(exchange);
    const sentId = parseKeyId(text);
    if (isFromPage(exchange) && sentId !== undefined) {
      const phrase = 'API key sent by a page';
      const fields = { keyId: sentId };
      this.#options.warnings?.warn({ kind: phrase, subject: sentId, fields, phrase });
      throw createBrowserFailure();
    }
    const key = await apiKeys.verify(text, () => admitUnverified(exchange));
    if (key === undefined) throw this.#invalidCredential('invalid_token', 'API key');
    if (key === 'expired') throw this.#invalidCredential('expired_token', 'API key');
    this.#admitToRate(key, exchange);
    if (!key.scopes.includes(scope)) {
      const headers = this.#challengeHeaders({ error: 'insufficient_scope', scope });
      const info = { scope };
      const message = `Cannot do this: the API key lacks the scope ${scope}`;
      throw new Failure('insufficient_scope', message, { headers, info });
    }
    const { id: keyId, name, scopes, userPrefix, topics, expiresAt, headSeq } = key;
    return { kind: 'service', keyId, name, scopes, userPrefix, topics, expiresAt, headSeq };
  }

  /** Counts a request of the key. Throws `too_many_requests` if the key is over its rate. */
  #admitToRate(key: ApiKey, exchange: AuthorizationSource): void {
    const waitMs = this.#keyRates.take(key);
    if (waitMs === 0) return;
    const fields = { client: toClient(exchange), keyId: key.id, reason: 'apiKey' };
    this.#options.audit.record('excess_rate_limit_exceeded', fields);
    throw tooManyRequests('Cannot do this: too many requests with this API key', waitMs);
  }

  #verifyLocal(
    exchange: AuthorizationSource,
    token: string = this.parseCredential(exchange),
  ): LocalClaims & { readonly kind: 'local' } {
    const { accessTokens, admitUnverified } = this.#options;
    try {
      const { userId, sessionId } = accessTokens.verify(token, () => admitUnverified(exchange));
      return { kind: 'local', userId, sessionId };
    } catch (cause) {
      if (!(cause instanceof Failure) || cause.status !== 401) throw cause;
      throw this.#invalidToken(cause);
    }
  }

  /**
   * Returns the credential of the Authorization header. Throws `bad_credentials` without a header and for
   * another scheme, and `invalid_request` for several headers and for a header that is not a scheme, spaces
   * and a token. Existing clients rely on the messages. Spec: RFC 6750 §3.1, RFC 9110 §11.4.
   */
  parseCredential(exchange: AuthorizationSource): string {
    const { tokenType } = this.#options;
    const values = exchange.headerValues('authorization');
    const [value = ''] = values;
    if (values.length < 2 && value === '') {
      const headers = this.#challengeHeaders();
      throw new Failure('bad_credentials', 'Missing Authorization header', { headers });
    }
    const [scheme = '', token, ...rest] = value.split(/ +/);
    const isExpectedScheme = scheme.toLowerCase() === tokenType.toLowerCase();
    const isOtherScheme = !isExpectedScheme && schemePattern.test(scheme);
    const message = `Header format is Authorization: ${tokenType} token`;
    // Two headers are refused, because a proxy and Herald could each use a different header.
    if (values.length === 1 && isOtherScheme) {
      throw new Failure('bad_credentials', message, { headers: this.#challengeHeaders() });
    }
    if (values.length > 1 || !isExpectedScheme || !token || rest.length > 0) {
      const headers = this.#challengeHeaders({ error: 'invalid_request' });
      throw new Failure('invalid_request', message, { headers });
    }
    return token;
  }

  #invalidToken(cause: Failure): Failure {
    const name = cause.name === 'expired_token' ? 'expired_token' : 'invalid_token';
    return this.#invalidCredential(name, 'access token', cause);
  }

  #invalidCredential(
    name: 'invalid_token' | 'expired_token',
    credential: 'access token' | 'API key',
    cause?: Failure,
  ): Failure {
    const state = name === 'expired_token' ? 'expired' : 'invalid';
    const headers = this.#challengeHeaders({
      error: 'invalid_token', // RFC 6750 has one code for expired and invalid tokens.
      error_description: `The ${credential} is ${state}`,
    });
    const details = { headers, cause, ...(cause?.info && { info: cause.info }) };
    return new Failure(name, `Cannot authenticate: the ${credential} is ${state}`, details);
  }

  #challengeHeaders(parameters: Readonly<Record<string, string>> = {}) {
    const suffixes = Object.entries(parameters).map(([name, value]) => `, ${name}="${value}"`);
    return { 'www-authenticate': this.challenge + suffixes.join('') };
  }
}

/**
 * Returns whether a page of another origin sent the request. Browsers always set the header `Sec-Fetch-Site`,
 * and pages cannot change it. Spec: Fetch Metadata Request Headers, section 2.3.
 */
function isFromPage({ headers }: AuthorizationSource): boolean {
  const site = headers['sec-fetch-site'];
  return site === 'cross-site' || site === 'same-site';
}

function createBrowserFailure(): Failure {
  const message =
    'Cannot accept API key: a page sent it, and everybody who opens the page can read it';
  return new Failure('key_in_browser', message);
}
