/**
 * Node treats a timer delay above 2^31 - 1 ms (24 days) as 1 ms. A limit of 5 days leaves room for code
 * that adds or doubles settings.
 */
const timerMsMax = 5 * 86_400_000;
/** A hundred years, so that a date plus a span is still a valid date and a safe integer. */
const spanMsMax = 36_525 * 86_400_000;

interface Range {
  readonly min?: number;
  readonly max?: number;
}

/**
 * Reads settings from an environment and collects their problems, so that all are reported
 * together. An empty value counts as absent. An invalid value yields the default; callers must
 * check `problems` before they use a value.
 */
export class EnvReader {
  readonly problems: string[] = [];
  /** Names of the settings that were read, in order. */
  readonly names: string[] = [];
  /** Paths of the files that `file` and `secret` have read, by the names of their settings. */
  readonly paths = new Map<string, string>();
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #readFile: (path: string) => string;

  constructor(
    env: Readonly<Record<string, string | undefined>>,
    readFile: (path: string) => string,
  ) {
    this.#env = env;
    this.#readFile = readFile;
  }

  /** Returns the trimmed value; undefined when it is absent or empty. */
  optional(name: string): string | undefined {
    this.names.push(name);
    const value = this.#env[name]?.trim();
    return value === '' ? undefined : value;
  }

  text(name: string, defaultValue: string): string {
    return this.optional(name) ?? defaultValue;
  }

  /** Reads an integer from 0 or `min` to `max`. */
  integer(
    name: string,
    defaultValue: number,
    { min = 0, max = Number.MAX_SAFE_INTEGER }: Range = {},
  ) {
    const given = this.optional(name);
    if (given === undefined) return defaultValue;
    const value = Number(given);
    if (/^\d+$/.test(given) && value >= min && value <= max) return value;
    const allowed = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
    this.problems.push(`${name} must be a whole number, ${allowed}`);
    return defaultValue;
  }

  /** Reads a delay for a timer, in ms. At most 5 days. */
  timer(name: string, defaultValue: number, { min }: { min: number }): number {
    return this.integer(name, defaultValue, { min, max: timerMsMax });
  }

  /** Reads a lifetime in ms, which is added to or subtracted from a date. At most 100 years. */
  span(name: string, defaultValue: number, { min }: { min: number }): number {
    return this.integer(name, defaultValue, { min, max: spanMsMax });
  }

  choice<Choice extends string>(
    name: string,
    choices: readonly Choice[],
    defaultValue: Choice,
  ): Choice {
    const given = this.optional(name);
    if (given === undefined) return defaultValue;
    const found = choices.find((choice) => choice === given);
    if (found === undefined) this.problems.push(`${name} must be one of ${choices.join(', ')}`);
    return found ?? defaultValue;
  }

  flag(name: string, defaultValue: boolean): boolean {
    return this.choice(name, ['true', 'false'], defaultValue ? 'true' : 'false') === 'true';
  }

  /** Reads a comma-separated list. Omits empty entries. */
  list(name: string): readonly string[] {
    const given = this.optional(name);
    const entries = given === undefined ? [] : given.split(',');
    return entries.map((entry) => entry.trim()).filter((entry) => entry !== '');
  }

  /** Returns the content of the file that a setting names. */
  file(name: string): string | undefined {
    const path = this.optional(name);
    if (path === undefined) return undefined;
    this.paths.set(name, path);
    return this.fileAt(path, name);
  }

  /** Returns the content of a file. `name` is the setting or field that has the path, for a problem. */
  fileAt(path: string, name: string): string | undefined {
    try {
      return this.#readFile(path);
    } catch (cause) {
      this.problems.push(`${name} names a file that cannot be read (${getErrorCode(cause)})`);
      return undefined;
    }
  }

  /**
   * Reads the value of `<name>`, or the file of `<name>_FILE`. Reports a problem if both are set.
   */
  secret(name: string): string | undefined {
    const direct = this.optional(name);
    const content = this.file(`${name}_FILE`)?.trim();
    if (direct !== undefined && content !== undefined) {
      this.problems.push(`${name} and ${name}_FILE are both set: give one`);
    }
    const given = direct ?? content;
    if (given?.includes('\ufffd')) this.problems.push(`${name} must be text in UTF-8, not bytes`);
    return given;
  }
}

function getErrorCode(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
}
