import type { Database } from '../db/database.js';
import { Failure } from '../errors.js';
import { type Client, clientOf } from '../http/client.js';
import type { Exchange } from '../http/exchange.js';
import { empty, json, type WholeReply } from '../http/reply.js';
import { type Route, route } from '../http/router.js';
import type { Audit } from '../logging/audit.js';
import type { AccessTokens } from './access-token.js';
import { echoOf } from './anything.js';
import { choiceIn, fieldsIn } from './fields.js';
import type { Login } from './login.js';
import type { Rates } from './rates.js';
import type { Grant, Sessions } from './sessions/sessions.js';
import { signWith } from './sign.js';
import type { User, Users } from './users.js';

/** Identifies the user behind a request; the composition root hands it in. */
export interface Authenticator {
  /** The `WWW-Authenticate` challenge of a request without a token. */
  readonly challenge: string;
  /** The user and session of an access token. Throws 401s. */
  user(exchange: Exchange): Promise<AuthenticatedUser>;
}

export interface AuthenticatedUser {
  readonly userId: string;
  readonly sessionId: string;
  readonly user: User;
}

export interface AuthParts {
  readonly login: Login;
  readonly users: Users;
  readonly sessions: Sessions;
  readonly accessTokens: Pick<AccessTokens, 'sign' | 'lifeMs'>;
  readonly bearer: Authenticator;
  readonly rates: Rates;
  readonly audit: Audit;
  /** Goes out as `tokenType`: `Bearer`. */
  readonly tokenType: string;
  /** The public keys as a JWK set; undefined when keys are secret (HS algorithms). */
  readonly jwks?: object | undefined;
}

const unstored = { 'cache-control': 'no-store', pragma: 'no-cache' };

/** Logging in and out: `/login`, `/token`, `/logout`, `/me`, `/anything`, and public keys. */
export function authRoutes(parts: AuthParts): Route[] {
  const { login, sessions, accessTokens, bearer, rates, jwks } = parts;
  const sign = signWith(accessTokens);

  return [
    route('POST', '/login', async (exchange) => {
      const body = await exchange.body({ form: true });
      const { username, password } = fieldsIn(body, ['username', 'password']);
      const attempt = { username, password, client: clientOf(exchange), signal: exchange.signal };
      return granted(parts, await login.open(attempt, sign));
    }),

    route('POST', '/token', async (exchange) => {
      const { token } = fieldsIn(await exchange.body({ form: true }), ['token']);
      const client = clientOf(exchange);
      rates.admit('token', client);
      return granted(parts, await challenged(bearer, sessions.rotate(token, client, sign)));
    }),

    route('POST', '/logout', async (exchange) => {
      const principal = await bearer.user(exchange);
      const scope = choiceIn(await exchange.body(), 'scope', ['session', 'others', 'all']);
      await logout(parts, principal, scope, clientOf(exchange));
      return empty(204);
    }),

    route('GET', '/me', async (exchange) => {
      const { user, sessionId } = await bearer.user(exchange);
      const { id, username, firstName, lastName } = user;
      return json(200, { id, username, firstName, lastName, sessionId }, unstored);
    }),

    route('ALL', '/anything', async (exchange) => {
      await bearer.user(exchange);
      return json(200, await echoOf(exchange), unstored);
    }),

    ...(jwks === undefined ? [] : [keysRoute(jwks)]),
  ];
}

function keysRoute(jwks: object): Route {
  const headers = { 'cache-control': 'public, max-age=300' };
  return route('GET', '/.well-known/jwks.json', () => json(200, jwks, headers));
}

function granted({ accessTokens, tokenType }: AuthParts, grant: Grant): WholeReply {
  const answer = {
    accessToken: grant.accessToken,
    tokenType,
    accessTokenExpiresIn: accessTokens.lifeMs,
    refreshToken: grant.refreshToken,
    refreshTokenExpiresIn: grant.refreshTokenExpiresInMs,
  };
  return json(200, answer, unstored);
}

/** A refused refresh token is answered with the challenge of a refused access token. */
async function challenged<Result>(
  { challenge }: Authenticator,
  asking: Promise<Result>,
): Promise<Result> {
  try {
    return await asking;
  } catch (cause) {
    if (!(cause instanceof Failure) || cause.status !== 401) throw cause;
    const { name, message, info } = cause;
    const headers = { 'www-authenticate': `${challenge}, error="invalid_token"` };
    throw new Failure(name, message, { headers, cause, ...(info && { info }) });
  }
}

type LogoutScope = 'session' | 'others' | 'all';

async function logout(
  { sessions, users, audit }: AuthParts,
  { userId, sessionId }: AuthenticatedUser,
  scope: LogoutScope,
  client: Client,
): Promise<void> {
  if (scope === 'session') {
    await sessions.end(sessionId, 'logout');
  } else if (scope === 'others') {
    await sessions.endAll(userId, 'logout', { except: sessionId });
  } else {
    const first = (tx: Database) => users.endAccessTokens(userId, tx);
    await sessions.endAll(userId, 'logout', { first });
  }
  audit.record('session_logout', { client, userId, sessionId, reason: scope });
}
