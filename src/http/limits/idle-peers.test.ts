import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { checksPerTimeout, findIdlePeers } from './idle-peers.js';

const idleMs = 64_000;
const intervalMs = idleMs / checksPerTimeout;

/** Returns the time from the last activity of a peer until it is idle, if the last check ran `phaseMs` before that. */
function measureIdleTime(phaseMs: number): number {
  const peer = {
    socket: { bytesRead: 1, bytesWritten: 1 } as Socket,
    exchangeCount: 0,
    lastTotalBytes: 0,
    idleChecks: 0, // Set by the end of an exchange.
    idleToleratingCount: 0,
  };
  let nextCheckMs = intervalMs - phaseMs;
  while ([...findIdlePeers([peer])].length === 0) {
    assert.ok(nextCheckMs < 2 * idleMs, 'the peer never counts as idle');
    nextCheckMs += intervalMs;
  }
  return nextCheckMs;
}

test('a connection counts as idle at the timeout or up to an eighth later, never earlier', () => {
  for (let phaseMs = 0; phaseMs < intervalMs; phaseMs += 100) {
    const ms = measureIdleTime(phaseMs);

    assert.ok(ms >= idleMs && ms <= idleMs + intervalMs, `idle after ${ms} ms`);
  }
});

test('a received byte is activity only on a connection with an open exchange', () => {
  const socket = { bytesRead: 0, bytesWritten: 0 };
  const state = { socket: socket as Socket, lastTotalBytes: 0, idleChecks: 0 };
  const busy = { ...state, exchangeCount: 1, idleToleratingCount: 0 };
  const pinging = { ...state, exchangeCount: 0, idleToleratingCount: 0 };
  const tolerated = { ...state, socket: { ...socket } as Socket, exchangeCount: 1 };
  const peers = [busy, pinging, { ...tolerated, idleToleratingCount: 1 }];

  for (let check = 0; check <= checksPerTimeout; check += 1) {
    socket.bytesRead += 1;
    const idle = [...findIdlePeers(peers)];
    assert.deepEqual(idle, check < checksPerTimeout ? [] : [pinging]);
  }
});
