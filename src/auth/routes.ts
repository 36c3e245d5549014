import type { Database } from '../db/database.js';
import { Failure } from '../errors.js';
import { type Client, toClient } from '../http/client.js';
import type { Exchange } from '../http/exchange.js';
import { type CompleteReply, empty, json } from '../http/reply.js';
import { type Route, route } from '../http/router.js';
import type { Audit } from '../logging/audit.js';
import type { AccessTokens } from './access-token.js';
import { createSigner } from './access-token-signer.js';
import { toEcho } from './anything.js';
import { parseChoice, parseFields } from './fields.js';
import type { Login } from './login.js';
import type { RateLimiter } from './rate-limiter.js';
import type { IssuedTokens, Sessions } from './sessions/sessions.js';
import type { User, Users } from './users.js';

/** Authenticates the user of a request; provided by the composition root. */
export interface Authenticator {
  /** The `WWW-Authenticate` challenge for a request without a token. */
  readonly challenge: string;
  /** Returns the user and session of the access token. Throws failures with status 401. */
  authenticateUser(exchange: Exchange): Promise<AuthenticatedUser>;
  /** Returns the user of an access token or of a trusted issuer's JWT. Throws failures with status 401. */
  authenticateAnyUser(exchange: Exchange): Promise<AuthenticatedUser | AuthenticatedForeignUser>;
}

/** A user of a trusted issuer. */
export interface AuthenticatedForeignUser {
  readonly userId: string;
  readonly issuer: string;
}

export interface AuthenticatedUser {
  readonly userId: string;
  readonly sessionId: string;
  readonly user: User;
}

export interface AuthRoutesOptions {
  readonly login: Login;
  readonly users: Users;
  readonly sessions: Sessions;
  readonly accessTokens: Pick<AccessTokens, 'sign' | 'lifeMs'>;
  readonly bearer: Authenticator;
  readonly rateLimiter: RateLimiter;
  readonly audit: Audit;
  /** Sent as `tokenType`: `Bearer`. */
  readonly tokenType: string;
  /** The public keys as a JWK set; undefined for HS algorithms. */
  readonly jwks?: object | undefined;
}

const noStore = { 'cache-control': 'no-store', pragma: 'no-cache' };

/** Returns the routes `/login`, `/token`, `/logout`, `/me`, `/anything` and, if `jwks` is set, its route. */
export function authRoutes(parts: AuthRoutesOptions): Route[] {
  const { login, sessions, accessTokens, bearer, rateLimiter, jwks } = parts;
  const sign = createSigner(accessTokens);

  return [
    route('POST', '/login', async (exchange) => {
      const body = await exchange.body({ isFormAllowed: true });
      const { username, password } = parseFields(body, ['username', 'password']);
      const loginRequest = {
        username,
        password,
        client: toClient(exchange),
        signal: exchange.signal,
      };
      return toTokenReply(parts, await login.open(loginRequest, sign));
    }),

    route('POST', '/token', async (exchange) => {
      const { token } = parseFields(await exchange.body({ isFormAllowed: true }), ['token']);
      const client = toClient(exchange);
      rateLimiter.admit('token', client);
      const rotating = sessions.rotate(token, client, sign, exchange.signal);
      return toTokenReply(parts, await withChallenge(bearer, rotating));
    }),

    route('POST', '/logout', async (exchange) => {
      const principal = await bearer.authenticateUser(exchange);
      const scope = parseChoice(await exchange.body(), 'scope', ['session', 'others', 'all']);
      await logout(parts, principal, scope, toClient(exchange));
      return empty(204);
    }),

    route('GET', '/me', async (exchange) => {
      const principal = await bearer.authenticateAnyUser(exchange);
      if ('issuer' in principal) {
        return json(200, { id: principal.userId, issuer: principal.issuer }, noStore);
      }
      const { user, sessionId } = principal;
      const { id, username, firstName, lastName } = user;
      return json(200, { id, username, firstName, lastName, sessionId }, noStore);
    }),

    route('ALL', '/anything', async (exchange) => {
      await bearer.authenticateUser(exchange);
      return json(200, await toEcho(exchange), noStore);
    }),

    ...(jwks === undefined ? [] : [keysRoute(jwks)]),
  ];
}

function keysRoute(jwks: object): Route {
  const headers = { 'cache-control': 'public, max-age=300' };
  return route('GET', '/.well-known/jwks.json', () => json(200, jwks, headers));
}

function toTokenReply(
  { accessTokens, tokenType }: AuthRoutesOptions,
  tokens: IssuedTokens,
): CompleteReply {
  const body = {
    accessToken: tokens.accessToken,
    tokenType,
    accessTokenExpiresIn: accessTokens.lifeMs,
    refreshToken: tokens.refreshToken,
    refreshTokenExpiresIn: tokens.refreshTokenExpiresInMs,
  };
  return json(200, body, noStore);
}

/** Adds the challenge of a rejected access token to a 401 failure of `operation`. */
async function withChallenge<Result>(
  { challenge }: Authenticator,
  operation: Promise<Result>,
): Promise<Result> {
  try {
    return await operation;
  } catch (cause) {
    if (!(cause instanceof Failure) || cause.status !== 401) throw cause;
    const { name, message, info } = cause;
    const headers = { 'www-authenticate': `${challenge}, error="invalid_token"` };
    throw new Failure(name, message, { headers, cause, ...(info && { info }) });
  }
}

type LogoutScope = 'session' | 'others' | 'all';

async function logout(
  { sessions, users, audit }: AuthRoutesOptions,
  { userId, sessionId }: AuthenticatedUser,
  scope: LogoutScope,
  client: Client,
): Promise<void> {
  if (scope === 'session') {
    await sessions.end(sessionId, 'logout');
  } else if (scope === 'others') {
    await sessions.endAll(userId, 'logout', { except: sessionId });
  } else {
    const lockUser = (tx: Database) => users.lock(userId, tx);
    await sessions.endAll(userId, 'logout', { first: lockUser });
  }
  audit.record('session_logout', { client, userId, sessionId, reason: scope });
}
