// Fastify with its plugin for Server-Sent Events, over HTTP/1.1, because the plugin sets headers that
// HTTP/2 forbids.
import { readFileSync } from 'node:fs';
import sse from '@fastify/sse';
import fastify from 'fastify';

const app = fastify({
  https: {
    cert: readFileSync(process.env.CERTIFICATE),
    key: readFileSync(process.env.PRIVATE_KEY),
  },
});
await app.register(sse);
const streams = new Set();
let lastId = 0;

app.get('/stream', { sse: true }, async (_request, reply) => {
  reply.sse.keepAlive();
  streams.add(reply.sse);
  reply.sse.onClose(() => streams.delete(reply.sse));
  await reply.sse.send({ event: 'open', data: 'hello' });
});
app.post('/events', async (request, reply) => {
  lastId += 1;
  const message = { id: String(lastId), data: request.body.data };
  for (const stream of streams) void stream.send(message).catch(() => {});
  reply.code(201);
  return { id: message.id };
});
await app.listen({ port: 0, host: '127.0.0.1' });
process.stdout.write(`https://127.0.0.1:${app.server.address().port}\n`);
