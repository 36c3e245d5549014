import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { describe, test } from 'node:test';
import type { Sink } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { protocols } from './support/clients/exchange.js';
import { startHttp } from './support/servers/http-server.js';
import { getSkipReason, openRemoteHost } from './support/servers/network.js';
import { scheme, usesTls } from './support/servers/scheme.js';
import { until } from './support/until.js';

describe('a host that has vanished', { concurrency: true }, () => {
  for (const protocol of protocols) {
    test(`only the client whose host has vanished is disconnected over ${protocol}`, {
      skip: getSkipReason(),
    }, async (t) => {
      const remote = openRemoteHost(t);
      const sinks = new Map<string, Sink>();
      const stream = route('GET', '/:name', (_, { name }) => ({
        status: 200,
        headers: {},
        open: (sink: Sink) => sinks.set(name, sink),
      }));
      // `pingMs` is longer than the live client, a separate process, may stall.
      const { port, server } = await startHttp(t, [stream], { host: remote.address, pingMs: 3000 });
      const url = (name: string) => `${scheme}://${remote.address}:${port}/${name}`;
      const h2Option = usesTls ? '--http2' : '--http2-prior-knowledge';
      const curl = ['-skN', protocol === 'h2' ? h2Option : '--http1.1'];
      remote.run('curl', ...curl, url('lost'));
      const live = spawn('curl', [...curl, url('live')], { stdio: 'ignore' });
      t.after(() => live.kill());
      await until(() => sinks.size === 2);

      remote.blackhole();
      for (const sink of sinks.values()) sink.write(Buffer.from(':\n\n'));
      await until(() => sinks.get('lost')?.closed === true);

      await until(() => server.connections === 1);
      assert.equal(sinks.get('live')?.closed, false);
    });
  }
});
