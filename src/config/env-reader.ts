/** A timer of Node counts to 2^31 - 1 and takes more for 1; some settings are added up or doubled. */
const timerMsMax = 5 * 86_400_000;
/** A hundred years: what is added to a date must stay a date, and a whole number. */
const spanMsMax = 36_525 * 86_400_000;

interface Range {
  readonly min?: number;
  readonly max?: number;
}

/**
 * Reads settings from an environment and collects what is wrong with them, so that all problems
 * are reported together. An empty value counts as absent. After a problem the default stands in;
 * whoever reads looks at `problems` before using anything.
 */
export class EnvReader {
  readonly problems: string[] = [];
  /** Every name asked for, in order. */
  readonly names: string[] = [];
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #readFile: (path: string) => string;

  constructor(
    env: Readonly<Record<string, string | undefined>>,
    readFile: (path: string) => string,
  ) {
    this.#env = env;
    this.#readFile = readFile;
  }

  optional(name: string): string | undefined {
    this.names.push(name);
    const value = this.#env[name]?.trim();
    return value === '' ? undefined : value;
  }

  text(name: string, byDefault: string): string {
    return this.optional(name) ?? byDefault;
  }

  /** A whole number. Units are in the name of the field it goes to. */
  integer(name: string, byDefault: number, { min = 0, max = Number.MAX_SAFE_INTEGER }: Range = {}) {
    const given = this.optional(name);
    if (given === undefined) return byDefault;
    const value = Number(given);
    if (/^\d+$/.test(given) && value >= min && value <= max) return value;
    const allowed = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
    this.problems.push(`${name} must be a whole number, ${allowed}`);
    return byDefault;
  }

  /** How long something may take or rests, in ms: for a timer. */
  timer(name: string, byDefault: number, { min }: { min: number }): number {
    return this.integer(name, byDefault, { min, max: timerMsMax });
  }

  /** How long something is good for, in ms: it is added to a date, or taken from one. */
  span(name: string, byDefault: number, { min }: { min: number }): number {
    return this.integer(name, byDefault, { min, max: spanMsMax });
  }

  choice<Choice extends string>(
    name: string,
    choices: readonly Choice[],
    byDefault: Choice,
  ): Choice {
    const given = this.optional(name);
    if (given === undefined) return byDefault;
    const found = choices.find((choice) => choice === given);
    if (found === undefined) this.problems.push(`${name} must be one of ${choices.join(', ')}`);
    return found ?? byDefault;
  }

  flag(name: string, byDefault: boolean): boolean {
    return this.choice(name, ['true', 'false'], byDefault ? 'true' : 'false') === 'true';
  }

  list(name: string): readonly string[] {
    const given = this.optional(name);
    const parts = given === undefined ? [] : given.split(',');
    return parts.map((part) => part.trim()).filter((part) => part !== '');
  }

  /** The content of the file that a setting names. */
  file(name: string): string | undefined {
    const path = this.optional(name);
    if (path === undefined) return undefined;
    try {
      return this.#readFile(path);
    } catch (cause) {
      this.problems.push(`${name} names a file that cannot be read (${getErrorCode(cause)})`);
      return undefined;
    }
  }

  /** A value given directly as `<name>` or, by its file, as `<name>_FILE`; not both. */
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
