import type { Content, Json, MediaType } from './document.js';
import type { Schemas } from './schemas.js';

/** Returns how a body differs from the media types of the document; an empty array if it matches. */
export function checkContent(
  schemas: Schemas,
  content: Content,
  type: unknown,
  body: string | undefined,
): string[] {
  const essence = getEssence(type);
  const media = content[essence] ?? content['*/*'];
  if (media === undefined) return [`content-type ${type} is not documented`];
  return body === undefined ? [] : checkBody(schemas, media, essence, body);
}

function checkBody(schemas: Schemas, media: MediaType, essence: string, body: string): string[] {
  const { schema = {}, 'x-item-schema': itemSchema } = media;
  if (itemSchema !== undefined) {
    const lines = body.split('\n').filter((line) => line.trim() !== '');
    return lines.flatMap((line) => checkJson(schemas, itemSchema, line));
  }
  if (essence.endsWith('json')) return checkJson(schemas, schema, body);
  const isForm = essence === 'application/x-www-form-urlencoded';
  const value = isForm ? Object.fromEntries(new URLSearchParams(body)) : body;
  return schemas.findProblems(schema, value);
}

/** Returns how a text differs from JSON that matches the schema; an empty array if it matches. */
export function checkJson(schemas: Schemas, schema: Json, text: string): string[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return ['the body is not JSON'];
  }
  return schemas.findProblems(schema, value);
}

/** Returns a media type without its parameters. */
function getEssence(type: unknown): string {
  return (String(type ?? '').split(';', 1)[0] ?? '').trim().toLowerCase();
}
