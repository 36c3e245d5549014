import { constants } from 'node:crypto';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import {
  type NodeServerOptions,
  tcpOptions,
  toH2Options,
  toHttp1Timeouts,
} from './node-options.js';
import type { NodeServer, ProtocolListener } from './node-server.js';

/** A private key and a certificate chain, in PEM. */
export interface Certificate {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
}

export interface TlsServer extends NodeServer {
  /**
   * Sets the certificate of new connections. Throws, and keeps the old one, if the key does not match.
   */
  setCertificate(certificate: Certificate): void;
}

/**
 * Options for TLS 1.3, and for TLS 1.2 as far as RFC 9113 §9.2 permits it for HTTP/2: only suites with forward
 * secrecy and authenticated encryption, and no renegotiation.
 */
const tlsOptions = {
  minVersion: 'TLSv1.2',
  ciphers: [
    'TLS_AES_256_GCM_SHA384',
    'TLS_CHACHA20_POLY1305_SHA256',
    'TLS_AES_128_GCM_SHA256',
    'ECDHE-ECDSA-AES128-GCM-SHA256',
    'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-RSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-CHACHA20-POLY1305',
    'ECDHE-RSA-CHACHA20-POLY1305',
  ].join(':'),
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
} as const;

/** Creates a server that negotiates HTTP/2 or HTTP/1.1 by ALPN. */
export function createTlsServer({ key, cert }: Certificate, options: NodeServerOptions): TlsServer {
  const { limits } = options;
  const server = createSecureServer({
    ...tlsOptions,
    ...tcpOptions,
    ...toH2Options(options),
    key,
    cert,
    ALPNCallback: chooseProtocol,
    allowHTTP1: true,
    handshakeTimeout: limits.handshakeMs,
    maxHeaderSize: limits.headerListBytesMax,
  } as Parameters<typeof createSecureServer>[0]); // The types lag behind the options.
  server.maxConnections = limits.connectionsMax;
  // For HTTP/1.1, an HTTP/2 server reads these only from properties, and only before `listen`.
  Object.assign(server, { ...toHttp1Timeouts(limits), maxRequestsPerSocket: 0 });
  return {
    ...{ tcp: server, http1: server, http2: server },
    onProtocol: (listener) => onSecureConnection(server, listener),
    setCertificate: (certificate) => server.setSecureContext({ ...tlsOptions, ...certificate }),
  };
}

function onSecureConnection(server: Http2SecureServer, listener: ProtocolListener): void {
  // Before Node's own listener, which may already emit a request.
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    // Node would begin HTTP/2 for any other protocol.
    if (socket.alpnProtocol === 'http/1.0') socket.alpnProtocol = 'http/1.1';
    listener(socket, socket.alpnProtocol === 'h2' ? 'h2' : 'http/1.1');
  });
}

/**
 * Selects HTTP/2 if the client offers it, else HTTP/1.1 or HTTP/1.0. A client that offers none of them is
 * refused by TLS. Must not throw.
 *
 * This is a function because Node copies an `ALPNProtocols` list per connection, and each copy retains an
 * 8 KiB slab of the Buffer pool.
 */
function chooseProtocol({ protocols }: { protocols: readonly string[] }): string | undefined {
  return ['h2', 'http/1.1', 'http/1.0'].find((protocol) => protocols.includes(protocol));
}
