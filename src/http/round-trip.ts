import type { Http2Session } from 'node:http2';
import { setImmediate as nextTurn, setTimeout as wait } from 'node:timers/promises';
import { SharedCall } from '../util/shared-call.js';

const pings = new WeakMap<Http2Session, SharedCall<void>>();
const waitWithoutPingMs = 500;

/**
 * Settles after everything that the peer sent before the call has been processed: waits for the answer
 * to a PING sent after the call, and for one event-loop turn. Concurrent calls for a connection share
 * PINGs. When the PING fails, waits half a second instead. Never rejects.
 */
export function pingPeer(h2Session: Http2Session): Promise<void> {
  const ping = pings.get(h2Session) ?? new SharedCall(() => sendPing(h2Session));
  pings.set(h2Session, ping);
  return ping.run();
}

/** Settles after half a second, for connections without PING. Never rejects. */
export async function waitForPeer(): Promise<void> {
  await wait(waitWithoutPingMs, undefined, { ref: false });
}

async function sendPing(h2Session: Http2Session): Promise<void> {
  if (h2Session.destroyed) return;
  const isAnswered = await new Promise<boolean>((resolve) => {
    h2Session.ping((failure) => resolve(failure === null));
  });
  if (isAnswered)
    await nextTurn(); // A stream that the peer has reset is closed in this turn.
  else await waitForPeer();
}
