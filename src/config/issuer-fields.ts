import type { EnvReader } from './env-reader.js';
import { findNearest } from './setting-typos.js';

const textLengthMax = 2048;

/** The fields of an entry of `TRUSTED_ISSUERS_FILE`. Adds their problems to the problems of the reader. */
export class IssuerFields {
  readonly reader: EnvReader;
  /** Text that names the entry in problems. */
  readonly #label: string;
  readonly #fields: ReadonlyMap<string, unknown>;

  private constructor(entry: object, reader: EnvReader, label: string) {
    this.reader = reader;
    this.#label = label;
    this.#fields = new Map(Object.entries(entry));
  }

  /** Returns the fields of an entry. Reports a problem and returns undefined if it is not an object. */
  static of(entry: unknown, reader: EnvReader, label: string): IssuerFields | undefined {
    if (typeof entry === 'object' && entry !== null && !Array.isArray(entry)) {
      return new IssuerFields(entry, reader, label);
    }
    reader.problems.push(`${label} must be an object`);
    return undefined;
  }

  /** Reports each field whose name is not in `names`. */
  checkNames(names: readonly string[]): void {
    for (const name of this.#fields.keys()) {
      if (!names.includes(name)) this.addProblem('unknown', describeUnknown(name, names));
    }
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  get(name: string): unknown {
    return this.#fields.get(name);
  }

  /** Returns a text of 1 to 2048 characters without white space at its ends, or reports a problem. */
  text(name: string): string {
    const value = this.get(name);
    if (isText(value)) return value;
    this.addProblem(
      name,
      this.has(name)
        ? `must be a text of 1 to ${textLengthMax} characters without space at its ends`
        : 'is required',
    );
    return '';
  }

  /** Returns a list of 1 to `max` different texts, or reports a problem. */
  texts(name: string, max: number): readonly string[] {
    const value = this.get(name);
    const isValid =
      Array.isArray(value) &&
      value.length > 0 &&
      value.length <= max &&
      value.every(isText) &&
      new Set(value).size === value.length;
    if (isValid) return value;
    this.addProblem(
      name,
      this.has(name) ? `must be a list of 1 to ${max} different texts` : 'is required',
    );
    return [];
  }

  /** Returns the content of the file that a field names, or reports a problem. */
  file(name: string): string | undefined {
    const path = this.text(name);
    return path === '' ? undefined : this.reader.fileAt(path, this.nameOf(name));
  }

  /** Returns the label of the entry and the name of a field, for a problem. */
  nameOf(name: string): string {
    return `${this.#label}: ${name}`;
  }

  /** `problem` follows the name of the field. */
  addProblem(name: string, problem: string): void {
    this.reader.problems.push(`${this.nameOf(name)} ${problem}`);
  }
}

function isText(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    value.length <= textLengthMax &&
    value.trim() === value
  );
}

function describeUnknown(name: string, names: readonly string[]): string {
  const nearest = findNearest(name, names);
  const hint = nearest === undefined ? `the fields are ${names.join(', ')}` : `is it ${nearest}?`;
  return `field ${JSON.stringify(name.slice(0, 64))}: ${hint}`;
}
