import type { KeyObject } from 'node:crypto';

const curveByAlgorithm: Readonly<Record<string, string>> = {
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
};

const edwardsAlgorithms: readonly string[] = ['EdDSA', 'Ed25519'];

/**
 * Returns whether a public key can verify signatures of an RS, PS, ES or Edwards-curve algorithm.
 * Spec: RFC 7518 §3.3 and §3.4, RFC 8037 §3.1.
 */
export function canVerify(algorithm: string, key: KeyObject): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  if (edwardsAlgorithms.includes(algorithm)) return type === 'ed25519';
  const curve = curveByAlgorithm[algorithm];
  return curve === undefined
    ? type === 'rsa' && (details.modulusLength ?? 0) >= 2048
    : type === 'ec' && details.namedCurve === curve;
}

/** Returns the kind of key that `canVerify` accepts for an algorithm, with its article. */
export function keyRequirement(algorithm: string): string {
  if (edwardsAlgorithms.includes(algorithm)) return 'an Ed25519 key';
  const curve = curveByAlgorithm[algorithm];
  return curve === undefined ? 'an RSA key of 2048 bits or more' : `an EC key on ${curve}`;
}

/** Splits a text into its `BEGIN PUBLIC KEY` blocks. Returns undefined if it has none, or other PEM blocks. */
export function splitPublicPems(text: string): readonly string[] | undefined {
  const pems = text.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? [];
  const otherText = pems.reduce((left, pem) => left.replace(pem, ''), text);
  return pems.length === 0 || otherText.includes('-----BEGIN') ? undefined : pems;
}
