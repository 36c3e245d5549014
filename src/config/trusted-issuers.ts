import { noRights, parseTopicRights, type TopicRights } from '../events/topic-rights.js';
import type { EnvReader } from './env-reader.js';
import { IssuerFields } from './issuer-fields.js';
import { type IssuerKeys, readIssuerKeys } from './issuer-keys.js';
import { findJsonError } from './json-position.js';

/** Algorithms whose signatures a public key verifies. Spec: RFC 7518 §3, RFC 8037, RFC 9864. */
export const publicKeyAlgorithms = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'],
  ...['EdDSA', 'Ed25519'],
];
export const secretAlgorithms = ['HS256', 'HS384', 'HS512'];

/** An issuer of JWTs that Herald accepts, one entry of `TRUSTED_ISSUERS_FILE`. */
export interface TrustedIssuer {
  /** The exact `iss` of its tokens. */
  readonly issuer: string;
  /** A token must have one of these in its `aud`. */
  readonly audiences: readonly string[];
  /** Only HS algorithms if the keys are secrets; otherwise none of them. */
  readonly algorithms: readonly string[];
  readonly keys: IssuerKeys;
  /** The claim that identifies the user. */
  readonly userClaim: string;
  /** Prefix of the user id. The value of the user claim follows it. */
  readonly userPrefix: string;
  /** The claim that contains rights of the user. */
  readonly rightsClaim: string | undefined;
  /** Rights of every user of the issuer. */
  readonly rights: TopicRights;
}

export const issuersMax = 20;
const audiencesMax = 10;

const fieldNames = [
  ...['issuer', 'audience', 'jwksUrl', 'caFile', 'publicKeyFile', 'secretFile', 'algorithms'],
  ...['userClaim', 'userPrefix', 'rightsClaim', 'rights'],
];

/** Matches a prefix of a user id: at most 254 of the characters of `userIdPattern`. */
const userPrefixPattern = /^[!#-)+\-.-[\]-~]{0,254}$/;

/**
 * Reads the file of trusted issuers that a setting names. Adds all problems of the file to the problems of the
 * reader; each names the issuer by its number, from 1, and the field. Returns an empty list without a file.
 */
export function readTrustedIssuers(reader: EnvReader, name: string): readonly TrustedIssuer[] {
  const text = reader.file(name);
  if (text === undefined) return [];
  const entries = parseList(text);
  if (typeof entries === 'string') {
    reader.problems.push(`${name} ${entries}`);
    return [];
  }
  const issuers = entries.flatMap((entry, index) => {
    const fields = IssuerFields.of(entry, reader, `${name}: issuer ${index + 1}`);
    fields?.checkNames(fieldNames);
    return fields === undefined ? [] : [readIssuer(fields)];
  });
  for (const { issuer } of findRepeated(issuers)) {
    reader.problems.push(`${name}: issuer ${JSON.stringify(issuer)} is listed twice`);
  }
  return issuers;
}

function findRepeated(issuers: readonly TrustedIssuer[]): readonly TrustedIssuer[] {
  const isRepeat = ({ issuer }: TrustedIssuer, index: number) =>
    issuer !== '' && issuers.findIndex((other) => other.issuer === issuer) < index;
  return issuers.filter(isRepeat);
}

/** Returns the entries, or a problem that follows the name of the setting. */
function parseList(text: string): readonly unknown[] | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // JSON.parse throws only for a text that is not JSON.
    const { line, column, isEnd } = findJsonError(text);
    return `is not JSON: line ${line}, column ${column}${isEnd ? ', the end of the file' : ''}`;
  }
  if (!Array.isArray(value) || value.length > issuersMax)
    return `must be a JSON list of 1 to ${issuersMax} issuers`;
  return value.length > 0 ? value : 'lists no issuer: list at least one, or unset the setting';
}

function readIssuer(fields: IssuerFields): TrustedIssuer {
  const algorithms = fields.texts('algorithms', publicKeyAlgorithms.length);
  return {
    issuer: fields.text('issuer'),
    audiences: readAudiences(fields),
    algorithms,
    keys: readIssuerKeys(fields, checkAlgorithms(fields, algorithms)),
    userClaim: fields.has('userClaim') ? fields.text('userClaim') : 'sub',
    userPrefix: readUserPrefix(fields),
    rightsClaim: fields.has('rightsClaim') ? fields.text('rightsClaim') : undefined,
    rights: readRights(fields),
  };
}

function readRights(fields: IssuerFields): TopicRights {
  const rights = fields.has('rights') ? parseTopicRights(fields.get('rights')) : noRights;
  if (typeof rights !== 'string') return rights;
  fields.addProblem('rights', rights);
  return noRights;
}

function readAudiences(fields: IssuerFields): readonly string[] {
  const isList = Array.isArray(fields.get('audience'));
  return isList ? fields.texts('audience', audiencesMax) : [fields.text('audience')];
}

/** Returns the algorithms that fit the kind of key, and reports the others. */
function checkAlgorithms(fields: IssuerFields, algorithms: readonly string[]): readonly string[] {
  const isSecret = fields.has('secretFile');
  const allowed = isSecret ? secretAlgorithms : publicKeyAlgorithms;
  if (algorithms.every((algorithm) => allowed.includes(algorithm))) return algorithms;
  const keyField = isSecret ? 'secretFile' : 'jwksUrl and publicKeyFile';
  fields.addProblem('algorithms', `may list only ${allowed.join(', ')} with ${keyField}`);
  return algorithms.filter((algorithm) => allowed.includes(algorithm));
}

function readUserPrefix(fields: IssuerFields): string {
  const prefix = fields.get('userPrefix');
  if (typeof prefix === 'string' && userPrefixPattern.test(prefix)) return prefix;
  const characters = 'at most 254 printable ASCII characters without space, ", comma, \\ and *';
  fields.addProblem(
    'userPrefix',
    prefix === undefined
      ? 'is required: "" if the user claim itself is the user id'
      : `must be a text of ${characters}`,
  );
  return '';
}
