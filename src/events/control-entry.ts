/**
 * A change of who may receive or publish, as an entry of the event log: it has a number like an event,
 * every process applies it in its place, and no client sees it.
 */
export type ControlEntry =
  /** The streams of these sessions end. */
  | { readonly kind: 'sessions_ended'; readonly sessionIds: readonly string[] }
  /** Has no effect of its own: its number separates what the key published from what is refused. */
  | { readonly kind: 'key_revoked'; readonly keyId: string };

/** Keeps an entry well below 64 KiB, the size of the smallest column that stores it. */
const sessionsPerEntryMax = 500;

/** The entries that end the streams of these sessions: several when there are many. */
export function sessionsEnded(sessionIds: readonly string[]): ControlEntry[] {
  const entries: ControlEntry[] = [];
  for (let start = 0; start < sessionIds.length; start += sessionsPerEntryMax) {
    const batch = sessionIds.slice(start, start + sessionsPerEntryMax);
    entries.push({ kind: 'sessions_ended', sessionIds: batch });
  }
  return entries;
}

export function formatControlEntry(entry: ControlEntry): string {
  return JSON.stringify(entry);
}

/** Undefined for an entry of a kind that this version does not know: a newer process wrote it. */
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
