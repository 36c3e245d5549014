import { Failure } from '../errors.js';

/**
 * The named fields of a body, each a non-empty string. Throws `missing_required_parameter`, with
 * `info.body` naming all that are missing; clients read it.
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
 * The named field of a body when it is one of `allowed`, or the first of them when it is absent.
 * Throws `invalid_request`, with `info.body` naming the field and `info.allowed` what it may be.
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

/** Own members only: `constructor` and its like are no fields of a body. */
function getOwnMembers(body: unknown): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return {};
  return Object.assign(Object.create(null), body) as Record<string, unknown>;
}
