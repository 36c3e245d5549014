// Fastify with its plugin for Server-Sent Events, over http/1.1: on http2 the plugin sets headers that
// do not belong there.
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
const open = new Set();
let number = 0;

app.get('/stream', { sse: true }, async (_request, reply) => {
  reply.sse.keepAlive();
  open.add(reply.sse);
  reply.sse.onClose(() => open.delete(reply.sse));
  await reply.sse.send({ event: 'open', data: 'hello' });
});
app.post('/events', async (request, reply) => {
  number += 1;
  const message = { id: String(number), data: request.body.data };
  for (const each of open) void each.send(message).catch(() => {});
  reply.code(201);
  return { id: message.id };
});
await app.listen({ port: 0, host: '127.0.0.1' });
process.stdout.write(`https://127.0.0.1:${app.server.address().port}\n`);
