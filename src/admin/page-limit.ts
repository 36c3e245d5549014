import { invalidField } from '../http/strict-fields.js';

const limitDefault = 100;
const limitMax = 1000;

/** Returns the number of items per page from the parameter `limit`. Throws `invalid_request` for an invalid one. */
export function parseLimit(text: string | undefined): number {
  if (text === undefined) return limitDefault;
  const limit = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (limit >= 1 && limit <= limitMax) return limit;
  throw invalidField('limit', `must be a whole number from 1 to ${limitMax}`, 'query');
}
