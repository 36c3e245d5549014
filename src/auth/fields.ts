import { Failure } from '../errors.js';

/**
 * Returns the named fields of a body, each a non-empty string. Throws `missing_required_parameter`,
 * whose `info.body` lists all missing fields; clients read it.
 */
export function parseFields<Name extends string>(
  body: unknown,
  names: readonly Name[],
): Record<Name, string> {
  const given = getOwnMembers(body);
  const missing = names.filter((name) => typeof given[name] !== 'string' || given[name] === '');
  if (missing.length > 0) {
    const message = `Cannot read body: needs non-empty ${missing.join(' and ')}`;
    throw new Failure('missing_required_parameter', message, { info: { body: missing } });
  }
  return given as Record<Name, string>; // Safe: every name was checked above.
}

/**
 * Returns the named field of a body, or `allowed[0]` when the field is absent. Throws
 * `invalid_request` for a value that is not in `allowed`, with the field in `info.body` and the
 * allowed values in `info.allowed`.
 */
export function parseChoice<Choice extends string>(
  body: unknown,
  name: string,
  allowed: readonly [Choice, ...Choice[]],
): Choice {
  const given = body === undefined ? undefined : parseObject(body)[name];
  if (given === undefined) return allowed[0];
  const choice = allowed.find((one) => one === given);
  if (choice === undefined) {
    const message = `Cannot read body: ${name} must be one of ${allowed.join(', ')}`;
    throw new Failure('invalid_request', message, { info: { body: [name], allowed } });
  }
  return choice;
}

function parseObject(body: unknown): Record<string, unknown> {
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return getOwnMembers(body);
  throw new Failure('invalid_request', 'Cannot read body: must be an object');
}

/** Copies own members only, so that `constructor` and other inherited names are not fields. */
function getOwnMembers(body: unknown): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return {};
  return Object.assign(Object.create(null), body) as Record<string, unknown>;
}
