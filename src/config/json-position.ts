type Expected = 'value' | 'item or end' | 'name or end' | 'name' | 'colon' | 'comma or end';

// White space, then a mark, a string, or a number or literal. Spec: RFC 8259.
const tokenPattern =
  /([ \t\n\r]*)(?:([[\]{},:])|("(?:[^"\\\p{Cc}]|[\x7f-\x9f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*")|((?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.+-])))?/uy;

/**
 * Returns the line and the column, from 1, of the first token of a text that is not valid JSON there, or of the end
 * of the text. For a text that `JSON.parse` has refused: its message has a position only for some errors, and
 * different ones in each version of Node.
 */
export function findJsonError(text: string): { line: number; column: number; isEnd: boolean } {
  const offset = findErrorOffset(text);
  const before = text.slice(0, offset).split('\n');
  const column = (before.at(-1) ?? '').length + 1;
  return { line: before.length, column, isEnd: offset === text.length };
}

function findErrorOffset(text: string): number {
  const ends: string[] = []; // The marks that end the open lists and objects.
  let expected: Expected = 'value';
  tokenPattern.lastIndex = 0;
  for (;;) {
    const from = tokenPattern.lastIndex;
    const [, space = '', mark, string, literal] = tokenPattern.exec(text) ?? [];
    const isName: boolean = expected === 'name' || expected === 'name or end';
    const isValue: boolean = expected === 'value' || expected === 'item or end';
    if (isName && string !== undefined) expected = 'colon';
    else if (isValue && (string ?? literal) !== undefined) expected = 'comma or end';
    else if (isValue && (mark === '[' || mark === '{')) {
      ends.push(mark === '[' ? ']' : '}');
      expected = mark === '[' ? 'item or end' : 'name or end';
    } else if (expected === 'colon' && mark === ':') expected = 'value';
    else if (expected === 'comma or end' && mark === ',' && ends.length > 0)
      expected = ends.at(-1) === ']' ? 'value' : 'name';
    else if (expected.endsWith('end') && mark !== undefined && mark === ends.at(-1)) {
      ends.pop();
      expected = 'comma or end';
    } else return from + space.length;
  }
}
