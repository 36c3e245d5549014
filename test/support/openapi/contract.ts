import { checkContent, checkJson } from './content.js';
import {
  type FoundOperation,
  findOperation,
  findPath,
  type HeaderObject,
  type OpenApiDocument,
  type ResponseObject,
  resolve,
} from './document.js';
import { checkRequest, type SentRequest } from './request-check.js';
import { Schemas } from './schemas.js';

/** A response as a client has received it. */
export interface ReceivedResponse {
  readonly status: number;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, unknown>>;
  /** Undefined if the body has not been received completely. */
  readonly body?: string | undefined;
}

/** Names of the responses to requests that match no operation, by status. See `info.description` of the document. */
const responsesWithoutOperation: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  404: 'NotFound',
  431: 'HeadersTooLarge',
  501: 'NotImplemented',
};

/** Headers that are not compared: Node adds them, or, like `content-type`, `content` describes them. */
const transportHeaders = [
  ...['connection', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding'],
];

/** Compares requests and responses with an OpenAPI document. Each method returns the differences. */
export class Contract {
  readonly #document: OpenApiDocument;
  readonly #schemas: Schemas;
  readonly #commonHeaders: Readonly<Record<string, HeaderObject>>;

  constructor(document: OpenApiDocument) {
    this.#document = document;
    this.#schemas = new Schemas(document);
    const headers = Object.entries(document.components.headers);
    this.#commonHeaders = Object.fromEntries(
      headers.filter(([, header]) => header['x-every-response'] === true),
    );
  }

  /**
   * Checks a response, and also the request if it was accepted: a request that gets 4xx or 5xx may be wrong
   * on purpose.
   */
  check(request: SentRequest, response: ReceivedResponse): string[] {
    const { status } = response;
    const [path = ''] = request.url.split('?', 1);
    const found = findOperation(this.#document, request.method, path);
    const name = found?.name ?? `${request.method} ${path}`;
    const expected = this.#findResponse(request.method, path, found, status);
    if (expected === undefined) {
      const what =
        found === undefined ? `the route, which returned ${status},` : `status ${status}`;
      return [`${name}: ${what} is not documented`];
    }
    const problems = [
      ...this.#checkHeaders(expected, response),
      ...(request.method === 'HEAD' ? [] : this.#checkBody(expected, response)),
    ].map((problem) => `${name}: status ${status}: ${problem}`);
    if (found === undefined || status >= 400) return problems;
    const wrong = checkRequest(this.#schemas, found, request);
    return [...problems, ...wrong.map((problem) => `${name}: request: ${problem}`)];
  }

  /** Checks the data of one of Herald's own events, such as `stream.open`. */
  checkEvent(type: string, data: string): string[] {
    const { EventStream } = this.#document.components.responses;
    const schema = EventStream?.content?.['text/event-stream']?.['x-event-schemas']?.[type];
    if (schema === undefined) return [`event ${type} is not documented`];
    return checkJson(this.#schemas, schema, data).map((problem) => `event ${type}: ${problem}`);
  }

  #findResponse(
    method: string,
    path: string,
    found: FoundOperation | undefined,
    status: number,
  ): ResponseObject | undefined {
    const { responses } = this.#document.components;
    if (found !== undefined) {
      const response = found.operation.responses[status];
      return response && resolve<ResponseObject>(this.#document, response);
    }
    const isDocumentedPath = findPath(this.#document, path) !== undefined;
    if (isDocumentedPath && status === 405) return responses['MethodNotAllowed'];
    if (isDocumentedPath && method === 'OPTIONS' && status === 204) return responses['Options'];
    return responses[responsesWithoutOperation[status] ?? ''];
  }

  #checkHeaders({ headers = {} }: ResponseObject, { headers: received }: ReceivedResponse) {
    const documented = new Map<string, HeaderObject>();
    for (const [name, header] of Object.entries({ ...this.#commonHeaders, ...headers })) {
      documented.set(name.toLowerCase(), resolve<HeaderObject>(this.#document, header));
    }
    const names = Object.keys(received).filter(
      (name) => !transportHeaders.includes(name) && !name.startsWith(':'),
    );
    return [
      ...names.flatMap((name) => {
        const header = documented.get(name);
        if (header === undefined) return [`header ${name} is not documented`];
        const problems = this.#schemas.findProblems(header.schema, received[name]);
        return problems.map((problem) => `header ${name}: ${problem}`);
      }),
      ...[...documented]
        .filter(([name, { required }]) => required === true && !names.includes(name))
        .map(([name]) => `header ${name} is missing`),
    ];
  }

  #checkBody({ content }: ResponseObject, { headers, body }: ReceivedResponse): string[] {
    const type = headers['content-type'];
    if (content !== undefined) return checkContent(this.#schemas, content, type, body);
    return type === undefined && (body ?? '') === '' ? [] : ['a body is not documented'];
  }
}
