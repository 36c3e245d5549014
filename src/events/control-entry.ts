/**
 * An entry of the event log that revokes the right to receive or to publish. It has a sequence number
 * like an event, every process applies it in sequence order, and no client receives it.
 */
export type ControlEntry =
  /** The streams of these sessions end. */
  | { readonly kind: 'sessions_ended'; readonly sessionIds: readonly string[] }
  /**
   * Marks the revocation of an API key. Processes need not apply it: events of the key have lower
   * numbers, and later ones are rejected when they are appended.
   */
  | { readonly kind: 'key_revoked'; readonly keyId: string };

/** Keeps an entry well below 64 KiB, the size of the smallest column that stores it. */
const sessionsPerEntryMax = 500;

/** Returns the entries that end the streams of these sessions: one per 500 sessions. */
export function sessionsEnded(sessionIds: readonly string[]): ControlEntry[] {
  const entries: ControlEntry[] = [];
  for (let start = 0; start < sessionIds.length; start += sessionsPerEntryMax) {
    const batch = sessionIds.slice(start, start + sessionsPerEntryMax);
    entries.push({ kind: 'sessions_ended', sessionIds: batch });
  }
  return entries;
}

/** Returns the text of an entry, to be stored. */
export function formatControlEntry(entry: ControlEntry): string {
  return JSON.stringify(entry);
}

/** Parses a stored entry. Returns undefined for an unknown kind, which a newer version wrote. */
export function parseControlEntry(text: string): ControlEntry | undefined {
  const { kind, ...fields } = JSON.parse(text) as Record<string, unknown>;
  if (kind === 'sessions_ended' && isTextArray(fields['sessionIds']))
    return { kind, sessionIds: fields['sessionIds'] };
  if (kind === 'key_revoked' && typeof fields['keyId'] === 'string')
    return { kind, keyId: fields['keyId'] };
  return undefined;
}

function isTextArray(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
