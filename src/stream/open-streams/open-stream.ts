import type { EventStream } from '../event-stream.js';

/** The entries and bytes that the client of a stream has yet to receive. */
export interface Backlog {
  /** Number of entries of the event log that the stream has yet to read; 0 for a live stream. */
  readonly eventsBehind: number;
  /** Number of bytes that the client has not accepted yet. */
  readonly unsentBytes: number;
}

/** An open stream as operators see it. */
export interface OpenStream extends Backlog {
  /** 32 hex digits. Each reconnect has a new id. Log lines contain the id as `streamId`. */
  readonly id: string;
  /** Identifies the stream to its client, as in `stream.open`. */
  readonly stream: string;
  readonly user: string;
  readonly session: string;
  /** Id of the process that serves the stream. */
  readonly process: string;
  /** Epoch ms. */
  readonly openedAt: number;
  /** IP address of the client. */
  readonly address: string;
  readonly userAgent: string | undefined;
}

/** Selects a page of open streams in the order of their ids. */
export interface OpenStreamQuery {
  /** Only the streams of this user; undefined for the streams of every user. */
  readonly user: string | undefined;
  /** Only the streams of users whose ids begin with this text. */
  readonly userPrefix: string;
  /** Only the streams whose ids follow this id; `''` for the first page. */
  readonly after: string;
  /** Maximum number of streams. */
  readonly limit: number;
}

/** Returns a page of the open streams of every process. */
export type ListOpenStreams = (query: OpenStreamQuery) => Promise<readonly OpenStream[]>;

/** Returns the current backlog of a stream. */
export function toBacklog({ eventsBehind, unsentBytes }: EventStream): Backlog {
  return { eventsBehind, unsentBytes };
}

/** Describes a stream of this process. */
export function toOpenStream(stream: EventStream, process: string): OpenStream {
  const { id, publicId, subscriber, client, openedAt } = stream;
  const { userId: user, sessionId: session } = subscriber;
  const { address, userAgent } = client;
  const ids = { id, stream: publicId, user, session, process };
  return { ...ids, openedAt, address, userAgent, ...toBacklog(stream) };
}

/** Returns a page of the streams of this process. */
export function selectOpenStreams(
  streams: Iterable<EventStream>,
  process: string,
  { user, userPrefix, after, limit }: OpenStreamQuery,
): readonly OpenStream[] {
  const matching: EventStream[] = [];
  for (const stream of streams) {
    const { userId } = stream.subscriber;
    const isOfUser = user === undefined || userId === user;
    if (isOfUser && userId.startsWith(userPrefix) && stream.id > after) matching.push(stream);
  }
  matching.sort((a, b) => (a.id < b.id ? -1 : 1));
  return matching.slice(0, limit).map((stream) => toOpenStream(stream, process));
}
