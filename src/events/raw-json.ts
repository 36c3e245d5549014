/** Returns the text of each element of an array, unchanged. `text` must be a valid JSON array. */
export function sliceElements(text: string): string[] {
  const elements: string[] = [];
  let index = skipWhitespace(text, skipWhitespace(text, 0) + 1);
  while (text[index] !== ']') {
    const end = skipValue(text, index);
    elements.push(text.slice(index, end));
    index = skipComma(text, end);
  }
  return elements;
}

/**
 * Returns the text of the member `name` of an object. The text is minified and otherwise unchanged: it keeps the
 * digits of numbers and duplicate members. If several members have this name, returns the last, as `JSON.parse`
 * does. Returns undefined if there is no such member or the JSON is not an object. `text` must be valid JSON.
 */
export function sliceMember(text: string, name: string): string | undefined {
  const objectStart = skipWhitespace(text, 0);
  if (text[objectStart] !== '{') return undefined;
  let member: string | undefined;
  let index = skipWhitespace(text, objectStart + 1);
  while (text[index] !== '}') {
    const nameEnd = skipString(text, index);
    const isMatch = JSON.parse(text.slice(index, nameEnd)) === name; // Parsed, because it may contain escapes.
    const valueStart = skipWhitespace(text, skipWhitespace(text, nameEnd) + 1); // After the colon.
    const valueEnd = skipValue(text, valueStart);
    if (isMatch) member = minify(text.slice(valueStart, valueEnd));
    index = skipComma(text, valueEnd);
  }
  return member;
}

/** Returns JSON text without the whitespace outside of its strings. */
export function minify(text: string): string {
  let minified = '';
  let start = 0;
  for (let index = 0; index < text.length; ) {
    if (text[index] === '"') index = skipString(text, index);
    else if (isWhitespace(text[index])) {
      minified += text.slice(start, index);
      index = skipWhitespace(text, index);
      start = index;
    } else index += 1;
  }
  return minified + text.slice(start);
}

/** Returns the index after the value that starts at `start`. */
function skipValue(text: string, start: number): number {
  let depth = 0;
  for (let index = start; index < text.length; ) {
    const char = text[index];
    if (char === '"') {
      index = skipString(text, index);
      if (depth === 0) return index;
      continue;
    }
    if (char === '{' || char === '[') depth += 1;
    else if (char === '}' || char === ']') {
      if (depth === 0) return index; // The end of a number, `true`, `false` or `null`.
      depth -= 1;
      if (depth === 0) return index + 1;
    } else if (depth === 0 && (char === ',' || isWhitespace(char))) return index;
    index += 1;
  }
  return text.length;
}

/** Returns the index after the string that starts at `start`. */
function skipString(text: string, start: number): number {
  for (let index = start + 1; index < text.length; index += 1) {
    if (text[index] === '\\') index += 1;
    else if (text[index] === '"') return index + 1;
  }
  return text.length;
}

/** Returns the index of the next member or element, or of the end of the object or array. */
function skipComma(text: string, start: number): number {
  const index = skipWhitespace(text, start);
  return text[index] === ',' ? skipWhitespace(text, index + 1) : index;
}

function skipWhitespace(text: string, start: number): number {
  let index = start;
  while (isWhitespace(text[index])) index += 1;
  return index;
}

function isWhitespace(char: string | undefined): boolean {
  return char === ' ' || char === '\n' || char === '\r' || char === '\t';
}
