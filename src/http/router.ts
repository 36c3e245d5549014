import { Failure } from '../errors.js';
import type { Exchange } from './exchange.js';
import type { Reply } from './reply.js';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'ALL';

/** The methods of requests that routes can answer. */
export const methods: readonly string[] = [
  ...['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
];

/** The values of the params of a path. A param is named by a colon, such as `token` in `/stream/live/:token`. */
export type Params<Path extends string> = {
  readonly [Name in ParamNames<Path>]: string;
};

type ParamNames<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Name | ParamNames<Rest>
  : Path extends `${string}:${infer Name}`
    ? Name
    : never;

export type Handler<Path extends string> = (
  exchange: Exchange,
  params: Params<Path>,
) => Reply | Promise<Reply>;

export interface Route {
  readonly method: Method;
  /** The pattern. It is logged instead of the path, which may contain a token. */
  readonly path: string;
  readonly handle: Handler<string>;
  /** Whether the response is a stream. HEAD does not match a stream. */
  readonly isStream: boolean;
  /** Whether the route is for backends and operators, with API keys. No page may read its responses. */
  readonly isForServers: boolean;
}

export interface RouteMatch {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

/** Defines a route. A GET route also answers HEAD. */
export function route<Path extends string>(
  method: Method,
  path: Path,
  handle: Handler<Path>,
): Route {
  // Safe: `find` passes a handler exactly the params that its path contains.
  const flags = { isStream: false, isForServers: false };
  return { method, path, handle: handle as Handler<string>, ...flags };
}

/** Defines a GET route without HEAD: a stream has no length, and opening it may have side effects. */
export function streamRoute<Path extends string>(path: Path, handle: Handler<Path>): Route {
  return { ...route('GET', path, handle), isStream: true };
}

/** Defines a route for backends and operators. */
export function serverRoute<Path extends string>(
  method: Method,
  path: Path,
  handle: Handler<Path>,
): Route {
  return { ...route(method, path, handle), isForServers: true };
}

/** The routes of one path. */
interface PathRoutes {
  readonly path: string;
  readonly segments: readonly string[];
  readonly byMethod: Map<string, Route>;
}

/**
 * Finds the route for a method and a path. Paths without params are looked up in a map; the few with
 * params are compared segment by segment, in order of definition. A trailing slash is significant.
 */
export class Router {
  readonly #staticPaths = new Map<string, PathRoutes>();
  readonly #patterns: PathRoutes[] = [];

  /** Throws for a route that is defined twice. */
  constructor(routes: readonly Route[]) {
    for (const newRoute of routes) {
      const { method, path } = newRoute;
      const { byMethod } = this.#getOrCreateRoutes(path);
      if (byMethod.has(method)) {
        throw new Error(`Cannot build router: ${method} ${path} is defined twice`);
      }
      byMethod.set(method, newRoute);
    }
  }

  /**
   * Finds the route and decodes its params. `method` is one of `methods`; HEAD matches the route of GET,
   * unless that is a stream. Throws `not_found`, `method_not_allowed` with `Allow`, or `invalid_request` for
   * a param that is not percent-encoded UTF-8.
   */
  find(method: string, path: string): RouteMatch {
    const { pathRoutes, params } = this.#matchPath(path);
    const routeMethod = method === 'HEAD' ? 'GET' : method;
    const allowed = allowedMethods(pathRoutes);
    const handlerRoute = pathRoutes.byMethod.get(routeMethod) ?? pathRoutes.byMethod.get('ALL');
    if (handlerRoute !== undefined && allowed.includes(method))
      return { route: handlerRoute, params };
    const allow = allowed.join(', ');
    const message = `Cannot ${method} here: allowed methods are ${allow}`;
    throw new Failure('method_not_allowed', message, { headers: { allow } });
  }

  /** Returns the methods of a path, for `Allow`. Throws `not_found`. */
  methodsAt(path: string): readonly string[] {
    return allowedMethods(this.#matchPath(path).pathRoutes);
  }

  /** Whether a path is below `/v1` or has only routes for servers. */
  isServerPath(path: string): boolean {
    if (path.startsWith('/v1/')) return true;
    const routes = [...(this.#lookUp(path)?.pathRoutes.byMethod.values() ?? [])];
    return routes.length > 0 && routes.every(({ isForServers }) => isForServers);
  }

  #getOrCreateRoutes(path: string): PathRoutes {
    const isStatic = !path.includes(':');
    const existing = isStatic
      ? this.#staticPaths.get(path)
      : this.#patterns.find((pathRoutes) => pathRoutes.path === path);
    if (existing !== undefined) return existing;
    const pathRoutes = { path, segments: path.split('/'), byMethod: new Map<string, Route>() };
    if (isStatic) this.#staticPaths.set(path, pathRoutes);
    else this.#patterns.push(pathRoutes);
    return pathRoutes;
  }

  #matchPath(path: string): { pathRoutes: PathRoutes; params: Record<string, string> } {
    const found = this.#lookUp(path);
    if (found === undefined) throw new Failure('not_found', 'Cannot find resource: no such path');
    // Decoded last: a percent-encoded slash stays in its segment.
    const decoded = Object.entries(found.params).map(([name, text]) => [name, decodeParam(text)]);
    return { pathRoutes: found.pathRoutes, params: Object.fromEntries(decoded) };
  }

  /** Returns the routes of a path and its params, still percent-encoded; undefined without routes. */
  #lookUp(path: string): { pathRoutes: PathRoutes; params: Record<string, string> } | undefined {
    const exact = this.#staticPaths.get(path);
    if (exact !== undefined) return { pathRoutes: exact, params: {} };
    const segments = path.split('/');
    for (const pathRoutes of this.#patterns) {
      const params = match(pathRoutes.segments, segments);
      if (params !== undefined) return { pathRoutes, params };
    }
    return undefined;
  }
}

function match(
  pattern: readonly string[],
  segments: readonly string[],
): Record<string, string> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, patternSegment] of pattern.entries()) {
    const segment = segments[index] ?? '';
    if (patternSegment.startsWith(':') && segment !== '') params[patternSegment.slice(1)] = segment;
    else if (patternSegment !== segment) return undefined;
  }
  return params;
}

function decodeParam(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new Failure('invalid_request', 'Cannot read path: it is not percent-encoded UTF-8', {
      cause,
    });
  }
}

function allowedMethods({ byMethod }: PathRoutes): readonly string[] {
  if (byMethod.has('ALL')) return methods;
  const hasHead = byMethod.get('GET')?.isStream === false;
  return [...byMethod.keys(), ...(hasHead ? ['HEAD'] : []), 'OPTIONS'];
}
