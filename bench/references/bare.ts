// A reference for the lower bound, the cost of `node:http2` itself. A `GET` opens a stream; the `data` of
// a `POST` is encoded once as an event and written to each stream. There are no routes, users, event
// log, limits or error handling.
import { readFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';

const streams = new Set<ServerHttp2Stream>();
let lastId = 0;

const server = createSecureServer({
  cert: readFileSync(process.env['CERTIFICATE'] ?? ''),
  key: readFileSync(process.env['PRIVATE_KEY'] ?? ''),
});

server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] === 'POST') return publishEvent(stream);
  stream.respond({ ':status': 200, 'content-type': 'text/event-stream; charset=utf-8' });
  stream.write('retry: 2000\n\n');
  stream.resume();
  streams.add(stream);
  stream.once('close', () => streams.delete(stream));
});

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`https://127.0.0.1:${port}\n`);
});

function publishEvent(request: ServerHttp2Stream): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.once('end', () => {
    const event = JSON.parse(Buffer.concat(chunks).toString()) as { data: string };
    lastId += 1;
    // About as long as Herald's frame of the event, whose id is `<epoch>-<seq>`.
    const bytes = Buffer.from(`id: 0123456789-${lastId}\ndata: ${event.data}\n\n`);
    for (const stream of streams) stream.write(bytes);
    request.respond({ ':status': 201, 'content-type': 'application/json' });
    request.end(`{"id":"${lastId}"}`);
  });
}
