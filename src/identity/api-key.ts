import type { Rate } from '../util/token-bucket.js';

/** Permissions that a key can have. */
export const scopes = ['publish', 'metrics', 'tickets', 'streams', 'disconnect', 'topics'] as const;

export type Scope = (typeof scopes)[number];

/** The limits of an API key. */
export interface KeyLimits {
  /**
   * Prefix of the user ids that requests with the key may name. With a prefix other than `''`, the key cannot
   * address everybody or sessions. Undefined and `''` limit nothing. A key whose prefix is undefined has no
   * scope that needs a prefix.
   */
  readonly userPrefix: string | undefined;
  /**
   * Patterns of topics (see `isTopicPattern`). The topics that the key names must match one of them, and the key
   * publishes neither to everybody nor to users and sessions. Undefined limits nothing.
   */
  readonly topics: readonly string[] | undefined;
  /** The key is valid before this time, epoch ms. Undefined if the key does not expire. */
  readonly expiresAt: number | undefined;
  /** Maximum rate of requests with the key, in each process. */
  readonly rate: Rate | undefined;
}

/** An API key without its secret. Times are in epoch milliseconds. */
export interface ApiKey extends KeyLimits {
  /** 16 hex digits. Not secret. */
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly createdAt: number;
  /** Updated at most once a minute. */
  readonly lastUsedAt: number | undefined;
  readonly revokedAt: number | undefined;
}

export function isScope(given: string): given is Scope {
  return scopes.some((scope) => scope === given);
}
