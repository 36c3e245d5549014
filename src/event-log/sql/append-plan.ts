import type {
  AppendConflict,
  AppendedEvents,
  AppendOutcome,
  AppendRequest,
  KeyRefusal,
  LoggableEvent,
  NumberedEvent,
} from '../log-store.js';
import { hashIdempotencyKey, type PriorAppend, type PriorAppends } from './idempotency.js';

/** Reasons not to append an event: its idempotency key was used, or its API key is refused. */
export interface Obstacles {
  readonly priorAppends: PriorAppends;
  readonly refusals: ReadonlyMap<AppendRequest, KeyRefusal>;
}

/** The rows that a transaction writes, and the outcome of each request. */
export interface AppendPlan {
  /** One per request, in the same order. */
  readonly outcomes: readonly AppendOutcome[];
  /** The new events of all requests, with consecutive sequence numbers. */
  readonly added: readonly NumberedEvent[];
  /** The new idempotency keys of all requests, by their hash. */
  readonly keys: PriorAppends;
}

interface RequestPlan {
  readonly outcome: AppendedEvents | AppendConflict;
  readonly keys: PriorAppends;
}

/** All events under one idempotency key, or one event without a key. Either all of them are new, or none is. */
interface EventGroup {
  readonly events: readonly LoggableEvent[];
  readonly keyHash: string | undefined;
  readonly bodyHash: string;
}

/** Plans an append that numbers new events from `firstSeq` on. */
export function planAppend(
  requests: readonly AppendRequest[],
  { priorAppends, refusals }: Obstacles,
  firstSeq: number,
): AppendPlan {
  const added: NumberedEvent[] = [];
  const keys = new Map<string, PriorAppend>();
  const findPrior = (keyHash: string) => priorAppends.get(keyHash) ?? keys.get(keyHash);
  const outcomes = requests.map((request): AppendOutcome => {
    const refusal = refusals.get(request);
    if (refusal !== undefined) return { kind: refusal };
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
  for (const { events, keyHash, bodyHash } of toEventGroups(request)) {
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
    const groupSeq = prior?.firstSeq ?? firstSeq + added.length - events.length;
    seqs.push(...events.map((_, index) => groupSeq + index));
  }
  const kind = added.length === 0 ? 'repeated' : 'appended';
  return { outcome: { kind, seqs, added }, keys };
}

function toEventGroups({ events, idempotency, publisher }: AppendRequest): readonly EventGroup[] {
  if (idempotency !== undefined) {
    const { key, bodyHash } = idempotency;
    return [{ events, keyHash: hashIdempotencyKey(publisher?.keyId, key), bodyHash }];
  }
  return events.map((event) => {
    if (event.idempotency === undefined)
      return { events: [event], keyHash: undefined, bodyHash: '' };
    const { key, bodyHash } = event.idempotency;
    return { events: [event], keyHash: hashIdempotencyKey(publisher?.keyId, key), bodyHash };
  });
}
