import { setTimeout as pause } from 'node:timers/promises';
import { H1Requester } from './h1-requester.js';
import { H2Client, type RequestHead } from './h2-client.js';
import { Latencies, type LatencySummary } from './latencies.js';
import { markedData, nowMicros } from './marked-events.js';
import type { Answered, Sender } from './sender.js';

export type Protocol = 'h2' | 'http/1.1';

/** Requests over HTTP/2, each connection with one at a time, as fast as the answers come. */
export interface LoopPlan {
  readonly port: number;
  readonly path: string;
  /** In turn on each connection, unless they refresh: then there is one for each. */
  readonly clients: readonly LoopClient[];
  /** Default: as many as clients. */
  readonly connections?: number;
  readonly count: number;
  /** `refresh`: the next body carries the `refreshToken` of the answer before. */
  readonly next: 'same' | 'refresh';
  /** At most so long, however many are left. */
  readonly msMax: number;
  /** Between an answer and the next request. */
  readonly pauseMs?: number;
}

export interface LoopClient {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface LoopResult {
  readonly answered: number;
  /** Answers that are errors: their body names a status. */
  readonly refused: number;
  readonly seconds: number;
  readonly latency: LatencySummary;
  /** Each client's last body: where `refresh` goes on. */
  readonly bodies: readonly string[];
  /** One of the refusals. */
  readonly example: string;
}

/** Events at a steady rate, whether or not the ones before have been answered. */
export interface PublishPlan {
  readonly port: number;
  readonly protocol: Protocol;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly perSecond: number;
  readonly count: number;
  /** Of each event's payload. */
  readonly bytes: number;
  readonly perRequest: number;
  readonly firstNumber: number;
  /** Default: everybody. */
  readonly to?: 'all' | { readonly users: readonly string[] };
}

/** One HTTP/2 connection that sends a request when it has the answer to the one before. */
export class Requester implements Sender {
  readonly #open = new Map<
    number,
    { sentAt: number; parts: string[]; done: (a: Answered) => void }
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

  send(head: RequestHead, body?: Buffer): Promise<Answered> {
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

/** Answers what came of it; a refused request counts as answered. */
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

/** Connections that stay open from one call to the next, by port: to open them is not to publish. */
const publishers = new Map<number, Promise<Sender[]>>();

/** Publishes on eight connections in turn. Answers how many were refused, once all are answered. */
export async function publish(plan: PublishPlan): Promise<{ refused: number; seconds: number }> {
  const { perSecond, count, perRequest } = plan;
  const requesters = await getPublishers(plan);
  const answers: Promise<Answered>[] = [];
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

function publishSome(requester: Sender, plan: PublishPlan, sent: number): Promise<Answered> {
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

/** An address that nobody had before, as a proxy in front would tell it. */
export function nextClientAddress(): { readonly 'x-forwarded-for': string } {
  clientCount += 1;
  const [high, middle, low] = [clientCount >> 16, (clientCount >> 8) & 255, clientCount & 255];
  return { 'x-forwarded-for': `10.${high & 255}.${middle}.${low}` };
}

const jsonType = { 'content-type': 'application/json' };
