import { setTimeout as pause } from 'node:timers/promises';
import { H1Requester } from './h1-requester.js';
import { H2Client, type RequestHead } from './h2-client.js';
import { Latencies, type LatencySummary } from './latencies.js';
import { markedData, nowMicros } from './marked-events.js';
import type { Sender, TimedResponse } from './sender.js';

export type Protocol = 'h2' | 'http/1.1';

/** A closed loop of HTTP/2 requests: one at a time on each connection, without a rate limit. */
export interface LoopPlan {
  readonly port: number;
  readonly path: string;
  /** Used in turn on each connection; with `refresh`, one per connection. */
  readonly clients: readonly LoopClient[];
  /** Default: the number of clients. */
  readonly connections?: number;
  readonly count: number;
  /** `refresh`: the next body contains the `refreshToken` of the previous response. */
  readonly next: 'same' | 'refresh';
  /** Ends the loop after this time, even if requests are left. */
  readonly msMax: number;
  /** Pause between a response and the next request. */
  readonly pauseMs?: number;
}

export interface LoopClient {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface LoopResult {
  readonly answered: number;
  /** Error responses: their body contains a status. */
  readonly refused: number;
  readonly seconds: number;
  readonly latency: LatencySummary;
  /** The last body of each client, to continue `refresh` with. */
  readonly bodies: readonly string[];
  /** The body of one error response. */
  readonly example: string;
}

/** An open loop of events: a steady rate, independent of responses. */
export interface PublishPlan {
  readonly port: number;
  readonly protocol: Protocol;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly perSecond: number;
  readonly count: number;
  /** Size of each event's payload. */
  readonly bytes: number;
  readonly perRequest: number;
  readonly firstNumber: number;
  /** Default: `all`. */
  readonly to?: 'all' | { readonly users: readonly string[] };
}

/** A `Sender` over one HTTP/2 connection. */
export class Requester implements Sender {
  readonly #open = new Map<
    number,
    { sentAt: number; parts: string[]; done: (a: TimedResponse) => void }
  >();
  #client: H2Client | undefined;

  static async open(port: number): Promise<Requester> {
    const requester = new Requester();
    requester.#client = await H2Client.open(port, {
      onData: (streamId, buffer, start, end) =>
        requester.#open.get(streamId)?.parts.push(buffer.toString('latin1', start, end)),
      onEnd: (streamId) => requester.#end(streamId),
      onClose: () => {
        for (const streamId of [...requester.#open.keys()]) requester.#end(streamId);
      },
    });
    return requester;
  }

  send(head: RequestHead, body?: Buffer): Promise<TimedResponse> {
    return new Promise((done) => {
      const streamId = this.#client?.request(head, body) ?? 0;
      this.#open.set(streamId, { sentAt: nowMicros(), parts: [], done });
    });
  }

  close(): void {
    this.#client?.close();
  }

  #end(streamId: number): void {
    const open = this.#open.get(streamId);
    this.#open.delete(streamId);
    open?.done({ text: open.parts.join(''), micros: nowMicros() - open.sentAt });
  }
}

const noClient: LoopClient = { headers: {}, body: '' };

/** Runs a closed loop of requests. An error response counts as answered. */
export async function loop(plan: LoopPlan): Promise<LoopResult> {
  const { port, path, clients, count, next, msMax, pauseMs = 0 } = plan;
  const latencies = new Latencies();
  const slots = Array.from({ length: plan.connections ?? clients.length }, (_, index) => index);
  const requesters = await Promise.all(slots.map(() => Requester.open(port)));
  const tally = { answered: 0, refused: 0, example: '' };
  const startedAt = nowMicros();
  const isDone = () => tally.answered >= count || nowMicros() - startedAt > msMax * 1000;
  const run = async (requester: Requester, index: number) => {
    let clientIndex = index;
    let refreshed: string | undefined;
    while (!isDone()) {
      const { headers, body } = clients[clientIndex % clients.length] ?? noClient;
      const head = {
        method: 'POST',
        path,
        headers: { ...jsonType, ...headers, ...nextClientAddress() },
      };
      const answer = await requester.send(head, Buffer.from(refreshed ?? body));
      latencies.add(answer.micros);
      tally.answered += 1;
      if (isRefusal(answer.text)) {
        tally.refused += 1;
        tally.example = answer.text;
      } else if (next === 'refresh') {
        refreshed = JSON.stringify({ token: JSON.parse(answer.text).refreshToken });
      }
      if (next === 'same') clientIndex += requesters.length;
      if (pauseMs > 0) await pause(pauseMs);
    }
    return refreshed ?? clients[index]?.body ?? '';
  };
  const bodies = await Promise.all(requesters.map(run));
  const seconds = (nowMicros() - startedAt) / 1e6;
  for (const requester of requesters) requester.close();
  return { ...tally, seconds, latency: latencies.summary, bodies };
}

/** Connections by port, kept open between calls so that opening them is not measured. */
const publishers = new Map<number, Promise<Sender[]>>();

/** Publishes on eight connections in turn. Resolves after all responses with the refused count. */
export async function publish(plan: PublishPlan): Promise<{ refused: number; seconds: number }> {
  const { perSecond, count, perRequest } = plan;
  const requesters = await getPublishers(plan);
  const answers: Promise<TimedResponse>[] = [];
  const startedAt = nowMicros();
  for (let sent = 0; sent < count; ) {
    const due = Math.min(count, Math.floor(((nowMicros() - startedAt) / 1e6) * perSecond) + 1);
    for (; sent < due; sent += perRequest) {
      const requester = requesters[(sent / perRequest) % requesters.length];
      if (requester !== undefined) answers.push(publishSome(requester, plan, sent));
    }
    await pause(1);
  }
  const texts = await Promise.all(answers);
  const refused = texts.filter(({ text }) => isRefusal(text)).length;
  return { refused, seconds: (nowMicros() - startedAt) / 1e6 };
}

function getPublishers({ port, protocol }: PublishPlan): Promise<Sender[]> {
  const open =
    publishers.get(port) ?? Promise.all(publisherSlots.map(() => openSender(port, protocol)));
  publishers.set(port, open);
  return open;
}

function openSender(port: number, protocol: Protocol): Promise<Sender> | Sender {
  return protocol === 'h2' ? Requester.open(port) : new H1Requester(port);
}

const publisherSlots = Array.from({ length: 8 });

function publishSome(requester: Sender, plan: PublishPlan, sent: number): Promise<TimedResponse> {
  const { path, headers, bytes, perRequest, firstNumber, to = 'all' } = plan;
  const events = Array.from({ length: perRequest }, (_, index) => ({
    to,
    data: markedData(firstNumber + sent + index, bytes),
  }));
  const body = Buffer.from(JSON.stringify(perRequest === 1 ? events[0] : events));
  return requester.send({ method: 'POST', path, headers: { ...jsonType, ...headers } }, body);
}

function isRefusal(text: string): boolean {
  return text === '' || /"status":\s?[45]\d\d/.test(text);
}

let clientCount = 0;

/** Returns the header of a proxy with a client address that was not used before. */
export function nextClientAddress(): { readonly 'x-forwarded-for': string } {
  clientCount += 1;
  const [high, middle, low] = [clientCount >> 16, (clientCount >> 8) & 255, clientCount & 255];
  return { 'x-forwarded-for': `10.${high & 255}.${middle}.${low}` };
}

const jsonType = { 'content-type': 'application/json' };
