import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto';
import type { IssuerKeys } from '../../config/issuer-keys.js';
import { canVerify } from '../../config/public-keys.js';

/** The members of a token's header that select its key. */
export interface TokenHeader {
  /** One of the algorithms of the issuer. */
  readonly algorithm: string;
  readonly keyId: string | undefined;
}

/** The keys of one issuer. */
export interface KeySource {
  /**
   * Returns the keys that may have signed a token with this header: 1 to 4 keys, because trying a key takes up
   * to 2 ms. Throws a JwtError if no key or more than 4 keys match, and `service_unavailable` if the keys cannot
   * be fetched. Rejects with the reason of `signal` if it aborts.
   */
  find(header: TokenHeader, signal: AbortSignal | undefined): Promise<readonly KeyObject[]>;
  /** Starts to fetch the keys if a fetch is due. Called by a timer. */
  refresh(): void;
  /** Aborts a running fetch. Idempotent. */
  close(): void;
}

export const candidatesMax = 4;

type FileKeys = Exclude<IssuerKeys, { readonly kind: 'jwks' }>;

/** Creates the key source of an issuer whose keys are in a file. The `kid` of a token is not used. */
export function createFileKeys(keys: FileKeys): KeySource {
  const secrets =
    keys.kind === 'secrets' ? keys.secrets.map((secret) => createSecretKey(secret)) : [];
  const publicKeys = keys.kind === 'publicKeys' ? keys.pems.map((pem) => createPublicKey(pem)) : [];
  return {
    find: async ({ algorithm }) => [
      ...secrets,
      ...publicKeys.filter((key) => canVerify(algorithm, key)),
    ],
    refresh() {},
    close() {},
  };
}
