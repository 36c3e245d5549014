import { createHash } from 'node:crypto';

/**
 * Returns the id of a session of a user without an account: 32 hex digits. It depends on the user, so the same
 * label of two users means two sessions.
 */
export function getForeignSessionId(userId: string, label: string): string {
  const text = JSON.stringify(['session', userId, label]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
