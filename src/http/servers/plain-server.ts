import { createServer as createHttp1Server } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import type { Socket } from 'node:net';
import {
  type NodeServerOptions,
  tcpOptions,
  toH2Options,
  toHttp1Timeouts,
} from './node-options.js';
import type { NodeServer, Protocol, ProtocolListener } from './node-server.js';

/** The first bytes of an HTTP/2 connection. Spec: RFC 9113 §3.4. */
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/**
 * Creates a server without TLS, for HTTP/1.1 and for HTTP/2 with prior knowledge (RFC 9113 §3.3), which the
 * client begins with the preface. A client that does not send its first bytes within `handshakeMs` gets 408.
 *
 * The HTTP/1.1 server is the one that listens, because Node checks `headersTimeout` only on a listening server.
 */
export function createPlainServer(options: NodeServerOptions): NodeServer {
  const { limits } = options;
  const http1 = createHttp1Server({
    ...tcpOptions,
    ...toHttp1Timeouts(limits),
    maxHeaderSize: limits.headerListBytesMax,
    requireHostHeader: false, // Herald itself answers a request without Host.
  });
  http1.maxConnections = limits.connectionsMax;
  const http2 = createHttp2Server(toH2Options(options));
  const http1Listeners = http1.listeners('connection');
  http1.removeAllListeners('connection');
  let onProtocol: ProtocolListener = () => {};
  http1.on('connection', (socket: Socket) => {
    detectProtocol(socket, limits.handshakeMs, (protocol) => {
      onProtocol(socket, protocol ?? 'http/1.1');
      if (socket.destroyed) return;
      if (protocol === 'h2') {
        socket.allowHalfOpen = false; // As on an HTTP/2 server that listens itself.
        http2.emit('connection', socket); // Also reads the bytes that were put back.
        return;
      }
      if (protocol === undefined) http1.emit('clientError', createTimeoutError(), socket);
      else for (const listener of http1Listeners) listener.call(http1, socket);
      socket.resume();
    });
  });
  return {
    ...{ tcp: http1, http1, http2 },
    onProtocol(listener) {
      onProtocol = listener;
    },
  };
}

/**
 * Reads the first bytes of a connection, puts them back, and calls `onDetected` with the protocol, or with
 * undefined at the deadline. Destroys a connection that the client ends earlier.
 */
function detectProtocol(
  socket: Socket,
  deadlineMs: number,
  onDetected: (protocol: Protocol | undefined) => void,
): void {
  let received = Buffer.alloc(0);
  const settle = (protocol?: Protocol) => {
    stop();
    socket.pause(); // Nothing is lost before the next listener is attached.
    if (received.length > 0) socket.unshift(received);
    onDetected(protocol);
  };
  const read = (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    const length = Math.min(received.length, preface.length);
    if (!received.subarray(0, length).equals(preface.subarray(0, length))) settle('http/1.1');
    else if (length === preface.length) settle('h2');
  };
  const end = () => socket.destroy();
  const deadline = setTimeout(() => settle(), deadlineMs).unref();
  const stop = () => {
    clearTimeout(deadline);
    socket.off('data', read).off('end', end).off('close', stop);
  };
  socket.on('data', read).on('end', end).on('close', stop);
}

/** The error that Node emits for a request whose headers do not arrive in time. */
function createTimeoutError(): Error {
  const message = 'Cannot read request: no data received in time';
  return Object.assign(new Error(message), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
}
