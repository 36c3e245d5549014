import { Failure } from '../errors.js';

/** The members of a JSON object. It has no members other than the known fields. */
export type Fields<Name extends string> = Readonly<Partial<Record<Name, unknown>>>;

/**
 * Returns the members of a JSON body. Throws `invalid_request` for anything but an object, and for an
 * unknown field, with the name of the field in `info.field`. An absent body counts as `{}`.
 */
export function parseStrictBody<Name extends string>(
  body: unknown,
  known: readonly Name[],
): Fields<Name> {
  if (body === undefined) return {} as Fields<Name>; // No field is set.
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new Failure('invalid_request', 'Cannot read body: must be a JSON object');
  }
  for (const name of Object.keys(body)) requireKnown(name, known, 'body');
  // A null prototype, so that `constructor` and other inherited names are not fields.
  return Object.assign(Object.create(null), body) as Fields<Name>;
}

/**
 * Returns the parameters of a query, each of which may occur once. Throws `invalid_request` for an unknown or
 * repeated parameter, with its name in `info.field`.
 */
export function parseStrictQuery<Name extends string>(
  query: URLSearchParams,
  known: readonly Name[],
): Readonly<Partial<Record<Name, string>>> {
  const parameters: Partial<Record<Name, string>> = Object.create(null);
  for (const [name, value] of query) {
    const knownName = requireKnown(name, known, 'query');
    if (parameters[knownName] !== undefined) {
      throw invalidField(knownName, 'must be given once', 'query');
    }
    parameters[knownName] = value;
  }
  return parameters;
}

/** Throws `invalid_request` for any query parameter, see `parseStrictQuery`. */
export function refuseQuery(query: URLSearchParams): void {
  parseStrictQuery(query, []);
}

/** Returns the failure for a field or parameter whose value is not allowed. */
export function invalidField(
  field: string,
  rule: string,
  source: 'body' | 'query' = 'body',
): Failure {
  return new Failure('invalid_request', `Cannot read ${source}: ${field} ${rule}`, {
    info: { field },
  });
}

/** Returns the failure for a body without these fields. */
export function missingFields(names: readonly string[]): Failure {
  return new Failure(
    'missing_required_parameter',
    `Cannot read body: needs ${names.join(' and ')}`,
    {
      info: { body: names },
    },
  );
}

function requireKnown<Name extends string>(
  name: string,
  known: readonly Name[],
  source: 'body' | 'query',
): Name {
  const found = known.find((one) => one === name);
  if (found !== undefined) return found;
  // Only a name that could be a mistyped field is echoed.
  const field = /^\w{1,32}$/.test(name) ? name : source;
  const kind = source === 'body' ? 'fields' : 'parameters';
  const allowed =
    known.length === 0 ? `there are no ${kind}` : `is not one of the ${kind} ${known.join(', ')}`;
  throw invalidField(field, allowed, source);
}
