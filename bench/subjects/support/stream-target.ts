import type { LoadGenerator } from '../../load/load-generator.js';
import type { StreamRequest } from '../../load/stream-load.js';
import { serverCore } from '../../machine.js';
import type { Child, MeasurableServer } from '../../process/child.js';
import {
  createSettings,
  createStreamRequests,
  prepareDatabase,
  startHerald,
} from '../../process/herald.js';
import { startReference } from '../../process/reference.js';
import type { Bench } from '../../subject.js';

/** A server, the streams to open on it, and the headers with which to publish to it. */
export interface StreamTarget {
  readonly name: string;
  readonly child: MeasurableServer;
  readonly port: number;
  readonly protocol: 'h2' | 'http/1.1';
  readonly streams: readonly StreamRequest[];
  readonly headers: Readonly<Record<string, string>>;
}

/** A target that is a Node process. */
export interface NodeStreamTarget extends StreamTarget {
  readonly child: Child;
}

/** Size of each event's payload. */
export const eventBytes = 200;

/** Starts Herald on a new database with one member per stream. The bench stops it. */
export async function openHeraldTarget(
  bench: Bench,
  streamCount: number,
): Promise<NodeStreamTarget> {
  const settings = createSettings(bench.createFolder(), bench.certificate);
  const prepared = await prepareDatabase(bench.build, settings, { memberCount: streamCount });
  const child = await bench.use(startHerald(bench.build, settings));
  return {
    name: 'Herald',
    child,
    port: child.port,
    protocol: 'h2',
    streams: createStreamRequests(prepared.members),
    headers: { authorization: `Bearer ${prepared.publishKey}` },
  };
}

/** Starts the bare server (`references/bare.ts`). The bench stops it. */
export async function openBareTarget(bench: Bench, streamCount: number): Promise<NodeStreamTarget> {
  const options = { folder: bench.createFolder(), core: serverCore, env: bench.certificate };
  return createBareTarget(streamCount, await bench.use(startReference('bare.ts', options)));
}

/** Creates the target of a bare server that is already running. */
export function createBareTarget(streamCount: number, child: Child): NodeStreamTarget {
  const request = { path: '/', headers: { accept: 'text/event-stream' } };
  return {
    name: 'bare node:http2 loop',
    child,
    port: child.port,
    protocol: 'h2',
    streams: Array.from({ length: streamCount }, () => request),
    headers: {},
  };
}

export function openTargetStreams(
  load: LoadGenerator,
  { name, port, protocol, streams }: StreamTarget,
  { streamsPerConnection = 1 } = {},
): Promise<void> {
  return load.openStreams(name, { port, protocol, streams, streamsPerConnection, openingMax: 50 });
}
