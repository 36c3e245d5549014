import { Failure } from '../errors.js';
import type { Logger } from '../logging/logger.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { AnsweredRequest } from '../metrics.js';
import { BodyBudget } from './body/body-budget.js';
import { type ExchangeOptions, TransportExchange } from './exchange.js';
import { preflightHeaders, StandardHeaders } from './headers.js';
import { AbortLimiter } from './limits/abort-limiter.js';
import { bodiesBytesMax, type HttpLimits } from './limits/limits.js';
import { internalFailure, toProblemReply } from './problem.js';
import { isCrossOrigin, warnAboutOrigin } from './refused-origins.js';
import { type CompleteReply, empty, type Headers, type Reply } from './reply.js';
import { refuseLargeHeaders, refuseMalformed, refuseUnknownMethod } from './request-checks.js';
import { methods, type Route, Router } from './router.js';
import type { Transport } from './transport.js';

export interface RequestDispatcherOptions {
  readonly routes: readonly Route[];
  readonly limits: HttpLimits;
  readonly corsOrigins: readonly string[];
  /** Whether responses have `Strict-Transport-Security`. */
  readonly isHstsEnabled: boolean;
  /** Number of trusted proxies in front, each of which appends to X-Forwarded-For. */
  readonly trustProxyHops: number;
  /** The default `WWW-Authenticate` of a 401. */
  readonly challenge: string;
  readonly log: Logger;
  /** Aggregates warnings about 5xx refusals (overload, database unavailable) and X-Forwarded-For. */
  readonly warnings: WarningAggregator;
  /** Called once per request: after its response, or with status 499. Must not throw. */
  readonly onAnswered?: (answered: AnsweredRequest) => void;
  readonly monotonicClock?: () => number;
}

/** A request that has not been answered yet. */
interface PendingRequest {
  readonly transport: Transport;
  readonly exchange: TransportExchange;
  /** The origin whose pages may read the response. */
  readonly readerOrigin: string | undefined;
  /** The route pattern, for the log: a path may contain a token. */
  readonly route: string;
  /** May throw or reject: the reply is then a problem document. */
  readonly handle: () => Reply | Promise<Reply>;
}

/** Status in logs and metrics when the client disconnected before the response, as in nginx. */
const clientClosedRequest = 499;

/** Routes a request to its handler and writes the reply or the problem document. */
export class RequestDispatcher {
  readonly #options: RequestDispatcherOptions;
  readonly #router: Router;
  readonly #standardHeaders: StandardHeaders;
  readonly #monotonicClock: () => number;
  readonly #exchangeOptions: ExchangeOptions;
  /** Undefined without proxies. */
  readonly #abortLimiter: AbortLimiter | undefined;

  constructor(options: RequestDispatcherOptions) {
    this.#options = options;
    this.#router = new Router(options.routes);
    const { corsOrigins: origins, isHstsEnabled } = options;
    this.#standardHeaders = new StandardHeaders({ origins, isHstsEnabled });
    this.#monotonicClock = options.monotonicClock ?? (() => performance.now());
    const { bodyBytesMax: bytesMax, jsonDepthMax: depthMax, bodyMs: deadlineMs } = options.limits;
    const { trustProxyHops } = options;
    const budget = new BodyBudget(bodiesBytesMax, { bytesPerIpMax: bodiesBytesMax / 8 });
    this.#exchangeOptions = { limits: { bytesMax, depthMax, deadlineMs, budget }, trustProxyHops };
    if (trustProxyHops > 0) this.#abortLimiter = new AbortLimiter(this.#monotonicClock);
  }

  /** Answers a request and logs it. Never rejects. */
  async dispatch(transport: Transport): Promise<void> {
    const startedAt = this.#monotonicClock();
    try {
      const request = this.#prepare(transport);
      const status = this.#send(request, await this.#runHandler(request));
      const { exchange, route } = request;
      const { id: requestId, method, protocol } = exchange;
      const { clientAddress } = exchange;
      if (status === clientClosedRequest) this.#abortLimiter?.countAborted(clientAddress);
      const ms = Math.round(this.#monotonicClock() - startedAt);
      const fields = {
        requestId,
        method: toPrintableMethod(method),
        route,
        status,
        ms,
        protocol,
        ip: clientAddress.ip,
      };
      this.#options.log.info(fields, 'request');
      this.#options.onAnswered?.(fields);
      this.#warnAboutForwardedFor(exchange);
    } catch (cause) {
      this.#options.log.error({ cause }, 'request handling failed');
      transport.destroy();
    }
  }

  /**
   * Warns when a handler has used the address of a proxy as the address of a client. Does not warn when no
   * handler has used the address, because monitoring and backends may connect without the proxy.
   */
  #warnAboutForwardedFor({ isIpUsed, clientAddress }: TransportExchange): void {
    const { ip, problem: reason } = clientAddress;
    if (!isIpUsed || reason === undefined) return;
    const phrase = 'X-Forwarded-For is unusable';
    this.#options.warnings.warn({
      kind: phrase,
      subject: `${reason} ${ip}`,
      fields: { reason, ip },
      phrase,
    });
  }

  #prepare(transport: Transport): PendingRequest {
    const exchange = new TransportExchange(transport, this.#exchangeOptions);
    const readerOrigin = this.#findReaderOrigin(transport, exchange.path);
    const request = { transport, exchange, readerOrigin };
    try {
      refuseUnknownMethod(transport);
      refuseMalformed(transport);
      refuseLargeHeaders(transport, this.#options.limits);
      const { method, path } = exchange;
      if (method === 'OPTIONS') {
        const reply = this.#answerOptions(exchange, readerOrigin);
        return { ...request, route: '(options)', handle: () => reply };
      }
      const { route, params } = this.#router.find(method, path);
      const handle = () => {
        // Requests for streams have another rate limit, and are refused in the stream.
        if (!route.isStream) this.#abortLimiter?.check(exchange.clientAddress);
        return route.handle(exchange, params);
      };
      return { ...request, route: route.path, handle };
    } catch (cause) {
      const handle = () => {
        throw cause;
      };
      return { ...request, route: '(none)', handle };
    }
  }

  /**
   * Returns the origin of the request if its pages may read the response. Warns about any other origin,
   * except that of the request itself.
   */
  #findReaderOrigin(transport: Transport, path: string): string | undefined {
    const { origin } = transport.headers;
    if (origin === undefined) return undefined;
    const isListed = this.#standardHeaders.isListed(origin);
    if (isListed && !this.#router.isServerPath(path)) return origin;
    if (isCrossOrigin(transport, origin)) {
      const reason = isListed ? 'the path is for servers' : 'not in CORS_ORIGINS';
      warnAboutOrigin(this.#options.warnings, origin, reason);
    }
    return undefined;
  }

  async #runHandler(request: PendingRequest): Promise<Reply> {
    try {
      return await request.handle();
    } catch (cause) {
      return this.#toProblemReply(request, cause);
    }
  }

  #answerOptions(
    { path, headers }: TransportExchange,
    readerOrigin: string | undefined,
  ): CompleteReply {
    const allowed = path === '*' ? methods : this.#router.methodsAt(path);
    const requestedHeaders = headers['access-control-request-headers'];
    return empty(204, {
      allow: allowed.join(', '),
      ...(readerOrigin === undefined ? {} : preflightHeaders(allowed, requestedHeaders)),
    });
  }

  #toProblemReply({ transport, exchange, route }: PendingRequest, cause: unknown): CompleteReply {
    const { challenge, log, warnings } = this.#options;
    const failure = cause instanceof Failure ? cause : internalFailure();
    const { headers, id: requestId } = exchange;
    // Work fails when it is aborted because its client disconnected. That is not a defect.
    if (!transport.isClientGone) {
      const fields = { requestId, route, cause };
      if (failure !== cause) log.error(fields, 'request failed');
      else if (failure.status >= 500 && failure.name !== 'not_implemented') {
        const { message: reason } = failure;
        const phrase = 'request refused';
        warnings.warn({
          kind: `${phrase} ${route}`,
          subject: reason,
          fields: { ...fields, reason },
          phrase,
        });
      }
    }
    return toProblemReply(failure, { requestId, accept: headers['accept'], challenge });
  }

  /** Sends a reply and returns the status for the log. An exception while sending is a defect. */
  #send(request: PendingRequest, reply: Reply): number {
    const { transport } = request;
    if (transport.isClientGone) {
      cancel(reply);
      return clientClosedRequest;
    }
    try {
      this.#write(request, reply);
      return reply.status;
    } catch (cause) {
      cancel(reply);
      const internal = this.#toProblemReply(request, cause);
      if (transport.isAnswered) transport.destroy();
      else this.#write(request, internal);
      return internal.status;
    }
  }

  #write({ transport, exchange, readerOrigin }: PendingRequest, reply: Reply): void {
    const { status } = reply;
    const isReadableByAll = 'access-control-allow-origin' in reply.headers;
    const headers: Headers = {
      ...this.#standardHeaders.forOrigin(readerOrigin),
      'x-request-id': exchange.id,
      ...reply.headers,
      // Browsers refuse the `*` of the reply for requests with credentials.
      ...(isReadableByAll && readerOrigin !== undefined
        ? { 'access-control-allow-origin': readerOrigin }
        : {}),
    };
    if ('open' in reply) {
      const sink = transport.sendHead(status, headers);
      if (sink === undefined) cancel(reply);
      else reply.open(sink);
      return;
    }
    const { body } = reply;
    const length = body === undefined ? {} : { 'content-length': String(body.length) };
    transport.send(status, { ...headers, ...length }, body);
  }
}

function cancel(reply: Reply): void {
  if ('open' in reply) reply.cancel?.();
}

/** Returns a method for the log: `(invalid)` unless it is 1 to 10 capital letters. */
function toPrintableMethod(method: string): string {
  return /^[A-Z]{1,10}$/.test(method) ? method : '(invalid)';
}
