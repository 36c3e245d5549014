/** The cost parameters of a hash. */
export interface Argon2Cost {
  /** 7,168 to 262,144. */
  readonly memoryKib: number;
  /** 1 to 10. */
  readonly passes: number;
  /** 1 to 8; each lane after the first starts a native thread. */
  readonly lanes: number;
}

export interface Argon2Digest {
  readonly cost: Argon2Cost;
  readonly saltBytes: number;
  readonly tagBytes: number;
}

const phc =
  /^\$argon2id\$v=19\$m=([1-9]\d{0,5}),t=([1-9]\d?),p=([1-9])\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/;

/**
 * Parses `$argon2id$v=19$m=…,t=…,p=…$salt$tag`, salt 8 to 64 and tag 16 to 64 bytes.
 *
 * Returns undefined for anything else: other kinds of hash, and costs out of bounds. A stored hash
 * is untrusted input: one that asks for gigabytes is rejected here, before memory is allocated.
 *
 * Spec: RFC 9106; PHC string format.
 */
export function parseDigest(text: string): Argon2Digest | undefined {
  const [, memoryKib, passes, lanes, salt, tag] = phc.exec(text) ?? [];
  const cost = { memoryKib: Number(memoryKib), passes: Number(passes), lanes: Number(lanes) };
  const saltBytes = computeDecodedBytes(salt);
  const tagBytes = computeDecodedBytes(tag);
  if (saltBytes === undefined || tagBytes === undefined) return undefined;
  return isWithinBounds(cost) ? { cost, saltBytes, tagBytes } : undefined;
}

/** Whether each value is within the bounds documented in `Argon2Cost`. */
export function isWithinBounds({ memoryKib, passes, lanes }: Argon2Cost): boolean {
  return (
    isIntegerBetween(memoryKib, 7168, 262_144) &&
    isIntegerBetween(passes, 1, 10) &&
    isIntegerBetween(lanes, 1, 8)
  );
}

function isIntegerBetween(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max;
}

/** Returns the decoded length in bytes; undefined for anything but canonical unpadded base64. */
function computeDecodedBytes(base64: string | undefined): number | undefined {
  if (base64 === undefined) return undefined;
  const bytes = Buffer.from(base64, 'base64');
  return bytes.toString('base64').replace(/=+$/, '') === base64 ? bytes.length : undefined;
}
