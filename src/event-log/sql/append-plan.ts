import type {
  AppendConflict,
  AppendedEvents,
  AppendOutcome,
  AppendRequest,
  LoggableEvent,
  NumberedEvent,
} from '../log-store.js';
import { hashKey, type PriorAppend, type PriorAppends } from './idempotency.js';

/** Reasons not to append an event: its idempotency key was used, or its API key is revoked. */
export interface Obstacles {
  readonly priorAppends: PriorAppends;
  readonly revoked: ReadonlySet<AppendRequest>;
}

/** What a transaction writes, and its answers. */
export interface AppendPlan {
  /** The outcome of each request. */
  readonly outcomes: readonly AppendOutcome[];
  /** New events with consecutive numbers. */
  readonly added: readonly NumberedEvent[];
  /** New idempotency keys. */
  readonly keys: PriorAppends;
}

interface RequestPlan {
  readonly outcome: AppendedEvents | AppendConflict;
  readonly keys: PriorAppends;
}

/** Events that are new or repeated together. */
interface Part {
  readonly events: readonly LoggableEvent[];
  readonly keyHash: string | undefined;
  readonly bodyHash: string;
}

/** Returns the outcome of each request when new events are numbered from `firstSeq`, and what to write. */
export function planAppend(
  requests: readonly AppendRequest[],
  { priorAppends, revoked }: Obstacles,
  firstSeq: number,
): AppendPlan {
  const added: NumberedEvent[] = [];
  const keys = new Map<string, PriorAppend>();
  const findPrior = (keyHash: string) => priorAppends.get(keyHash) ?? keys.get(keyHash);
  const outcomes = requests.map((request): AppendOutcome => {
    if (revoked.has(request)) return { kind: 'revoked' };
    const { outcome, keys: ownKeys } = planRequest(request, findPrior, firstSeq + added.length);
    if (outcome.kind === 'conflict') return outcome;
    added.push(...outcome.added);
    for (const [keyHash, append] of ownKeys) keys.set(keyHash, append);
    return outcome;
  });
  return { outcomes, added, keys };
}

function planRequest(
  request: AppendRequest,
  findPrior: (keyHash: string) => PriorAppend | undefined,
  firstSeq: number,
): RequestPlan {
  const added: NumberedEvent[] = [];
  const seqs: number[] = [];
  const keys = new Map<string, PriorAppend>();
  for (const { events, keyHash, bodyHash } of getParts(request)) {
    const prior = keyHash === undefined ? undefined : (findPrior(keyHash) ?? keys.get(keyHash));
    if (prior === undefined) {
      const nextSeq = firstSeq + added.length;
      const append = { bodyHash, firstSeq: nextSeq, eventCount: events.length };
      if (keyHash !== undefined) keys.set(keyHash, append);
      for (const [index, event] of events.entries()) added.push({ seq: nextSeq + index, event });
    } else if (prior.bodyHash !== bodyHash || prior.eventCount !== events.length) {
      const event = request.idempotency === undefined ? events[0] : undefined;
      return { outcome: { kind: 'conflict', event }, keys };
    }
    const partSeq = prior?.firstSeq ?? firstSeq + added.length - events.length;
    seqs.push(...events.map((_, index) => partSeq + index));
  }
  const kind = added.length === 0 ? 'repeated' : 'appended';
  return { outcome: { kind, seqs, added }, keys };
}

function getParts({ events, idempotency, keyId }: AppendRequest): readonly Part[] {
  if (idempotency !== undefined) {
    const { key, bodyHash } = idempotency;
    return [{ events, keyHash: hashKey(keyId, key), bodyHash }];
  }
  return events.map((event) => {
    if (event.idempotency === undefined)
      return { events: [event], keyHash: undefined, bodyHash: '' };
    const { key, bodyHash } = event.idempotency;
    return { events: [event], keyHash: hashKey(keyId, key), bodyHash };
  });
}
