import { type HttpLimits, headerLinesMax } from '../limits/limits.js';

/** Options of an accepted TCP connection. */
export const tcpOptions = {
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 15_000,
} as const;

/**
 * Returns the options of HTTP/2 with all limits that Node enforces, set explicitly because defaults differ
 * by version.
 */
export function toH2Options(limits: HttpLimits) {
  return {
    settings: {
      maxConcurrentStreams: limits.streamsPerH2SessionMax,
      maxHeaderListSize: limits.headerListBytesMax,
      initialWindowSize: 65_535,
      enablePush: false,
    },
    maxSessionMemory: 10,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 50,
    streamResetBurst: 200, // Against rapid reset. Both settings are needed; Node 20 has neither.
    streamResetRate: 20,
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
    requestTimeout: 0, // Bodies have limits of their own.
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(limits.headersMs, 5000),
  };
}
