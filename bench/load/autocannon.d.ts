/** Types for the part of autocannon that is used here; the package has none. */
declare module 'autocannon' {
  interface Request {
    method: string;
    path: string;
    headers?: Record<string, string>;
    body?: string | undefined;
  }

  interface Options {
    url: string;
    connections: number;
    duration: number;
    timeout?: number;
    requests: {
      method: string;
      path: string;
      setupRequest?(request: Request, context: Record<string, unknown>): Request;
      onResponse?(status: number, body: string, context: Record<string, unknown>): void;
    }[];
  }

  interface Result {
    readonly requests: { readonly total: number };
    readonly duration: number;
    readonly non2xx: number;
    readonly errors: number;
    readonly latency: { readonly p50: number; readonly p99: number };
  }

  export default function autocannon(options: Options): Promise<Result>;
}
