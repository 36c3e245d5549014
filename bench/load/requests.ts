import { setTimeout as pause } from 'node:timers/promises';
import { H1Requester } from './h1-requester.js';
import { H2Requester } from './h2-requester.js';
import { Latencies, type LatencySummary } from './latencies.js';
import { createMarkedData, nowMicros } from './marked-events.js';
import type { Requester, TimedResponse } from './requester.js';

export type Protocol = 'h2' | 'http/1.1';

/**
 * A closed loop of HTTP/2 requests: one at a time on each connection, without a pause by default.
 */
export interface LoopPlan {
  readonly port: number;
  readonly path: string;
  /**
   * With n connections, connection i sends for the clients i, i + n, i + 2n and so on, modulo the number
   * of clients. With `refresh`, connection i sends only for client i.
   */
  readonly clients: readonly LoopClient[];
  /** Default: the number of clients. */
  readonly connectionCount?: number;
  /** Ends the loop after this number of responses; open requests may add a few. */
  readonly responseCountMax: number;
  /** With `refresh`, the next body contains the `refreshToken` of the previous response. */
  readonly nextBody: 'same' | 'refresh';
  /** Ends the loop after this time, even with fewer responses than `responseCountMax`. */
  readonly durationMsMax: number;
  /** Pause between a response and the next request. */
  readonly pauseMs?: number;
}

export interface LoopClient {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface LoopResult {
  readonly responseCount: number;
  /**
   * Number of responses that are empty (stream reset or connection closed) or whose body contains an
   * error status. The load does not decode response headers.
   */
  readonly refusedCount: number;
  readonly seconds: number;
  readonly latency: LatencySummary;
  /**
   * With `refresh`: the body that each connection would have sent next, for the start of another loop.
   */
  readonly nextBodies: readonly string[];
  /** The body of the last refused response; empty if no request was refused. */
  readonly errorExample: string;
}

/** An open loop of events: a steady rate, independent of responses. */
export interface PublishPlan {
  readonly port: number;
  readonly protocol: Protocol;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Events per second. */
  readonly perSecond: number;
  /** Number of events. */
  readonly count: number;
  /** Size of each event's payload. */
  readonly bytes: number;
  /** Events per request. */
  readonly perRequest: number;
  /** Number of the first benchmark event; the next events have the next numbers. */
  readonly firstNumber: number;
  /** Default: `all`. */
  readonly to?: 'all' | { readonly users: readonly string[] };
}

const noClient: LoopClient = { headers: {}, body: '' };

/** Runs a closed loop of requests. Error responses are included in `responseCount`. */
export async function runLoop(plan: LoopPlan): Promise<LoopResult> {
  const { port, path, clients, responseCountMax, nextBody, durationMsMax, pauseMs = 0 } = plan;
  const latencies = new Latencies();
  const connectionIndexes = Array.from(
    { length: plan.connectionCount ?? clients.length },
    (_, index) => index,
  );
  const requesters = await Promise.all(connectionIndexes.map(() => H2Requester.open(port)));
  const tally = { responseCount: 0, refusedCount: 0, errorExample: '' };
  const startedAt = nowMicros();
  const isDone = () =>
    tally.responseCount >= responseCountMax || nowMicros() - startedAt > durationMsMax * 1000;
  const sendInLoop = async (requester: H2Requester, index: number) => {
    let clientIndex = index;
    let refreshed: string | undefined;
    while (!isDone()) {
      const { headers, body } = clients[clientIndex % clients.length] ?? noClient;
      const head = {
        method: 'POST',
        path,
        headers: { ...jsonType, ...headers, ...unusedAddressHeader() },
      };
      const response = await requester.send(head, Buffer.from(refreshed ?? body));
      latencies.add(response.durationMicros);
      tally.responseCount += 1;
      if (isRefusal(response.text)) {
        tally.refusedCount += 1;
        tally.errorExample = response.text;
      } else if (nextBody === 'refresh') {
        refreshed = JSON.stringify({ token: JSON.parse(response.text).refreshToken });
      }
      if (nextBody === 'same') clientIndex += requesters.length;
      if (pauseMs > 0) await pause(pauseMs);
    }
    return refreshed ?? clients[index]?.body ?? '';
  };
  const nextBodies = await Promise.all(requesters.map(sendInLoop));
  const seconds = (nowMicros() - startedAt) / 1e6;
  for (const requester of requesters) requester.close();
  return { ...tally, seconds, latency: latencies.summary, nextBodies };
}

/** Number of publishing connections per port. */
const publisherCount = 8;

/** Connections by port. They stay open between calls, so that opening them is not measured. */
const publishers = new Map<number, Promise<Requester[]>>();

/** Publishes on `publisherCount` connections in turn. Resolves after the last response. */
export async function publish(
  plan: PublishPlan,
): Promise<{ refusedCount: number; seconds: number }> {
  const { perSecond, count, perRequest } = plan;
  const requesters = await getPublishers(plan);
  const responses: Promise<TimedResponse>[] = [];
  const startedAt = nowMicros();
  for (let sentCount = 0; sentCount < count; ) {
    const dueCount = Math.min(count, Math.floor(((nowMicros() - startedAt) / 1e6) * perSecond) + 1);
    for (; sentCount < dueCount; sentCount += perRequest) {
      const requester = requesters[(sentCount / perRequest) % requesters.length];
      if (requester !== undefined) responses.push(publishEvents(requester, plan, sentCount));
    }
    await pause(1);
  }
  const texts = await Promise.all(responses);
  const refusedCount = texts.filter(({ text }) => isRefusal(text)).length;
  return { refusedCount, seconds: (nowMicros() - startedAt) / 1e6 };
}

function getPublishers({ port, protocol }: PublishPlan): Promise<Requester[]> {
  const open =
    publishers.get(port) ??
    Promise.all(Array.from({ length: publisherCount }, () => openRequester(port, protocol)));
  publishers.set(port, open);
  return open;
}

function openRequester(port: number, protocol: Protocol): Promise<Requester> | Requester {
  return protocol === 'h2' ? H2Requester.open(port) : new H1Requester(port);
}

function publishEvents(
  requester: Requester,
  plan: PublishPlan,
  sentCount: number,
): Promise<TimedResponse> {
  const { path, headers, bytes, perRequest, firstNumber, to = 'all' } = plan;
  const events = Array.from({ length: perRequest }, (_, index) => ({
    to,
    data: createMarkedData(firstNumber + sentCount + index, bytes),
  }));
  const body = Buffer.from(JSON.stringify(perRequest === 1 ? events[0] : events));
  return requester.send({ method: 'POST', path, headers: { ...jsonType, ...headers } }, body);
}

function isRefusal(text: string): boolean {
  return text === '' || /"status":\s?[45]\d\d/.test(text);
}

let addressCount = 0;

/**
 * Returns an `x-forwarded-for` header with a new address for each request (2^24 in all), because Herald
 * queues at most 8 password hashes per address and no setting changes this maximum.
 */
export function unusedAddressHeader(): { readonly 'x-forwarded-for': string } {
  addressCount += 1;
  const [high, middle, low] = [addressCount >> 16, (addressCount >> 8) & 255, addressCount & 255];
  return { 'x-forwarded-for': `10.${high & 255}.${middle}.${low}` };
}

const jsonType = { 'content-type': 'application/json' };
