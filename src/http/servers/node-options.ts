import { abortRate, type HttpLimits, headerLinesMax } from '../limits/limits.js';
import { sliceBytes } from '../stream-sink.js';

/** Options of an accepted TCP connection. */
export const tcpOptions = {
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 15_000,
} as const;

export interface NodeServerOptions {
  readonly limits: HttpLimits;
  /** Number of trusted proxies in front. Above 0, a connection carries the requests of many clients. */
  readonly trustProxyHops: number;
}

/** Effectively no limit. Node stores these limits in 32 bits. */
const unlimited = 1_000_000_000;

/**
 * Limits of protocol violations and stream resets on the connection of a client. Node counts invalid frames and
 * rejected streams over the whole life of a connection, or until a stream is accepted. On the connection of a
 * proxy, one client over these limits would end the streams of all clients, so `AbortLimiter` replaces them there.
 */
const clientLimits = {
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 50,
  // Against rapid reset. Both settings are needed; Node 20 has neither.
  streamResetBurst: abortRate.count,
  streamResetRate: (abortRate.count / abortRate.perMs) * 1000,
};

const proxyLimits: typeof clientLimits = {
  maxSessionInvalidFrames: unlimited,
  maxSessionRejectedStreams: unlimited,
  streamResetBurst: unlimited,
  streamResetRate: unlimited,
};

/**
 * Returns the options of HTTP/2 with all limits that Node enforces, set explicitly because defaults differ
 * by version.
 */
export function toH2Options({ limits, trustProxyHops }: NodeServerOptions) {
  return {
    ...(trustProxyHops > 0 ? proxyLimits : clientLimits),
    settings: {
      maxConcurrentStreams: limits.streamsPerH2SessionMax,
      maxHeaderListSize: limits.headerListBytesMax,
      initialWindowSize: 65_535,
      enablePush: false,
    },
    maxSessionMemory: getSessionMegabytes(limits),
    maxSettings: 32,
    maxHeaderListPairs: headerLinesMax,
    maxOutstandingPings: 10,
    unknownProtocolTimeout: 5000,
  };
}

/** Returns the time limits of HTTP/1.1 that Node enforces. */
export function toHttp1Timeouts(limits: HttpLimits) {
  return {
    headersTimeout: limits.headersMs,
    requestTimeout: 0, // Herald itself limits the time for a body.
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(limits.headersMs, 5000),
  };
}

/**
 * Returns the memory limit of an HTTP/2 session, in megabytes: enough for all streams of a client that reads
 * nothing. Over the limit, Node refuses further streams.
 */
function getSessionMegabytes({ streamsPerH2SessionMax, headerListBytesMax }: HttpLimits): number {
  const bytesPerStream = sliceBytes + headerListBytesMax;
  return Math.max(10, Math.ceil((streamsPerH2SessionMax * bytesPerStream) / 1_000_000));
}
