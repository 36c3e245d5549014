type Env = Readonly<Record<string, string | undefined>>;

/** Prefixes of settings that hardly any other program uses. */
const distinctivePrefixes =
  /^(ACCESS_TOKEN|REFRESH_TOKEN|TOKEN_IP|STREAM|EVENT_LOG|ARGON2|DB|LOGIN|AUTH_QUEUE)_|^TRUSTED_(ISSUER|TOKEN)|^PASSWORD_PEP|^TRUST_PROX/;

/** Names similar to shorter settings (PORT, HOST, TLS) are not typos: other programs use names such as POST. */
const settingLengthMin = 8;

/**
 * Returns a problem for each name of the environment that is not a setting, but was probably meant as one: a typo
 * of a setting (`findMeant`), or a name with a distinctive prefix. Other names belong to other programs.
 */
export function findUnknown(env: Env, settings: readonly string[]): string[] {
  return Object.keys(env).flatMap((name) => {
    if (settings.includes(name) || isServiceLink(name, env[name])) return [];
    const meant = findMeant(name, settings);
    if (meant !== undefined) return [`${name} is not a setting of Herald: did you mean ${meant}?`];
    if (!distinctivePrefixes.test(name)) return [];
    return [`${name} is not a setting of Herald: see .env.example`];
  });
}

function findMeant(name: string, settings: readonly string[]): string | undefined {
  const longSettings = settings.filter((setting) => setting.length >= settingLengthMin);
  return findNearest(name.toUpperCase(), longSettings);
}

/**
 * Returns the candidate that a name misspells; undefined if there is none. A misspelled name has one wrong, missing,
 * extra or swapped letter, or two such errors if it has ten letters or more.
 */
export function findNearest(name: string, candidates: readonly string[]): string | undefined {
  const distanceMax = name.length < 10 ? 1 : 2;
  return candidates
    .filter((candidate) => Math.abs(candidate.length - name.length) <= distanceMax)
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .filter(({ distance }) => distance <= distanceMax)
    .sort((a, b) => a.distance - b.distance)[0]?.candidate;
}

/** Whether this is a host or port variable that Kubernetes or Docker sets for a linked service, such as `db`. */
function isServiceLink(name: string, value: string | undefined): boolean {
  const isPort = name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value ?? '');
  return isPort || /_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/.test(name);
}

/** Returns the edit distance of two texts (optimal string alignment). */
function editDistance(some: string, other: string): number {
  // Keeps three rows of the distance table. The first row, 0, 1, …, has the distances of the empty text to the
  // prefixes of `other`.
  let [before, last]: [number[], number[]] = [[], Array.from(`${other} `, (_, index) => index)];
  for (let row = 1; row <= some.length; row += 1) {
    const next = [row];
    for (let column = 1; column <= other.length; column += 1) {
      const isSame = some[row - 1] === other[column - 1];
      const isSwapped = some[row - 1] === other[column - 2] && some[row - 2] === other[column - 1];
      next[column] = Math.min(
        cellAt(last, column) + 1,
        cellAt(next, column - 1) + 1,
        cellAt(last, column - 1) + (isSame ? 0 : 1),
        isSwapped ? cellAt(before, column - 2) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    [before, last] = [last, next];
  }
  return cellAt(last, other.length);
}

function cellAt(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
