/** The settings of an `.env` file, and a problem for each line that is not valid. */
export interface EnvFile {
  readonly values: ReadonlyMap<string, string>;
  /** Never contain a name or value of the file, because either may be a secret. */
  readonly problems: readonly string[];
}

const assignmentPattern = /^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*([^\r]*)$/;
const blankPattern = /^[ \t]*(?:#[^\r]*)?$/;
/** A value in quotes, which may span lines, and what follows on its last line. */
const quotedPattern = /^(["'`])((?:(?!\1)[^\r])*)\1([^\n]*)/;

/**
 * Parses the text of an `.env` file: lines `NAME=value`, optionally with `export` before the name, comments and
 * blank lines. A value in quotes (`"`, `'` or a backquote) may span lines; in double quotes `\n` is a line end.
 * A `#` after a blank begins a comment. The last of several lines with the same name takes precedence.
 *
 * `parseEnv` of Node is not used, because it skips or joins malformed lines without reporting them, in different
 * ways in each version of Node.
 */
export function parseEnvFile(text: string): EnvFile {
  const lines = text.replaceAll('\r\n', '\n').split('\n');
  const values = new Map<string, string>();
  const problems: string[] = [];
  for (let index = 0; index < lines.length; index += 1) {
    const line = lines[index] ?? '';
    if (blankPattern.test(line)) continue;
    const [, name, start = ''] = assignmentPattern.exec(line) ?? [];
    const isQuoted = /^["'`]/.test(start);
    const rest = isQuoted ? [start, ...lines.slice(index + 1)].join('\n') : start;
    const found = isQuoted ? parseQuoted(rest) : parseUnquoted(rest);
    if (name === undefined || typeof found === 'string') {
      const problem = name === undefined ? 'is not NAME=value' : found;
      problems.push(`.env line ${index + 1} ${problem}`);
      continue;
    }
    values.set(name, found.value);
    index += found.lineEnds;
  }
  return { values, problems };
}

/** A value and the number of line ends in it, or a problem. */
type Parsed = { readonly value: string; readonly lineEnds: number } | string;

function parseQuoted(text: string): Parsed {
  const [, quote, content = '', after = ''] = quotedPattern.exec(text) ?? [];
  if (quote === undefined) return 'is not NAME=value: its quote does not end';
  if (!blankPattern.test(after)) return 'is not NAME=value: text follows the end of its quote';
  const value = quote === '"' ? content.replaceAll('\\n', '\n') : content;
  return { value, lineEnds: content.split('\n').length - 1 };
}

function parseUnquoted(text: string): Parsed {
  const value = text.replace(/(?:^|[ \t])#.*$/, '').replace(/[ \t]+$/, '');
  // Other readers of .env disagree whether the value ends here.
  if (value.includes('#')) return 'has a # in its value: put the value in quotes';
  return { value, lineEnds: 0 };
}
