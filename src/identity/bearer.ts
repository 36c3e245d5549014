import { Failure } from '../errors.js';
import type { Exchange } from '../http/exchange.js';
import type { AdmitUnverified, ApiKeys, Scope } from './api-keys.js';

/** A logged-in user. */
export interface UserPrincipal {
  readonly kind: 'user';
  readonly userId: string;
  readonly sessionId: string;
  /** When the session expires unless it is refreshed, epoch ms. */
  readonly sessionExpiresAt: number;
  readonly user: LocalUser;
}

/** A user with an account in Herald's database. */
export interface LocalUser {
  readonly id: string;
  readonly username: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** A session that has not ended. */
export interface LocalSession {
  readonly id: string;
  readonly userId: string;
  /** When the session expires unless it is refreshed, epoch ms. */
  readonly expiresAt: number;
  readonly user: LocalUser;
}

/**
 * Verifies access tokens. Throws `expired_token` or `invalid_token`, and the error of `admit`, which admits
 * expensive verifications.
 */
export interface TokenVerifier {
  verify(
    token: string,
    admit: AdmitUnverified,
  ): {
    readonly userId: string;
    readonly sessionId: string | undefined;
  };
}

/** A backend with an API key. */
export interface ServicePrincipal {
  readonly kind: 'service';
  readonly keyId: string;
  readonly name: string;
  readonly scopes: readonly string[];
}

export interface BearerAuthOptions {
  readonly accessTokens: TokenVerifier;
  /** Finds a session that has not ended. */
  readonly sessions: { findLive(sessionId: string): Promise<LocalSession | undefined> };
  readonly apiKeys: ApiKeys;
  /** The scheme of the Authorization header, usually `Bearer`. Case-insensitive. */
  readonly tokenType: string;
  /** The realm of challenges: the issuer. */
  readonly realm: string;
  /** `AdmitUnverified` for the client of an exchange. */
  readonly admitUnverified: (exchange: AuthorizationSource) => () => void;
}

const schemePattern = /^[\w!#$%&'*+.^`|~-]+$/;

export type AuthorizationSource = Pick<Exchange, 'headerValues' | 'id' | 'ip' | 'headers'>;

/**
 * Authenticates a request by its Authorization header. Every Failure carries a matching challenge.
 * Spec: RFC 6750 §3 (challenges), RFC 9110 §11.6.2.
 */
export class BearerAuth {
  readonly #options: BearerAuthOptions;
  /** The challenge for a request without credentials; it has no error code. */
  readonly challenge: string;

  constructor(options: BearerAuthOptions) {
    this.#options = options;
    const realm = options.realm.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&');
    this.challenge = `${options.tokenType} realm="${realm}"`;
  }

  /**
   * Returns the user of the access token. Looks the session up each time, so a logout takes effect at
   * once. Throws the failures of `parseCredential`, `expired_token`, `invalid_token`, or `too_many_requests`
   * for a client that has sent too many invalid tokens.
   */
  async authenticateUser(exchange: AuthorizationSource): Promise<UserPrincipal> {
    const { userId, sessionId } = this.#verifyClaims(exchange);
    const { sessions } = this.#options;
    const session = sessionId === undefined ? undefined : await sessions.findLive(sessionId);
    if (session?.userId !== userId) {
      throw this.#invalidCredential('invalid_token', 'access token');
    }
    const { id, expiresAt: sessionExpiresAt, user } = session;
    return { kind: 'user', userId, sessionId: id, sessionExpiresAt, user };
  }

  /**
   * Returns the service of the API key. Throws the failures of `parseCredential`, `invalid_token` for an
   * unknown or revoked key, `insufficient_scope` for a key without `scope`,
   * `too_many_requests` for a client that has sent too many invalid keys.
   */
  async authenticateService(
    exchange: AuthorizationSource,
    scope: Scope,
  ): Promise<ServicePrincipal> {
    const { apiKeys, admitUnverified } = this.#options;
    const text = this.parseCredential(exchange);
    const key = await apiKeys.verify(text, () => admitUnverified(exchange));
    if (key === undefined) throw this.#invalidCredential('invalid_token', 'API key');
    if (!key.scopes.includes(scope)) {
      const headers = this.#challengeHeaders({ error: 'insufficient_scope', scope });
      const info = { scope };
      const message = `Cannot do this: the API key lacks the scope ${scope}`;
      throw new Failure('insufficient_scope', message, { headers, info });
    }
    return { kind: 'service', keyId: key.id, name: key.name, scopes: key.scopes };
  }

  #verifyClaims(exchange: AuthorizationSource) {
    const { accessTokens, admitUnverified } = this.#options;
    const token = this.parseCredential(exchange);
    try {
      return accessTokens.verify(token, () => admitUnverified(exchange));
    } catch (cause) {
      if (!(cause instanceof Failure) || cause.status !== 401) throw cause;
      const name = cause.name === 'expired_token' ? 'expired_token' : 'invalid_token';
      throw this.#invalidCredential(name, 'access token', cause);
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
    // Two headers are refused, because a proxy and Herald could each use a different one.
    if (values.length === 1 && isOtherScheme) {
      throw new Failure('bad_credentials', message, { headers: this.#challengeHeaders() });
    }
    if (values.length > 1 || !isExpectedScheme || !token || rest.length > 0) {
      const headers = this.#challengeHeaders({ error: 'invalid_request' });
      throw new Failure('invalid_request', message, { headers });
    }
    return token;
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
