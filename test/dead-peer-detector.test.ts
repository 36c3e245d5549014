import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import type { Sink } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { protocols } from './support/clients/exchange.js';
import { startHttp } from './support/servers/http-server.js';
import { getSkipReason, openRemoteHost } from './support/servers/network.js';
import { until } from './support/until.js';

for (const protocol of protocols) {
  test(`a client whose host has vanished is found, and no other is cut off, over ${protocol}`, {
    skip: getSkipReason(),
  }, async (t) => {
    const far = openRemoteHost(t);
    const sinks = new Map<string, Sink>();
    const stream = route('GET', '/:who', (_, { who }) => ({
      status: 200,
      headers: {},
      open: (sink: Sink) => sinks.set(who, sink),
    }));
    // As long as the client that is there may stand still, though it is a process of its own.
    const { port, server } = await startHttp(t, [stream], { host: far.address, pingMs: 3000 });
    const url = (who: string) => `https://${far.address}:${port}/${who}`;
    const curl = ['-skN', protocol === 'h2' ? '--http2' : '--http1.1'];
    far.run('curl', ...curl, url('lost'));
    const there = spawn('curl', [...curl, url('there')], { stdio: 'ignore' });
    t.after(() => there.kill());
    await until(() => sinks.size === 2);

    far.blackhole();
    for (const sink of sinks.values()) sink.write(Buffer.from(':\n\n'));
    await until(() => sinks.get('lost')?.closed === true);

    await until(() => server.connections === 1);
    assert.equal(sinks.get('there')?.closed, false);
  });
}
