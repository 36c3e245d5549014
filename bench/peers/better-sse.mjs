// better-sse as in its README, on node:http2's compatibility layer: one channel, with a session for
// each stream.
import { readFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import { createChannel, createSession } from 'better-sse';

const channel = createChannel();

const server = createSecureServer({
  cert: readFileSync(process.env.CERTIFICATE),
  key: readFileSync(process.env.PRIVATE_KEY),
});
server.on('request', async (request, response) => {
  if (request.method === 'GET') {
    const session = await createSession(request, response);
    channel.register(session);
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { data } = JSON.parse(Buffer.concat(chunks).toString());
  channel.broadcast(data);
  response.writeHead(201, { 'content-type': 'application/json' }).end('{"id":"1"}');
});
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`https://127.0.0.1:${server.address().port}\n`);
});
