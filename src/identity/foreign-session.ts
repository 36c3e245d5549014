import { createHash } from 'node:crypto';

/**
 * Returns the id of a session of a user without an account: 32 hex digits. The id depends on the user and the
 * label, so two users with the same label have two sessions.
 */
export function getForeignSessionId(userId: string, label: string): string {
  const text = JSON.stringify(['session', userId, label]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
